"""Stacked recurrent layers of any sizes: what one layer of torch's or karui's cannot be."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class UnevenRecurrence(nn.Module):
    """Stacked recurrent layers of any sizes, each layer and each direction of its own; torch's call.

    layers: for each layer one module for all its directions, or a list of two (forward, reverse) of one direction each,
    None where a direction has no units. All take time first, or all batch first. parts: tensors in a state, 2 for
    an LSTM. joined: all units have the same size, and states are tensors as torch has them.

    forward(input, hx=None, *, lengths=None, padding_mask=None) -> (output, state)
      input (T, B, I), (B, T, I) with batch_first, (T, I), or a PackedSequence; lengths and padding_mask as the layers
      take them (karui's; torch's do not). state: h_n, or (h_n, c_n), each a tuple of one tensor (B, H) a layer and
      direction, because their sizes differ; joined, a tensor (L*D, B, H) each. Raises ValueError for a first state
      where not joined.
    """

    def __init__(
        self,
        layers: list[nn.Module | list[nn.Module | None]],
        *,
        batch_first: bool,
        dropout: float,
        parts: int,
        joined: bool = False,
    ) -> None:
        super().__init__()
        self.batch_first, self.dropout, self.parts, self.joined = batch_first, dropout, parts, joined
        self.layers = nn.ModuleList()
        self.pairs: list[bool] = []
        for layer in layers:
            self.pairs.append(isinstance(layer, list))
            both = layer if isinstance(layer, list) else [layer]
            self.layers.append(nn.ModuleList([nn.Identity() if part is None else part for part in both]))

    def forward(self, input: Any, hx: Any = None, **padding: Any) -> tuple[Any, Any]:  # noqa: A002  torch's name
        """Run all layers; see the class."""
        if hx is not None and not self.joined:
            raise ValueError("layers of different sizes start from zeros: hx must be None")
        padding = {name: value for name, value in padding.items() if value is not None}
        first = [None] * len(self.layers) if hx is None else self._split(hx)
        states: list[list[Any]] = [[] for _ in range(self.parts)]
        x = input
        for place, (layer, pair) in enumerate(zip(self.layers, self.pairs, strict=True)):
            run = self._both if pair else self._one
            x, found = run(x, layer if pair else layer[0], padding, first[place])  # type: ignore[index, arg-type]
            for kind, state in zip(states, found, strict=False):
                kind.extend(state)
            if self.dropout and self.training and place + 1 < len(self.layers):
                x = _replaced(x, nn.functional.dropout(_data(x), self.dropout))
        whole = tuple(torch.stack(kind) if self.joined else tuple(kind) for kind in states)
        return x, whole[0] if self.parts == 1 else whole

    def _split(self, hx: Any) -> list[Any]:
        """The first states of each layer."""
        parts = hx if isinstance(hx, tuple | list) else (hx,)
        by_layer = zip(*(part.chunk(len(self.layers)) for part in parts), strict=True)
        return [one if self.parts > 1 else one[0] for one in by_layer]

    def _one(self, x: Any, layer: nn.Module, padding: dict[str, Any], hx: Any) -> tuple[Any, list[Any]]:
        output, state = layer(x, **padding) if hx is None else layer(x, hx, **padding)
        return output, [list(part.unbind(0)) for part in (state if isinstance(state, tuple) else (state,))]

    def _both(self, x: Any, pair: nn.ModuleList, padding: dict[str, Any], hx: Any) -> tuple[Any, list[Any]]:
        """Forward as it is; the reverse direction reads the input backwards and its output is turned again."""
        outputs, found = [], []
        for reverse, layer in enumerate(pair):
            if isinstance(layer, nn.Identity):  # no unit is left
                found.append([[_no_units(x, batch_first=self.batch_first)]] * self.parts)
                continue
            source, turned = (self._turn(x, padding)) if reverse else (x, padding)
            output, states = self._one(source, layer, turned, _direction_of(hx, reverse))
            outputs.append(self._turn(output, padding)[0] if reverse else output)
            found.append(states)
        data = (
            torch.cat([_data(output) for output in outputs], dim=-1)
            if len(outputs) > 1
            else _data(outputs[0])
        )
        joined = [[first[0], second[0]] for first, second in zip(*found, strict=False)]
        return _replaced(outputs[0], data), joined

    def _turn(self, x: Any, padding: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Every sequence backwards. Padding comes first then, and is named by a mask."""
        if isinstance(x, PackedSequence):
            return PackedSequence(
                x.data.index_select(0, reversed_rows(x.batch_sizes, x.data.device)), *x[1:]
            ), {}
        time = 1 if self.batch_first and x.dim() == 3 else 0
        mask = padding.get("padding_mask")
        if "lengths" in padding:
            steps = torch.arange(x.shape[time], device=x.device)
            mask = steps >= padding["lengths"].to(x.device)[:, None]
        return x.flip(time), {} if mask is None else {"padding_mask": mask.flip(1)}


def reversed_rows(batch_sizes: Tensor, device: torch.device) -> Tensor:
    """(N,) row of packed data that holds the same sequence's step counted from its end; its own inverse."""
    T, B = len(batch_sizes), int(batch_sizes[0])
    starts = torch.cumsum(batch_sizes, 0) - batch_sizes  # (T,)
    lengths = (batch_sizes[:, None] > torch.arange(B)).sum(0)  # (B,)
    valid = batch_sizes[:, None] > torch.arange(B)  # (T, B)
    mirrored = (lengths - 1 - torch.arange(T)[:, None]).clamp(min=0)
    return (starts[mirrored] + torch.arange(B))[valid].to(device)


def _direction_of(hx: Any, place: int) -> Any:
    """The first state of one of two directions."""
    if hx is None:
        return None
    return tuple(part[place : place + 1] for part in hx) if isinstance(hx, tuple) else hx[place : place + 1]


def _data(x: Any) -> Tensor:
    return x.data if isinstance(x, PackedSequence) else x


def _replaced(x: Any, data: Tensor) -> Any:
    return PackedSequence(data, *x[1:]) if isinstance(x, PackedSequence) else data


def _no_units(x: Any, *, batch_first: bool) -> Tensor:
    if isinstance(x, PackedSequence):
        return x.data.new_zeros(int(x.batch_sizes[0]), 0)
    if x.dim() == 2:
        return x.new_zeros(0)
    return x.new_zeros(x.shape[0 if batch_first else 1], 0)
