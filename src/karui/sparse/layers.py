"""Layers whose weights are drawn in training and masked at test time; each wraps the layer it replaces as `base`.

`weights` maps the base's parameter names to their sparse state. In training one weight sample is shared by all time
steps and all sequences of a mini-batch, because the state at one step depends on the same weights as the next.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.sparse.variational import VariationalWeight


class SparseLayer(nn.Module):
    """What all wrapped layers share."""

    def __init__(self, base: nn.Module, weights: dict[str, VariationalWeight]) -> None:
        super().__init__()
        self.base = base
        self.weights = nn.ModuleDict(weights)

    def states(self) -> list[tuple[str, Tensor, VariationalWeight]]:
        """(parameter name, mean, sparse state) of each sparse weight."""
        return [(name, getattr(self.base, name), state) for name, state in self.weights.items()]  # type: ignore[misc]

    def current(self) -> dict[str, Tensor]:
        """All sparse weights as the next forward uses them: a sample in training, else the deployed values."""
        return {
            name: state.sample(mean) if self.training else state.deployed(mean)
            for name, mean, state in self.states()
        }


class SparseLinear(SparseLayer):
    """`torch.nn.Linear`; local reparametrisation for input (N, in), one shared sample for inputs with a time axis."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As torch.nn.Linear."""
        base, [(_, mean, state)] = self.base, self.states()
        if self.training and input.dim() == 2:
            return state.local(input, mean, base.bias)  # type: ignore[arg-type]
        return F.linear(input, self.current()["weight"], base.bias)  # type: ignore[arg-type]


class SparseEmbedding(SparseLayer):
    """`torch.nn.Embedding`; noise is drawn only for the rows that the batch reads."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """ids of any shape (...) to (..., embedding_dim)."""
        [(_, mean, state)] = self.states()
        rows, inverse = torch.unique(input, return_inverse=True)
        table = state.sample(mean, rows) if self.training else state.deployed(mean, rows)
        if self.base.padding_idx is not None:
            table = table * (rows != self.base.padding_idx)[:, None]
        return F.embedding(inverse, table)


class SparseRecurrent(SparseLayer):
    """Any recurrent layer whose weights are plain parameters: those of `karui.nn`, `torch.nn.LSTM`, `torch.nn.GRU`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the wrapped layer."""
        current = self.current()
        base: Any = self.base
        flat = getattr(base, "_flat_weights", None)
        if flat is None:
            return torch.func.functional_call(base, current, args, kwargs)
        # torch's recurrent layers read this list, not their parameters, when they call their kernel.
        names = base._flat_weights_names  # noqa: SLF001
        replaced = [current.get(name, value) for name, value in zip(names, flat, strict=True)]
        try:
            base._flat_weights = replaced  # noqa: SLF001
            return base(*args, **kwargs)
        finally:
            base._flat_weights = flat  # noqa: SLF001
