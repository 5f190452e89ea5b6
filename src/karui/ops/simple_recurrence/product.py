"""The large matrix product of a layer on a CPU: oneDNN where torch was built with it and it pays, else torch's own."""

import functools
from typing import Any

import torch
from torch import Tensor

FEWEST_ROWS = 256  # below, oneDNN's setup a call costs more than its kernels save
SMALLEST_WEIGHT = 1 << 14


@functools.cache
def _onednn_linear() -> Any:
    """Rows (N, I) times weight (O, I)': the operator that `torch.compile` lowers a linear layer to, or None."""
    try:
        return torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001  it has no public name
    except (AttributeError, RuntimeError):
        return None


def pays_onednn(rows: int, weight: Tensor) -> bool:
    """Tell whether oneDNN may and should multiply this many rows with a weight; 1.15 times as fast on AMD's Zen 4."""
    return (
        rows >= FEWEST_ROWS
        and weight.numel() >= SMALLEST_WEIGHT
        and weight.dtype == torch.float32
        and bool(torch.backends.mkldnn.enabled)
        and torch.backends.mkldnn.is_available()
        and _onednn_linear() is not None
    )


def onednn_linear(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows (N, I) and weight (O, I) of any strides to fresh (N, O); only where `pays_onednn`."""
    return _onednn_linear()(rows, weight, None, "none", [], "")
