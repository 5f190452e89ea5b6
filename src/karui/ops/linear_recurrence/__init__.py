"""First-order linear recurrence, the scan of QRNN, minGRU and every gate that does not read the state."""

import torch
from torch import Tensor

from karui.ops.choice import HALVES, choose_implementation
from karui.ops.linear_recurrence import reference

IMPLEMENTATIONS = ("reference", "cpp", "triton")


def linear_recurrence(
    f: Tensor,
    b: Tensor,
    *,
    c_0: Tensor,
    padding_mask: Tensor | None = None,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run c_t = f_t c_{t-1} + b_t over all time steps (Martin and Cundy, ICLR 2018, equation 1).

    f, b (T, B, D, H): factor and addend of each step. c_0 (D, B, H): first state. Direction 1 walks time backwards.
    padding_mask (T, B) bool, True = padding anywhere: the state passes through unchanged, and what stands in f and b,
    even NaN, changes nothing.
    16-bit inputs (c_0 may then be float32) are computed in float32 by every compiled kernel.
    implementation: "reference", "cpp", "triton" or None for the fastest one that this device and dtype have.

    Returns c (T, B, D, H), in padding the carried state, in the dtype of f, and c_n (D, B, H) in that of c_0. Raises
    ValueError on shapes and dtypes that do not fit and on a named implementation that cannot run.
    """
    if f.dim() != 4 or f.shape[2] not in (1, 2):
        raise ValueError(f"f must be (T, B, D in 1..2, H), got {tuple(f.shape)}")
    T, B, D, H = f.shape
    for name, tensor, shape in (("b", b, (T, B, D, H)), ("c_0", c_0, (D, B, H))):
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} to go with f {tuple(f.shape)}, got {tuple(tensor.shape)}"
            )
        if tensor.dtype != f.dtype and not (f.dtype in HALVES and tensor.dtype == torch.float32):
            raise ValueError(f"{name} must have the dtype of f, {f.dtype}, got {tensor.dtype}")
    if padding_mask is not None and (padding_mask.dtype != torch.bool or tuple(padding_mask.shape) != (T, B)):
        raise ValueError(
            f"padding_mask must be bool of shape {(T, B)}, got {padding_mask.dtype} of {tuple(padding_mask.shape)}"
        )
    choice = choose_implementation(f, implementation, IMPLEMENTATIONS)
    if choice == "cpp":
        from karui.ops.linear_recurrence import cpu as chosen
    elif choice == "triton":
        from karui.ops.linear_recurrence import triton as chosen
    else:
        chosen = reference
    c, c_n = chosen.linear_recurrence(f, b, c_0=c_0, padding_mask=padding_mask)
    return c.to(f.dtype), c_n.to(c_0.dtype)
