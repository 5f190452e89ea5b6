"""Scan of the Simple Recurrent Unit: the only sequential part of the layer. Derivation in README.md."""

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.ops.choice import HALVES, choose_implementation
from karui.ops.simple_recurrence import fused, reference

IMPLEMENTATIONS = ("reference", "cpp", "triton")
VARIANTS = ("v1", "v2")
ALL_BLOCKS = 4


def simple_recurrence(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    *,
    c_0: Tensor,
    padding_mask: Tensor | None = None,
    lengths: Tensor | None = None,
    dropout_mask: Tensor | None = None,
    variant: str = "v2",
    activation: str = "identity",
    scale: float = 1.0,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the elementwise recurrence over all time steps (v2: Lei et al., EMNLP 2018, equations 1 to 4).

    u (T, B, D, G, H): projected input, blocks candidate, forget, reset and, when G = 4, the projected skip.
    x (T, B, D*H) or None: skip input when G = 3, multiplied by `scale`; None means no skip term.
    weight_c (D, 2, H): v of the forget and reset gates; None with v1. bias (D, 2, H): b of both. c_0 (D, B, H).
    padding_mask (T, B) bool, True = padding anywhere: h is 0 there, the state passes through unchanged, and what stands
    in u and x, even NaN, changes nothing. lengths (B,) int64 says the same of all later steps.
    dropout_mask (B, D*H): multiplier, already divided by the keep rate; takes no gradient.
    variant: "v2", gates read the old state and the mask covers the whole transform branch; "v1" (arXiv 1709.02755v1),
    gates do not read the state and the mask is on g(c) only. activation: g, "identity", "tanh" or "relu".
    16-bit inputs (bias, weight_c, x and c_0 may then be float32) are computed in float32 by every compiled kernel.
    implementation: "reference", "cpp", "triton" or None for the fastest one that this device and dtype have.

    Returns h (T, B, D*H) in the dtype of u and c_n (D, B, H) in that of c_0. Raises ValueError on shapes that do not
    fit, unknown words and a named implementation that cannot run.
    """
    _check(tuple(u.shape), u.dtype, x, weight_c, bias, c_0)
    _check_words(variant, activation, weight_c)
    if lengths is not None:
        if padding_mask is not None:
            raise ValueError("give lengths or padding_mask, not both")
        padding_mask = torch.arange(u.shape[0], device=u.device)[:, None] >= lengths
    T, B, D, _, H = u.shape
    _check_masks((T, B, D * H), padding_mask, dropout_mask)
    choice = choose_implementation(u, implementation, IMPLEMENTATIONS)
    if choice == "cpp":
        from karui.ops.simple_recurrence import cpu as chosen
    elif choice == "triton":
        from karui.ops.simple_recurrence import triton as chosen
    else:
        chosen = reference
    h, c_n = chosen.simple_recurrence(
        u,
        x,
        weight_c,
        bias,
        c_0=c_0,
        padding_mask=padding_mask,
        dropout_mask=dropout_mask,
        variant=variant,
        activation=activation,
        scale=scale,
    )
    return h.to(u.dtype), c_n.to(c_0.dtype)


def simple_recurrence_layer(
    x: Tensor,
    weight: Tensor,
    skip: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    *,
    c_0: Tensor | None = None,
    padding_mask: Tensor | None = None,
    dropout_mask: Tensor | None = None,
    variant: str = "v2",
    activation: str = "identity",
    scale: float = 1.0,
    implementation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `simple_recurrence(x weight', skip, ...)`: a layer with its product, which on a CPU run chunk by chunk.

    x (T, B, I), finite in the padding too, where the weight's gradient multiplies it by 0; weight (D*G*H, I), G = 3,
    or 4 with a projected skip; skip (T, B, D*H), often x itself, or None. weight_c and bias of one direction may be
    (2*H,) too. c_0 None stands for zeros. The other arguments, the result and what is raised stand in
    `simple_recurrence`.
    """
    if fused.can_run(x, weight, weight_c, bias, c_0, implementation) and fused.fits(
        x, weight, skip, weight_c, bias, c_0
    ):
        T, B, _ = x.shape
        _check_words(variant, activation, weight_c)
        _check_masks((T, B, bias.numel() // 2), padding_mask, dropout_mask)
        return fused.simple_recurrence_layer(
            x,
            weight,
            skip,
            weight_c,
            bias,
            c_0=c_0,
            padding_mask=padding_mask,
            dropout_mask=dropout_mask,
            activation=activation,
            scale=scale,
        )
    gates = bias if bias.dim() > 1 else bias.view(1, 2, -1)
    D, _, H = gates.shape if c_0 is None else c_0.shape
    shape = (*x.shape[:2], D, weight.shape[0] // max(1, D * H), H)
    if x.dim() != 3 or tuple(weight.shape) != (D * shape[3] * H, x.shape[2]):
        raise ValueError(
            f"x must be (T, B, I) and weight (D*G*H={D * shape[3] * H}, I), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    return simple_recurrence(
        F.linear(x, weight).view(shape),
        skip,
        weight_c if weight_c is None or weight_c.dim() > 1 else weight_c.view(1, 2, -1),
        gates,
        c_0=x.new_zeros(D, x.shape[1], H) if c_0 is None else c_0,
        padding_mask=padding_mask,
        dropout_mask=dropout_mask,
        variant=variant,
        activation=activation,
        scale=scale,
        implementation=implementation,
    )


def _check_masks(
    shape: tuple[int, int, int], padding_mask: Tensor | None, dropout_mask: Tensor | None
) -> None:
    """shape: T, B and D*H."""
    T, B, width = shape
    if dropout_mask is not None and tuple(dropout_mask.shape) != (B, width):
        raise ValueError(f"dropout_mask must have shape {(B, width)}, got {tuple(dropout_mask.shape)}")
    if padding_mask is not None and (padding_mask.dtype != torch.bool or tuple(padding_mask.shape) != (T, B)):
        raise ValueError(
            f"padding_mask must be bool of shape {(T, B)}, got {padding_mask.dtype} of {tuple(padding_mask.shape)}"
        )


def _check_words(variant: str, activation: str, weight_c: Tensor | None) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    if (weight_c is None) != (variant == "v1"):
        raise ValueError(
            f"weight_c must be None with variant 'v1' and a tensor with 'v2', got variant {variant!r}"
        )
    if activation not in reference.ACTIVATIONS:
        raise ValueError(f"activation must be one of {tuple(reference.ACTIVATIONS)}, got {activation!r}")


def _check(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    x: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    c_0: Tensor,
) -> None:
    if len(shape) != 5 or shape[3] not in (3, ALL_BLOCKS) or shape[2] not in (1, 2):
        raise ValueError(f"u must be (T, B, D in 1..2, G in 3..4, H), got {shape}")
    T, B, D, G, H = shape
    if x is not None and G == ALL_BLOCKS:
        raise ValueError("x must be None when u has a projected skip block")
    expected = {
        "weight_c": (weight_c, (D, 2, H)),
        "bias": (bias, (D, 2, H)),
        "c_0": (c_0, (D, B, H)),
        "x": (x, (T, B, D * H)),
    }
    for name, (tensor, wanted) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != wanted:
            raise ValueError(
                f"{name} must have shape {wanted} to go with u {shape}, got {tuple(tensor.shape)}"
            )
        if tensor.dtype != dtype and not (dtype in HALVES and tensor.dtype == torch.float32):
            raise ValueError(f"{name} must have the dtype of u, {dtype}, got {tensor.dtype}")
