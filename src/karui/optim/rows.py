"""Gradients as rows: the ids and values of a sparse gradient, summed where an id repeats."""

import torch
from torch import Tensor

from karui.ops.row_update import sum_rows


def rows_of(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids (M,) and values (M, ...) of a gradient; ids may repeat, and a dense gradient has them all."""
    if not grad.is_sparse:
        return torch.arange(len(grad), device=grad.device), grad
    if grad.sparse_dim() != 1:
        raise ValueError(f"a sparse gradient must be one of rows, got {grad.sparse_dim()} sparse dimensions")
    # torch's indices() and values() ask for a coalesced tensor; the sums are ours to make.
    return grad._indices()[0], grad._values()  # noqa: SLF001


def with_rows(grad: Tensor, ids: Tensor, values: Tensor, *, is_coalesced: bool) -> Tensor:
    """Return a sparse gradient of the shape of `grad` that consists of these rows."""
    return torch.sparse_coo_tensor(
        ids[None], values, grad.shape, is_coalesced=is_coalesced, check_invariants=False
    )


def coalesced(grad: Tensor) -> Tensor:
    """Return the sparse gradient with each id once, in rising order; as it is where that holds already."""
    if grad.is_coalesced():
        return grad
    return with_rows(grad, *sum_rows(*rows_of(grad)), is_coalesced=True)
