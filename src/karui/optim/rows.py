"""Gradients as rows: the ids and values of a sparse gradient, summed where an id repeats."""

import torch
from torch import Tensor

from karui.ops.row_update import sum_rows
from karui.ops.sparse_rows import sparse_rows


def rows_of(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids (M,) and values (M, ...) of a gradient; ids may repeat, and a dense gradient has them all."""
    if not grad.is_sparse:
        return torch.arange(len(grad), device=grad.device), grad
    if grad.sparse_dim() != 1:
        raise ValueError(f"a sparse gradient must be one of rows, got {grad.sparse_dim()} sparse dimensions")
    # torch's indices() and values() ask for a coalesced tensor; the sums are ours to make.
    return grad._indices()[0], grad._values()  # noqa: SLF001


def coalesced(grad: Tensor) -> Tensor:
    """Return the sparse gradient with each id once, in rising order; as it is where that holds already."""
    if grad.is_coalesced():
        return grad
    return sparse_rows(*sum_rows(*rows_of(grad)), grad.shape)
