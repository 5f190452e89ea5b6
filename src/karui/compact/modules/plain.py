"""Plain layers that torch has no class for, and the making of any layer from its sizes.

They hold parameters and buffers only: a state dict says all of their numbers, a small mapping (`spec`) their sizes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from karui.errors import UserError

_TORCH = {
    "Linear": nn.Linear, "Conv1d": nn.Conv1d, "Conv2d": nn.Conv2d, "BatchNorm1d": nn.BatchNorm1d,
    "BatchNorm2d": nn.BatchNorm2d, "Embedding": nn.Embedding,
}  # fmt: skip
MAX_SIZE = 1 << 31


class SelectInput(nn.Module):
    """`layer` on some of the features of its input: `index` (k,) along `axis`; of a PackedSequence along its last."""

    index: Tensor

    def __init__(self, layer: nn.Module, index: Tensor, *, axis: int = -1) -> None:
        super().__init__()
        self.layer, self.axis = layer, axis
        self.register_buffer("index", index)

    def forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: A002  torch's name
        """As the layer, whose input is one with more features."""
        if isinstance(input, PackedSequence):
            data = input.data.index_select(-1, self.index)
            return self.layer(PackedSequence(data, *input[1:]), *args, **kwargs)
        return self.layer(input.index_select(self.axis, self.index), *args, **kwargs)


class SharedRows(nn.Module):
    """An embedding of `num_embeddings` ids over fewer rows: `index` (V,) int32 gives the row of each id."""

    index: Tensor

    def __init__(self, num_embeddings: int, rows: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = nn.Parameter(torch.zeros(rows, embedding_dim))
        self.register_buffer("index", torch.zeros(num_embeddings, dtype=torch.int32))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """ids of any shape (...) to (..., embedding_dim)."""
        return nn.functional.embedding(
            nn.functional.embedding(input, self.index[:, None])[..., 0], self.weight
        )

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.num_embeddings} over {len(self.weight)}, {self.embedding_dim}"


class UnevenRecurrence(nn.Module):
    """Stacked recurrent layers of any sizes, each layer and each direction of its own; torch's call without `hx`.

    layers: for each layer one module for all its directions, or a list of two (forward, reverse) of one direction each,
    None where a direction has no units. All take time first, or all batch first.

    forward(input, hx=None, *, lengths=None, padding_mask=None) -> (output, state)
      input (T, B, I), (B, T, I) with batch_first, (T, I), or a PackedSequence; lengths and padding_mask as the layers
      take them (karui's; torch's do not). state: h_n, or (h_n, c_n), each a tuple of one tensor (B, H) a layer and
      direction, because their sizes differ. Raises ValueError for a first state.
    """

    def __init__(
        self,
        layers: list[nn.Module | list[nn.Module | None]],
        *,
        batch_first: bool,
        dropout: float,
        parts: int,
    ) -> None:
        super().__init__()
        self.batch_first, self.dropout, self.parts = batch_first, dropout, parts
        self.layers = nn.ModuleList()
        self.pairs: list[bool] = []
        for layer in layers:
            self.pairs.append(isinstance(layer, list))
            both = layer if isinstance(layer, list) else [layer]
            self.layers.append(nn.ModuleList([nn.Identity() if part is None else part for part in both]))

    def forward(self, input: Any, hx: Any = None, **padding: Any) -> tuple[Any, Any]:  # noqa: A002  torch's name
        """Run all layers; see the class."""
        if hx is not None:
            raise ValueError("layers of different sizes start from zeros: hx must be None")
        padding = {name: value for name, value in padding.items() if value is not None}
        states: list[list[Any]] = [[] for _ in range(self.parts)]
        x = input
        for place, (layer, pair) in enumerate(zip(self.layers, self.pairs, strict=True)):
            x, found = self._both(x, layer, padding) if pair else self._one(x, layer[0], padding)  # type: ignore[index, arg-type]
            for kind, state in zip(states, found, strict=False):
                kind.extend(state)
            if self.dropout and self.training and place + 1 < len(self.layers):
                x = _replaced(x, nn.functional.dropout(_data(x), self.dropout))
        whole = tuple(tuple(kind) for kind in states)
        return x, whole[0] if self.parts == 1 else whole

    def _one(self, x: Any, layer: nn.Module, padding: dict[str, Any]) -> tuple[Any, list[Any]]:
        output, state = layer(x, **padding)
        return output, [list(part.unbind(0)) for part in (state if isinstance(state, tuple) else (state,))]

    def _both(self, x: Any, pair: nn.ModuleList, padding: dict[str, Any]) -> tuple[Any, list[Any]]:
        """Forward as it is; the reverse direction reads the input backwards and its output is turned again."""
        outputs, found = [], []
        for reverse, layer in enumerate(pair):
            if isinstance(layer, nn.Identity):  # no unit is left
                found.append([[_no_units(x, batch_first=self.batch_first)]] * self.parts)
                continue
            source, turned = (self._turn(x, padding)) if reverse else (x, padding)
            output, states = self._one(source, layer, turned)
            outputs.append(_data(self._turn(output, padding)[0] if reverse else output))
            found.append(states)
        data = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
        joined = [[first[0], second[0]] for first, second in zip(*found, strict=False)]
        return _replaced(x, data), joined

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


def make(spec: Mapping[str, Any]) -> nn.Module:
    """A layer from its sizes; its numbers are those of a fresh layer.

    Raises UserError where the sizes do not make a layer: a file of somebody else's may hold anything.
    """
    try:
        return _make(spec)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"no layer can be made from {dict(spec)!r}: {error}") from error


def _make(spec: Mapping[str, Any]) -> nn.Module:
    kind = spec["kind"]
    _check_sizes(spec)
    if kind in {"Linear", "Conv1d", "Conv2d"}:
        args: dict[str, Any] = {}
        if kind != "Linear":
            args = {
                n: _option(spec[n]) for n in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
            }
            args["groups"] = spec.get("groups", 1)
        layer = _TORCH[kind](spec["columns"], spec["rows"], bias=spec["bias"], **args)
    elif kind in {"BatchNorm1d", "BatchNorm2d"}:
        options = {name: spec[name] for name in ("eps", "momentum", "affine")}
        return _TORCH[kind](spec["rows"], **options)
    elif kind == "Embedding":
        return nn.Embedding(spec["rows"], spec["columns"], padding_idx=spec.get("padding_idx"))
    elif kind == "SharedRows":
        return SharedRows(spec["rows"], spec["kept"] + 1, spec["columns"])
    elif kind == "uneven":
        stack = [
            [None if part is None else _make(part) for part in layer]
            if isinstance(layer, list)
            else _make(layer)
            for layer in spec["layers"]
        ]
        layer = UnevenRecurrence(
            stack, batch_first=spec["batch_first"], dropout=spec["dropout"], parts=spec["parts"]
        )
    else:
        layer = _make_recurrent(spec)
    if "select" in spec:
        return SelectInput(layer, torch.zeros(spec["select"], dtype=torch.int64), axis=spec.get("axis", -1))
    return layer


def _make_recurrent(spec: Mapping[str, Any]) -> nn.Module:
    kind, options = spec["kind"], dict(spec["options"])
    if kind in {"LSTM", "GRU"}:
        return getattr(nn, kind)(spec["columns"], spec["rows"], **options)
    room, _, name = str(kind).partition(":")
    if room != "karui":
        raise ValueError(f"kind {kind!r} is not known")
    from karui.nn.registry import recurrent_class

    return recurrent_class(name)(spec["columns"], spec["rows"], **options)


def _option(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_sizes(spec: Mapping[str, Any]) -> None:
    for name in ("rows", "columns", "kept", "select", "groups"):
        size = spec.get(name, 1)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < MAX_SIZE:
            raise ValueError(f"{name} must be a size, got {size!r}")
