"""Plain layers that torch has no class for, and the making of any layer from its sizes.

They hold parameters and buffers only: a state dict says all of their numbers, a small mapping (`spec`) their sizes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from karui.compact.modules.trimmed import TRIMMED
from karui.compact.modules.uneven import UnevenRecurrence
from karui.errors import UserError
from karui.nn import SRUpp
from karui.nn.registry import recurrent_class

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
        options = {name: spec[name] for name in ("batch_first", "dropout", "parts", "joined")}
        layer = UnevenRecurrence(stack, **options)
    else:
        layer = _make_recurrent(spec)
    if "select" in spec:
        return SelectInput(layer, torch.zeros(spec["select"], dtype=torch.int64), axis=spec.get("axis", -1))
    return layer


def _make_recurrent(spec: Mapping[str, Any]) -> nn.Module:
    kind, options = spec["kind"], dict(spec["options"])
    return _recurrent_class(str(kind))(spec["columns"], spec["rows"], **options)


def _recurrent_class(kind: str) -> type[nn.Module]:
    """Of torch ("LSTM", "GRU"), of karui ("karui:sru"), or with less than karui's have ("trimmed:sru")."""
    if kind in {"LSTM", "GRU"}:
        return getattr(nn, kind)
    room, _, name = kind.partition(":")
    if room == "karui" and name == "srupp":
        return SRUpp
    if room == "karui":
        return recurrent_class(name)
    if room == "trimmed" and name in TRIMMED:
        return TRIMMED[name]
    raise ValueError(f"kind {kind!r} is not known")


def _option(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_sizes(spec: Mapping[str, Any]) -> None:
    for name in ("rows", "columns", "kept", "select", "groups"):
        size = spec.get(name, 1)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < MAX_SIZE:
            raise ValueError(f"{name} must be a size, got {size!r}")
