"""Scan of the Simple Recurrent Unit, version 2: the only sequential part of the layer. Derivation in README.md."""

import torch
from torch import Tensor

from karui.ops.simple_recurrence import reference

IMPLEMENTATIONS = ("reference", "cpp")
ALL_BLOCKS = 4


def simple_recurrence(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor,
    bias: Tensor,
    *,
    c_0: Tensor,
    lengths: Tensor | None = None,
    dropout_mask: Tensor | None = None,
    activation: str = "identity",
    scale: float = 1.0,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the elementwise recurrence over all time steps (Lei et al., EMNLP 2018, equations 1 to 4).

    u (T, B, D, G, H): projected input, blocks candidate, forget, reset and, when G = 4, the projected skip.
    x (T, B, D*H) or None: skip input when G = 3, multiplied by `scale`; None means no skip term.
    weight_c, bias (D, 2, H): v and b of the forget and reset gates. c_0 (D, B, H): first state.
    lengths (B,) int64: later steps are padding: h is 0 there and the state passes through unchanged.
    dropout_mask (B, D*H): multiplier on the transform branch, already divided by the keep rate.
    implementation: "reference", "cpp" or None for the fastest one that this device and dtype have.

    Returns h (T, B, D*H) and c_n (D, B, H). Raises ValueError on shapes that do not fit or an unknown implementation.
    """
    _check(u, x, weight_c, bias, c_0)
    if activation not in ("identity", "tanh"):
        raise ValueError(f"activation must be 'identity' or 'tanh', got {activation!r}")
    if implementation not in (None, *IMPLEMENTATIONS):
        raise ValueError(f"implementation must be None or one of {IMPLEMENTATIONS}, got {implementation!r}")
    compiled = u.device.type == "cpu" and u.dtype in (torch.float32, torch.float64)
    if implementation == "cpp" and not compiled:
        raise ValueError(
            f"implementation 'cpp' needs a float32 or float64 CPU tensor, got {u.dtype} on {u.device}"
        )
    if implementation is None:
        implementation = "cpp" if compiled else "reference"
    if implementation == "cpp":
        from karui.ops.simple_recurrence import cpu

        run = cpu.simple_recurrence
    else:
        run = reference.simple_recurrence
    tanh = activation == "tanh"
    return run(
        u, x, weight_c, bias, c_0=c_0, lengths=lengths, dropout_mask=dropout_mask, tanh=tanh, scale=scale
    )


def _check(u: Tensor, x: Tensor | None, weight_c: Tensor, bias: Tensor, c_0: Tensor) -> None:
    if u.dim() != 5 or u.shape[3] not in (3, ALL_BLOCKS) or u.shape[2] not in (1, 2):
        raise ValueError(f"u must be (T, B, D in 1..2, G in 3..4, H), got {tuple(u.shape)}")
    T, B, D, G, H = u.shape
    expected = {"weight_c": (weight_c, (D, 2, H)), "bias": (bias, (D, 2, H)), "c_0": (c_0, (D, B, H))}
    if x is not None:
        if G == ALL_BLOCKS:
            raise ValueError("x must be None when u has a projected skip block")
        expected["x"] = (x, (T, B, D * H))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} to go with u {tuple(u.shape)}, got {tuple(tensor.shape)}"
            )
        if tensor.dtype != u.dtype:
            raise ValueError(f"{name} must have the dtype of u, {u.dtype}, got {tensor.dtype}")
