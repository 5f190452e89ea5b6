"""The Simple Recurrent Unit's scan in plain torch, linear in time, differentiable twice.

Version 2, where both gates read the old state: Lei et al., "Simple Recurrent Units for Highly Parallelizable
Recurrence", EMNLP 2018, equations 1 to 4. Version 1, where they do not: arXiv 1709.02755v1 (2017), equations 3 to 7.

T time, B batch, D directions, G gate blocks (candidate, forget, reset[, skip]), H hidden size.
"""

import torch
from torch import Tensor

ACTIVATIONS = {"identity": lambda c: c, "tanh": torch.tanh, "relu": torch.relu}


def one_direction(
    u: Tensor,
    skip: Tensor,
    v: Tensor | None,
    b: Tensor,
    c: Tensor,
    *,
    padding: Tensor,
    mask: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """Walk time once: u (T, B, G, H), skip (T, B, H), v, b (2, H), c, mask (B, H), padding (T, B, 1); v None is v1."""
    outputs, g = [], ACTIVATIONS[activation]
    for u_t, x_t, pad_t in zip(u.unbind(0), skip.unbind(0), padding.unbind(0), strict=True):
        read_f, read_r = (0.0, 0.0) if v is None else (v[0] * c, v[1] * c)  # the old c, not the new one
        f = torch.sigmoid(u_t[:, 1] + read_f + b[0])  # (1)
        r = torch.sigmoid(u_t[:, 2] + read_r + b[1])  # (3)
        new = (c - u_t[:, 0]) * f + u_t[:, 0]  # (2) f c + (1 - f) u
        if v is None:
            h = (mask * g(new) - x_t) * r + x_t  # v1: a dropped unit still has its reset gate
        else:
            h = (g(new) - x_t) * mask * r + x_t  # (4) r g(c) + (1 - r) x; a dropped unit passes x through
        outputs.append(torch.where(pad_t, torch.zeros_like(h), h))
        c = torch.where(pad_t, c, new)
    return (torch.stack(outputs) if outputs else skip), c


def simple_recurrence(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    *,
    c_0: Tensor,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    variant: str,
    activation: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.simple_recurrence`; returns h (T, B, D*H) and c_n (D, B, H)."""
    T, B, D, G, H = u.shape
    mask = u.new_ones(B, D * H) if dropout_mask is None else dropout_mask
    if G == 4:
        skip = u[:, :, :, 3]
    else:
        skip = u.new_zeros(T, B, D, H) if x is None else scale * x.reshape(T, B, D, H)
    if padding_mask is None:
        padding = torch.zeros(T, B, 1, dtype=torch.bool, device=u.device)
    else:
        padding = padding_mask[..., None]
        u = u.masked_fill(padding[..., None, None], 0.0)  # NaN in padding would pass through zero gradients
        skip = skip.masked_fill(padding[..., None], 0.0)
    outputs, states = [], []
    for d in range(D):
        u_d, skip_d, padding_d = u[:, :, d], skip[:, :, d], padding
        if d == 1:  # the reverse direction walks the same times backwards
            u_d, skip_d, padding_d = u_d.flip(0), skip_d.flip(0), padding_d.flip(0)
        v = None if weight_c is None or variant == "v1" else weight_c[d]
        m = mask.view(B, D, H)[:, d]
        h, c = one_direction(
            u_d, skip_d, v, bias[d], c_0[d], padding=padding_d, mask=m, activation=activation
        )
        outputs.append(h.flip(0) if d == 1 else h)
        states.append(c)
    return torch.cat(outputs, dim=-1), torch.stack(states)
