"""Recurrent layers by the names that settings and the command line use; modules are imported when they are built."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

# "statistical-ru" is the Statistical Recurrent Unit; "sru" always means the Simple Recurrent Unit.
_HOMES = {
    "sru": ("karui.nn.sru", "SRU"),
    "statistical-ru": ("karui.nn.statistical", "StatisticalRecurrentUnit"),
    "lstm": ("karui.nn.lstm", "LSTM"),
    "gru": ("karui.nn.gru", "GRU"),
    "qrnn": ("karui.nn.qrnn", "QRNN"),
    "mingru": ("karui.nn.min_gru", "MinGRU"),
}
RECURRENT = tuple(_HOMES)
_FIXED = frozenset({"self", "input_size", "hidden_size", "num_layers", "bidirectional", "dropout"})


def recurrent_class(name: str) -> type[nn.Module]:
    """The class of a name in `RECURRENT`; raises ValueError for any other."""
    if name not in _HOMES:
        raise ValueError(f"recurrent must be one of {RECURRENT}, got {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def build_recurrent(
    name: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a recurrent layer with `torch.nn.LSTM`'s call: forward(input (T, B, I), hx) -> (output, state).

    name: one of `RECURRENT`. dropout: between stacked layers; with one layer it has nothing to act on.
    options: further keyword arguments of the layer's constructor. Raises ValueError for an unknown name or option.
    """
    cls, options = recurrent_class(name), dict(options or {})
    known = {
        parameter
        for base in cls.__mro__
        if "__init__" in vars(base) and base is not nn.Module
        for parameter, value in inspect.signature(base.__init__).parameters.items()
        if value.kind in (value.POSITIONAL_OR_KEYWORD, value.KEYWORD_ONLY)
    } - _FIXED
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(sorted(known))}")
    return cls(
        input_size,
        hidden_size,
        num_layers,
        bidirectional=bidirectional,
        dropout=dropout if num_layers > 1 else 0.0,
        **options,
    )
