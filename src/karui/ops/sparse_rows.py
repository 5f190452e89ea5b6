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


class DenseGiven:
    """Whether a dense gradient of some leaves has been given in the backward pass that runs now.

    Autograd adds all gradients of a leaf in one buffer before anyone sees them, a sparse one to a dense one in place:
    an operation that gave a dense gradient marks so, and another one of the same leaves may then give rows.
    """

    def __init__(self) -> None:
        self._backward = -1

    def mark(self) -> None:
        """Called by a backward function that returns dense gradients of the leaves."""
        self._backward = torch._C._current_graph_task_id()  # noqa: SLF001  torch has no public name for it

    def is_now(self) -> bool:
        """Whether `mark` was called in the backward pass that runs now."""
        return self._backward == torch._C._current_graph_task_id() != -1  # noqa: SLF001
