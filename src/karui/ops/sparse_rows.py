"""Gradients of large tables as sparse tensors of some of their rows."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sparse_rows(ids: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """A coalesced sparse tensor of `shape` (V, ...): values (n, ...) at ids (n,), which rise; nothing checks that."""
    # check_invariants is said outright: left alone, torch warns that it is not decided.
    return torch.sparse_coo_tensor(ids[None], values, tuple(shape), is_coalesced=True, check_invariants=False)


def spread_rows(ids: Tensor, values: Tensor, table: Tensor, *, sparse: bool) -> Tensor:
    """The gradient of `table` that is zero outside `ids`, which rise: a sparse tensor, or a dense one."""
    if sparse:
        return sparse_rows(ids, values, table.shape)
    return torch.zeros_like(table).index_copy_(0, ids, values)
