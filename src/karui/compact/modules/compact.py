"""Any user's module, masked, to a smaller plain one with the same answers.

small = compact_module(masked, example)      # proven equal on the example and on random inputs
small.compaction.architecture                # "219-214-100"
save_compacted(small, "small.safetensors")   # state dict and sizes; no code, no pickle
again = load_compacted("small.safetensors", Model())
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from karui.compact.modules.plan import Analysis, analyse, apply, joined, load_arrays
from karui.compact.modules.prove import answers, check, worst_difference
from karui.compact.modules.report import report
from karui.compact.modules.trace import has_hooks, trace
from karui.errors import UserError

TOLERANCE = 1e-5


@torch.no_grad()
def compact_module(
    model: nn.Module,
    *example: Any,
    keywords: Mapping[str, Any] | None = None,
    more: Iterable[tuple] = (),
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> nn.Module:
    """Return a smaller plain module whose answers in eval mode equal those of `model`; `model` is not changed.

    model: plain and masked, its removed weights exact zeros (after `karui.sparse.harden`, which is called for you where
    the model is sparse still). example: the positional arguments of one forward; keywords: its keyword arguments; two
    or more sequences, steps and rows each say more than one. more: further tuples of positional arguments on which the
    answers must agree.

    What goes: units, channels and columns that nobody reads, in Linear, Conv1d/2d, BatchNorm1d/2d, Embedding, LSTM and
    GRU (torch's and karui's); what is constant moves into the readers' biases; ids of zero rows share one row. Between
    layers, features are followed through everything that `torch.fx` can trace; what is not known there keeps all
    features that it reads. Where the forward cannot be traced, its traceable parts are compacted one by one, and
    `compaction.notes` says so.

    The returned module is of the model's own class, or, where the forward names a length that changes
    (`view(-1, 800)`, `chunk`), a `torch.fx.GraphModule`. It is in eval mode.

    Raises:
        UserError: a weight is not finite, the model's answers are random, or the compacted answers differ by more than
            `tolerance` times the largest answer (or 1).
        ValueError: no example was given.
    """
    if not example and not keywords:
        raise ValueError("compact_module needs an example: the arguments of one forward of the model")
    keywords = dict(keywords or {})
    masked = _masked(model)
    _check_finite(masked)
    samples = check(masked, [(example, keywords), *((one, {}) for one in more)], seed=seed)
    template = as_template(masked) if len(example) == 1 and not keywords else masked
    notes: list[str] = []
    found = list(_parts(template, "", example, keywords, notes))
    small, used, error = _proven(template, found, samples, tolerance, notes)
    result = small[0] if template is not masked else small  # type: ignore[index]
    result.compaction = report(template, small, used, error, len(samples), notes)  # type: ignore[assignment]
    return result


def _masked(model: nn.Module) -> nn.Module:
    """A copy in eval mode, plain."""
    from karui.sparse import harden

    return harden(model).eval()


def as_template(model: nn.Module) -> nn.Module:
    """The model, or a layer that is compacted by itself inside a module, so that it can be replaced."""
    return nn.Sequential(model) if _is_layer(model) else model


def _is_layer(model: nn.Module) -> bool:
    return not any(True for _ in model.children())


def _check_finite(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"the model's {name} holds NaN or infinity: train again with a lower lr")


def _parts(
    root: nn.Module, prefix: str, args: tuple, keywords: Mapping[str, Any], notes: list[str]
) -> Iterator[Analysis]:
    """Analyses of a module, and of the modules inside it that could not be traced with it."""
    traced = trace(root, args, keywords)
    if not isinstance(traced, str):
        yield analyse(traced, prefix, may_edit=not has_hooks(root))
        for name in traced.whole:
            notes.append(f"{joined(prefix, name)}: stays whole in the graph around it")
            yield from _parts(root.get_submodule(name), joined(prefix, name), *traced.calls[name], notes)
        return
    if _is_layer(root):
        return
    notes.append(f"{prefix or 'the model'}: {traced}; only what needs no graph of it was removed")
    calls = _record_calls(root, args, keywords)
    for name, found in calls.items():
        yield from _parts(root.get_submodule(name), joined(prefix, name), *found, notes)


def _record_calls(
    root: nn.Module, args: tuple, keywords: Mapping[str, Any]
) -> dict[str, tuple[tuple, dict[str, Any]]]:
    """What the outermost modules inside `root` that have a forward of their own were first called with."""
    found: dict[str, tuple[tuple, dict[str, Any]]] = {}
    handles = []
    for name, module in root.named_modules():
        if module is root or _is_layer(module):
            continue

        def note(_: nn.Module, given: tuple, named: dict[str, Any], name: str = name) -> None:
            found.setdefault(name, (given, named))

        handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        root(*args, **keywords)
    finally:
        for handle in handles:
            handle.remove()
    outer = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    return {name: found[name] for name in outer}


def _proven(
    template: nn.Module, found: list[Analysis], samples: list, tolerance: float, notes: list[str]
) -> tuple[nn.Module, list[Analysis], float]:
    """The compacted module and its error; parts found without the whole graph are dropped if they are wrong."""
    expected = answers(template, samples)
    small, error = _attempt(template, found, samples, expected, tolerance)
    if small is not None:
        return small, found, error
    if not any(analysis.part.prefix for analysis in found):
        raise UserError(
            f"the compacted module's answers differ from the masked model's by {error:.2e}, allowed is "
            f"{tolerance:.0e}; please report this with the model's forward"
        )
    used: list[Analysis] = []
    for analysis in found:
        more, _ = _attempt(template, [*used, analysis], samples, expected, tolerance)
        if more is not None:
            used.append(analysis)
        else:
            notes.append(
                f"{analysis.part.prefix or 'the model'}: kept as it is, its parts are used in other ways too"
            )
    small, error = _attempt(template, used, samples, expected, tolerance)
    if small is None:
        raise UserError(f"the compacted module's answers differ by {error:.2e}, allowed is {tolerance:.0e}")
    return small, used, error


def _attempt(
    template: nn.Module, found: list[Analysis], samples: list, expected: list, tolerance: float
) -> tuple[nn.Module | None, float]:
    """Apply and compare; first with the forwards as the user wrote them, then with the traced ones."""
    error = float("inf")
    for graphs in (False, True):
        parts = [copy.copy(analysis.part) for analysis in found]
        for part in parts:
            part.graph = part.graph or (graphs and not part.prefix)
        small = apply(template, parts)
        load_arrays(small, found)
        try:
            error = worst_difference(answers(small, samples), expected)
        except Exception as failure:  # noqa: BLE001  a user's forward may read an attribute that a new layer lacks
            del failure
            continue
        if error <= tolerance:
            for analysis, part in zip(found, parts, strict=True):
                analysis.part.graph = part.graph
            return small, error
    return None, error
