"""Which rule which parameter follows."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from karui.optim.rules import ROW_RULES, RULES


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    rule: str = "adam",
    sparse_lr: float = 0.1,
    sparse_rule: str = "row-adagrad",
    own: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return up to four kinds of groups for `Optimizer` or a task's `parameter_groups`.

    Tables with sparse gradients (what a module's `sparse_parameters()` lists, and `nn.Embedding(sparse=True)`) follow
    `sparse_rule` at `sparse_lr` without decay; matrices follow `rule` with `weight_decay`; vectors and scalars (biases,
    norms, gates) follow `rule` without decay. `own` are groups with words of their own, such as the variances of a
    sparse model at another rate; their parameters are left out of the others. Empty groups are left out, parameters
    that take no gradient too, and a tied table appears once.

    Raises ValueError on an unknown rule, or a sparse rule that is not one of rows.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {tuple(RULES)}, got {rule!r}")
    if sparse_rule not in (*ROW_RULES, "sgd"):
        raise ValueError(f"sparse_rule must be one of {(*ROW_RULES, 'sgd')}, got {sparse_rule!r}")
    taken = {id(parameter) for group in own for parameter in group["params"]}
    sparse = sparse_tables(model)
    kinds: dict[str, list[nn.Parameter]] = {"sparse": [], "matrices": [], "vectors": []}
    for parameter in model.parameters():
        if id(parameter) in taken or not parameter.requires_grad:
            continue
        kind = "sparse" if id(parameter) in sparse else "matrices" if parameter.dim() > 1 else "vectors"
        kinds[kind].append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": kinds["sparse"], "rule": sparse_rule, "lr": sparse_lr, "weight_decay": 0.0},
        {"params": kinds["matrices"], "rule": rule, "lr": lr, "weight_decay": weight_decay},
        {"params": kinds["vectors"], "rule": rule, "lr": lr, "weight_decay": 0.0},
    ]
    # The dense ones first: the learning rate in the log is that of the first group.
    return [group for group in (*groups[1:], groups[0], *map(dict, own)) if group["params"]]


def sparse_tables(model: nn.Module) -> set[int]:
    """Return the `id` of each parameter whose gradient is sparse."""
    found: set[int] = set()
    for module in model.modules():
        listed = getattr(module, "sparse_parameters", None)
        if callable(listed):
            found |= {id(parameter) for parameter in listed()}  # pyright: ignore[reportGeneralTypeIssues]
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            found.add(id(module.weight))
    return found
