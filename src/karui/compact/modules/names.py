"""The calls that compaction knows, by one name each."""

import operator
from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import rnn

from karui.compact.modules.moves import MOVES

ELEMENTWISE = frozenset(
    {
        "relu", "relu6", "tanh", "sigmoid", "gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "softplus",
        "hardtanh", "hardsigmoid", "hardswish", "softsign", "logsigmoid", "tanhshrink", "clamp", "abs", "neg", "exp",
        "sqrt", "square", "log1p", "float", "double", "to", "contiguous", "clone", "detach", "dropout", "dropout1d",
        "dropout2d", "alpha_dropout",
    }
)  # fmt: skip
BINARY = frozenset(
    {
        "add",
        "sub",
        "mul",
        "truediv",
        "div",
        "maximum",
        "minimum",
        "pow",
        "masked_fill",
        "where",
        "true_divide",
    }
    | {"iadd", "isub", "imul", "itruediv"}
)
REDUCING = frozenset({"mean", "sum", "amax", "amin", "max", "min"})
POOLING = frozenset(
    {f"{prefix}{kind}_pool{d}d" for prefix in ("", "adaptive_") for kind in ("max", "avg") for d in (1, 2)}
)
HARMLESS = frozenset({"dim", "get_device", "is_floating_point"})
MODULES_ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU,
    nn.Softplus, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout,
)  # fmt: skip
MODULES_POOLING = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_ALL = ELEMENTWISE | BINARY | REDUCING | POOLING | MOVES
NAMES: dict[Callable, str] = {
    function: name
    for name in sorted(_ALL)
    for space in (torch, F, operator)
    for written in (name, f"{name}_")
    if callable(function := getattr(space, written, None))
} | {getattr: "getattr", rnn.pack_padded_sequence: "pack", rnn.pad_packed_sequence: "pad"}


def name_of(node: fx.Node) -> str:
    """What a call is known by here, without the underscore of calls in place; "" for one that is not known."""
    if node.op == "call_method":
        return str(node.target).rstrip("_")
    return NAMES.get(node.target, "") if callable(node.target) else ""


def in_place(node: fx.Node) -> bool:
    """Tell whether a call may write into its first argument."""
    if node.op == "call_method":
        return str(node.target).endswith("_")
    name = getattr(node.target, "__name__", "")
    return (
        bool(node.kwargs.get("inplace")) or name.endswith("_") or name in {"iadd", "isub", "imul", "itruediv"}
    )
