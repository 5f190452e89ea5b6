"""The largest tensor that a piece of code allocates, seen by watching every operation of torch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Within the block, note each new storage's size in numbers, and which operation made the largest.

    known: tensors that were there before, whose views are no allocations. A sparse tensor counts by its values.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.largest, self.operation = 0, "none"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not isinstance(tensor, Tensor):
                continue
            part = tensor._values() if tensor.layout == torch.sparse_coo else tensor
            storage = part.untyped_storage()
            size = storage.nbytes() // part.element_size()
            if storage.data_ptr() not in self.known and size > self.largest:
                self.largest, self.operation = size, str(func)
        return result
