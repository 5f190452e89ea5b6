"""Row updates on a GPU: the ids are sorted there, then triton_kernels.py takes one program a distinct id."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from karui.ops.row_update.triton_kernels import adagrad_kernel, sum_kernel
from karui.ops.triton_launch import COMPILE_OPTIONS, on_device_of

COLUMNS = 256  # of a program that adds rows


def _group(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct ids (R,), where their places start (R + 1,), and the places in the order of the ids (M,)."""
    ordered, order = ids.sort(stable=True)
    distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = torch.zeros(len(distinct) + 1, dtype=torch.int64, device=ids.device)
    torch.cumsum(counts, 0, out=starts[1:])
    return distinct, starts, order


def _constants(H: int, block: int, dtype: torch.dtype) -> dict[str, Any]:
    acc = tl.float64 if dtype == torch.float64 else tl.float32
    return {"H": H, "BLOCK": block, "ACC": acc, **COMPILE_OPTIONS}


def sum_rows(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.row_update`; 16-bit rows are summed in 32 bits."""
    distinct, starts, order = _group(ids)
    values = values.contiguous()
    total = values.new_empty(len(distinct), *values.shape[1:])
    if total.numel():
        H = total.numel() // len(distinct)
        block = min(COLUMNS, triton.next_power_of_2(H))
        with on_device_of(values):
            grid = (len(distinct), triton.cdiv(H, block))
            sum_kernel[grid](values, starts, order, total, **_constants(H, block, values.dtype))
    return distinct, total


def row_adagrad_(
    weight: Tensor, sum_of_squares: Tensor, ids: Tensor, values: Tensor, *, lr: float, eps: float
) -> None:
    """Shapes as in `karui.ops.row_update`; weight must be contiguous."""
    if not weight.is_contiguous():
        raise ValueError("implementation 'triton' needs a contiguous weight")
    if not weight.numel() or not len(ids):
        return
    distinct, starts, order = _group(ids)
    H = weight.shape[1]
    # Numbers in a tensor keep their 64 bits; as arguments of a kernel they would be rounded to 32.
    rates = torch.tensor([lr, eps], dtype=torch.float64, device=weight.device)
    constants = _constants(H, triton.next_power_of_2(H), weight.dtype)
    with on_device_of(weight):
        adagrad_kernel[len(distinct),](
            values.contiguous(), distinct, starts, order, weight, sum_of_squares, rates, **constants,
        )  # fmt: skip
