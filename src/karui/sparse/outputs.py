"""Output layers of `karui.output` that hold a table (V, H) of classes, sparse: all of the flat family."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from karui.sparse.layers import SparseLayer


class _Call(nn.Module):
    """One method of a layer, as a forward that `functional_call` can give other weights."""

    def __init__(self, base: nn.Module, method: str) -> None:
        super().__init__()
        self.base, self.method = base, method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.base, self.method)(*args, **kwargs)


class SparseOutput(SparseLayer):
    """`karui.output.flat.FlatOutput`: one draw of the table serves a whole call; answers are those of the masked table.

    The bias is never pruned.
    """

    def forward(self, hidden: Tensor, target: Tensor, **options: Any) -> Tensor:
        """The training loss of the wrapped layer."""
        return self._called(self.base, "forward", hidden, target, **options)

    def loss_by(self, other: nn.Module) -> Callable[..., Tensor]:
        """The training loss of another layer of the family that shares the wrapped layer's table, as a function."""

        def loss(hidden: Tensor, target: Tensor, **options: Any) -> Tensor:
            return self._called(other, "forward", hidden, target, **options)

        return loss

    def nll(self, *args: Any, **options: Any) -> Tensor:
        """See `karui.output.base.OutputLayer`, and so below."""
        return self._called(self.base, "nll", *args, **options)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Of every class."""
        return self._called(self.base, "log_prob", hidden)

    def score(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Of the target, not normalised."""
        return self._called(self.base, "score", hidden, target)

    def topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The likeliest classes."""
        return self._called(self.base, "topk", hidden, k)

    def log_z(self, hidden: Tensor) -> Tensor:
        """The normaliser."""
        return self._called(self.base, "log_z", hidden)

    def predict(self, hidden: Tensor) -> Tensor:
        """The likeliest class."""
        return self._called(self.base, "predict", hidden)

    def sample(self, *args: Any, **options: Any) -> Tensor:
        """Classes drawn."""
        return self._called(self.base, "sample", *args, **options)

    def softmax_state_dict(self) -> dict[str, Tensor]:
        """Of the masked table."""
        return self.plain().softmax_state_dict()  # type: ignore[operator]

    def _called(self, layer: nn.Module, method: str, *args: Any, **options: Any) -> Any:
        current = {f"base.{name}": value for name, value in self.current().items()}
        return torch.func.functional_call(_Call(layer, method), current, args, options)
