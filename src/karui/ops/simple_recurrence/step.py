"""One step of a layer for a few sequences, without gradients: the product of all gates and the scan in one call.

B batch, I features of the product, G gate blocks, H hidden size.
"""

import torch
from torch import Tensor

from karui import _native
from karui.ops.choice import is_traced
from karui.ops.eager import addresses
from karui.ops.simple_recurrence.cpu import ACTIVATIONS

MAX_BATCH = 4  # above, a matrix product that shares each weight among all sequences catches up


def can_step(x: Tensor, implementation: str | None) -> bool:
    """Tell whether `simple_recurrence_step` takes this input (B, I), for whatever weights."""
    return (
        not is_traced(x)
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and len(x) <= MAX_BATCH
        and implementation in (None, "cpp")
        and not torch.is_autocast_enabled("cpu")
    )


def simple_recurrence_step(
    x: Tensor,
    skip: Tensor | None,
    weight_ih: Tensor,
    weight_c: Tensor | None,
    bias: Tensor,
    *,
    c_0: Tensor,
    activation: str = "identity",
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`simple_recurrence` of one step and one direction with u = weight_ih x; takes no gradient.

    x (B, I); weight_ih (G*H, I), blocks candidate, forget, reset and, when G = 4, skip; skip (B, H) or None as x of
    `simple_recurrence`; weight_c (2H), None is version 1; bias (2H); c_0 (B, H). All float32 or all float64, on the
    CPU (`can_step`). The number of threads changes no bit. Returns h (B, H) and c (B, H); raises ValueError on
    shapes and dtypes that do not fit.
    """
    (B, I), (_, H) = x.shape, c_0.shape  # noqa: E741
    blocks = len(weight_ih) // H
    expected = (
        ("c_0", c_0, (B, H)),
        ("weight_ih", weight_ih, (blocks * H, I)),
        ("skip", skip, (B, H)),
        ("weight_c", weight_c, (2 * H,)),
        ("bias", bias, (2 * H,)),
    )
    for name, tensor, shape in expected:
        if tensor is None:
            continue
        if tensor.shape != shape or tensor.dtype != x.dtype or tensor.device != x.device:
            raise ValueError(
                f"{name} must have shape {shape}, {x.dtype} and {x.device}, got {tuple(tensor.shape)}, "
                f"{tensor.dtype} and {tensor.device}"
            )
    dense = [None if t is None else t.contiguous() for t in (x, weight_ih, skip, weight_c, bias, c_0)]
    h, c = x.new_empty(B, H), x.new_empty(B, H)
    word, threads = ACTIVATIONS.index(activation), torch.get_num_threads()
    _native.scan_step(
        B, I, blocks, H, word, scale, threads, x.dtype == torch.float64, addresses(*dense, h, c)
    )
    return h, c
