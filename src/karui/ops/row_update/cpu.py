"""The compiled sums and updates of rows: one sort of the ids, then one pass over the rows that they name."""

from collections.abc import Sequence

import torch
from torch import Tensor

from karui import _native
from karui.ops.eager import addresses

DTYPES = (torch.float32, torch.float64)


def _group(ids: Tensor) -> tuple[int, Tensor, Tensor, Tensor]:
    """Number of distinct ids R, they (M,), where their places start (M + 1,) and the places (M,); R of each count."""
    M = len(ids)
    distinct, starts, order = torch.empty_like(ids), ids.new_empty(M + 1), torch.empty_like(ids)
    return _native.row_group(M, addresses(ids, distinct, starts, order)), distinct, starts, order


def sum_row_parts(ids: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Distinct ids (R,) and sums (R, ...) of values that come in parts (M_i, ...), in the order of ids (sum M_i,)."""
    ids, values = ids.contiguous(), [part.contiguous() for part in parts]
    R, distinct, starts, order = _group(ids)
    total = values[0].new_empty(R, *values[0].shape[1:])
    if total.numel():
        H, threads = total.numel() // R, torch.get_num_threads()
        sizes = tuple(len(part) for part in values)
        groups = addresses(distinct, starts, order)
        is_double = total.dtype == torch.float64
        _native.row_sum(R, H, threads, is_double, groups, addresses(*values), sizes, total.data_ptr())
    return distinct[:R].clone(), total


@torch.library.custom_op("karui::sum_rows", mutates_args=(), device_types="cpu")
def sum_rows_op(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct ids (R,) in rising order and the sums of their rows (R, ...)."""
    return sum_row_parts(ids, [values])


@sum_rows_op.register_fake
def _(ids, values):  # noqa: ANN001, ANN202
    R = torch.library.get_ctx().new_dynamic_size()
    return ids.new_empty(R), values.new_empty(R, *values.shape[1:])


def run_row_adagrad(
    weight: Tensor, sum_of_squares: Tensor, ids: Tensor, values: Tensor, lr: float, eps: float
) -> None:
    """Contiguous weight (V, H) and sum_of_squares (V,) of one dtype, changed in place."""
    ids, values = ids.contiguous(), values.contiguous()
    (V, H), M = weight.shape, len(ids)
    if not weight.numel() or not M:
        return
    R, *groups = _group(ids)
    arrays = addresses(*groups, values, weight, sum_of_squares)
    is_double = weight.dtype == torch.float64
    _native.row_adagrad(M, R, V, H, torch.get_num_threads(), is_double, lr, eps, arrays)


row_adagrad_op = torch.library.custom_op(
    "karui::row_adagrad_", run_row_adagrad, mutates_args=("weight", "sum_of_squares"), device_types="cpu"
)


@row_adagrad_op.register_fake
def _(weight, sum_of_squares, ids, values, lr, eps):  # noqa: ANN001, ANN202, ARG001
    return None
