"""Updates of those rows of a large table that a step touched: never a pass over the table. Derivation in README.md.

V rows of the table, H values a row, M gradient rows with repeated ids, R distinct ids among them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from karui.ops.choice import FULL_DTYPES, choose_implementation, is_traced
from karui.ops.row_update import reference

__all__ = ["lazy_adam_", "row_adagrad_", "sum_rows"]

IMPLEMENTATIONS = ("reference", "cpp", "triton")


def sum_rows(
    ids: Tensor, values: Tensor | Sequence[Tensor], *, implementation: str | None = None
) -> tuple[Tensor, Tensor]:
    """Return the distinct ids (R,) in rising order and the sums of their rows, (R, ...).

    ids (M,) int64; values (M, ...), or several tensors of M rows together, which are read where they lie.
    implementation: "reference", "cpp", "triton" or None for the fastest that the device and dtype have.
    Raises ValueError on shapes that do not fit and a named implementation that cannot run.
    """
    parts = [values] if isinstance(values, Tensor) else list(values)
    _check(ids, parts)
    choice = _choose(parts[0], implementation)
    if choice == "cpp":
        from karui.ops.row_update import cpu

        if not is_traced(ids):
            return cpu.sum_row_parts(ids, parts)
        return cpu.sum_rows_op(ids, torch.cat(parts))
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    if choice == "triton":
        from karui.ops.row_update import triton

        return triton.sum_rows(ids, joined)
    return reference.sum_rows(ids, joined)


def row_adagrad_(
    weight: Tensor,
    sum_of_squares: Tensor,
    ids: Tensor,
    values: Tensor,
    *,
    lr: float,
    eps: float = 1e-10,
    implementation: str | None = None,
) -> None:
    """Row-wise Adagrad in place, on the rows named by ids alone (Lerer et al. 2019, section 3.4).

    weight (V, H) and sum_of_squares (V,), which may be wider, are changed; ids (M,) int64 in [0, V) with repeats;
    values (M, H) gradient rows. implementation: as in `sum_rows`.
    Raises ValueError on shapes that do not fit and a named implementation that cannot run.
    """
    _check(ids, [values], weight)
    if sum_of_squares.shape != weight.shape[:1]:
        raise ValueError(f"sum_of_squares must be (V,), got {tuple(sum_of_squares.shape)}")
    choice = _choose(weight, implementation)
    if choice == "cpp" and not (weight.is_contiguous() and sum_of_squares.dtype == weight.dtype):
        if implementation is not None:
            raise ValueError("implementation 'cpp' needs a contiguous weight and sum_of_squares of its dtype")
        choice = "reference"
    if choice == "cpp":
        from karui.ops.row_update import cpu

        run = cpu.row_adagrad_op if is_traced(weight) else cpu.run_row_adagrad
        run(weight, sum_of_squares, ids, values, lr, eps)
    elif choice == "triton":
        from karui.ops.row_update import triton

        triton.row_adagrad_(weight, sum_of_squares, ids, values, lr=lr, eps=eps)
    else:
        reference.row_adagrad_(weight, sum_of_squares, ids, values, lr=lr, eps=eps)


def lazy_adam_(
    weight: Tensor,
    averages: tuple[Tensor, Tensor],
    touches: Tensor,
    ids: Tensor,
    values: Tensor,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """Adam in place, on the rows named by ids alone; the averages of a row that is not touched do not decay.

    weight (V, H), averages two (V, H), which may be wider, and touches (V,) int32 are changed; ids (M,) int64 with
    repeats; values (M, H), summed in the dtype of the averages.
    Raises ValueError on shapes that do not fit.
    """
    _check(ids, [values], weight)
    rows, g = sum_rows(ids, values.to(averages[0].dtype))
    reference.lazy_adam_rows_(weight, averages, touches, rows, g, lr=lr, betas=betas, eps=eps)


def _choose(tensor: Tensor, implementation: str | None) -> str:
    """Rows of 16 bits are the reference's: their sums are made in 32."""
    return choose_implementation(tensor, implementation, IMPLEMENTATIONS, dtypes=FULL_DTYPES)


def _check(ids: Tensor, parts: Sequence[Tensor], weight: Tensor | None = None) -> None:
    if ids.dim() != 1 or ids.dtype != torch.int64 or not parts:
        raise ValueError(f"ids must be (M,) of int64, got {tuple(ids.shape)} of {ids.dtype}")
    if sum(len(part) for part in parts) != len(ids) or any(p.shape[1:] != parts[0].shape[1:] for p in parts):
        raise ValueError(f"values must be (M, ...), M = {len(ids)}, got {[tuple(p.shape) for p in parts]}")
    if weight is not None and (weight.dim() != 2 or parts[0].shape[1:] != weight.shape[1:]):
        raise ValueError(
            f"weight must be (V, H) and values (M, H), got {tuple(weight.shape)} and {tuple(parts[0].shape)}"
        )
