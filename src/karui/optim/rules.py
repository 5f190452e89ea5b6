"""The update rules that torch does not have: each takes one parameter group and the optimizer's state.

V rows, H values a row. A rule of rows reads and writes the rows of the gradient and nothing else of the table.

Weight decay of a row that a step does not touch is not lost, it waits: the group adds up log(1 - lr weight_decay) over
all steps, each row remembers up to where it was decayed, and a touched row makes up for the rest at once. With a
gradient in every step that is decoupled decay (Loshchilov & Hutter 2019) as it stands.
"""

import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from karui.ops.row_update import lazy_adam_, row_adagrad_
from karui.optim.rows import rows_of

State = MutableMapping[Tensor, dict[str, Any]]
LOG_DECAY = "log_decay"
"""Key of a group: the sum of log(1 - lr weight_decay) over the steps so far."""


def row_adagrad(group: dict[str, Any], state: State) -> None:
    """Row-wise Adagrad: one sum of squares a row, kept as `sum` (V,), float32 at least."""
    for parameter, grad in _with_gradient(group):
        kept = state[parameter]
        table = _table(parameter)
        if not kept:
            kept["sum"] = _counter(parameter, torch.promote_types(parameter.dtype, torch.float32))
        ids, values = rows_of(grad)
        row_adagrad_(
            table, kept["sum"], ids, values.reshape(-1, table.shape[1]), lr=group["lr"], eps=group["eps"]
        )


def lazy_adam(group: dict[str, Any], state: State) -> None:
    """Adam on touched rows; `step` (V,) int32 counts how often a row was touched, and corrects its bias by that.

    The averages (V, H) are float32 at least: of 16 bits, the second would not move once its steps are below 1 in 256.
    """
    decay = _next_decay(group)
    for parameter, grad in _with_gradient(group):
        kept = state[parameter]
        table = _table(parameter)
        if not kept:
            kept["step"] = _counter(parameter, torch.int32)
            kept["exp_avg"], kept["exp_avg_sq"] = _unwritten_zeros(table), _unwritten_zeros(table)
        ids, values = rows_of(grad)
        _decay_rows(group, kept, parameter, ids, decay)
        lazy_adam_(
            table,
            (kept["exp_avg"], kept["exp_avg_sq"]),
            kept["step"],
            ids,
            values.reshape(-1, table.shape[1]),
            lr=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
        )


def sgd(group: dict[str, Any], state: State) -> None:
    """Plain gradient descent, w -= lr (g + weight_decay w); on the rows of a sparse gradient alone."""
    lr, weight_decay = group["lr"], group["weight_decay"]
    decay = _next_decay(group)
    dense = [(p, g) for p, g in _with_gradient(group) if not g.is_sparse]
    if dense:
        parameters, gradients = [p for p, _ in dense], [g for _, g in dense]
        if weight_decay:
            torch._foreach_mul_(parameters, 1 - lr * weight_decay)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(parameters, gradients, alpha=-lr)  # pyright: ignore[reportPrivateImportUsage]
    for parameter, grad in _with_gradient(group):
        if grad.is_sparse:
            ids, values = rows_of(grad)
            _decay_rows(group, state[parameter] if weight_decay else {}, parameter, ids, decay)
            parameter.index_add_(0, ids, values, alpha=-lr)


def _with_gradient(group: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
    return [(p, p.grad) for p in group["params"] if p.grad is not None]


def _table(parameter: Tensor) -> Tensor:
    """The parameter as (V, H): a view, so that an update of it is one of the parameter."""
    return parameter.detach().view(len(parameter), math.prod(parameter.shape[1:]))


def _unwritten_zeros(table: Tensor) -> Tensor:
    """Zeros like the table, float32 at least; on a CPU pages that take no memory until a row is written.

    torch.zeros writes each of them, numpy asks the system for pages that are zero.
    """
    dtype = torch.promote_types(table.dtype, torch.float32)
    if table.device.type != "cpu":
        return torch.zeros_like(table, dtype=dtype)
    return torch.from_numpy(np.zeros(table.shape, np.float64 if dtype == torch.float64 else np.float32))


def _counter(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(len(parameter), dtype=dtype, device=parameter.device)


def _next_decay(group: dict[str, Any]) -> float:
    """Take this step's decay into the group's sum and return the sum."""
    if group["weight_decay"]:
        share = group["lr"] * group["weight_decay"]
        if share >= 1:
            raise ValueError(
                f"lr * weight_decay must be < 1, got {share}: a step would turn the weights over"
            )
        group[LOG_DECAY] = group.get(LOG_DECAY, 0.0) + math.log1p(-share)
    return group.get(LOG_DECAY, 0.0)


def _decay_rows(
    group: Mapping[str, Any], kept: dict[str, Any], parameter: Tensor, ids: Tensor, decay: float
) -> None:
    """Bring the rows' decay up to this step, as w <- w exp(decay - what the row has had)."""
    if not group["weight_decay"]:
        return
    if "decayed" not in kept:
        kept["decayed"] = _counter(parameter, torch.float64)
    rows = ids.unique()
    factor = torch.exp(decay - kept["decayed"][rows]).to(parameter.dtype)
    kept["decayed"][rows] = decay
    table = _table(parameter)
    table[rows] = table[rows] * factor[:, None]


RULES: dict[str, Callable[[dict[str, Any], State], None] | None] = {
    "adam": None,  # torch's own
    "adamw": None,
    "sgd": sgd,
    "row-adagrad": row_adagrad,
    "lazy-adam": lazy_adam,
}
"""Rules by name; those that torch has stand as None."""

ROW_RULES = ("row-adagrad", "lazy-adam")
"""Rules of tables with sparse gradients: no weight decay unless the group itself asks for it."""
