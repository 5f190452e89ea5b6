"""The Simple Recurrent Unit's scan in plain torch, linear in time, differentiable twice.

Lei et al., "Simple Recurrent Units for Highly Parallelizable Recurrence", EMNLP 2018, equations 1 to 4 (version 2: both
gates read the old state).

T time, B batch, D directions, G gate blocks (candidate, forget, reset[, skip]), H hidden size.
"""

import torch
from torch import Tensor


def one_direction(
    u: Tensor, skip: Tensor, v: Tensor, b: Tensor, c: Tensor, padding: Tensor, *, tanh: bool, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Walk time once: u (T, B, G, H), skip (T, B, H), v and b (2, H), c (B, H), padding (T, B, 1), mask (B, H)."""
    outputs = []
    for u_t, x_t, pad_t in zip(u.unbind(0), skip.unbind(0), padding.unbind(0), strict=True):
        f = torch.sigmoid(u_t[:, 1] + v[0] * c + b[0])  # (1)
        r = torch.sigmoid(u_t[:, 2] + v[1] * c + b[1])  # (3) reads the old c, not the new one
        new = (c - u_t[:, 0]) * f + u_t[:, 0]  # (2) f c + (1 - f) u
        g = torch.tanh(new) if tanh else new
        h = (g - x_t) * mask * r + x_t  # (4) r g(c) + (1 - r) x
        outputs.append(torch.where(pad_t, torch.zeros_like(h), h))
        c = torch.where(pad_t, c, new)
    return (torch.stack(outputs) if outputs else u[:, :, 0]), c


def simple_recurrence(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor,
    bias: Tensor,
    *,
    c_0: Tensor,
    lengths: Tensor | None,
    dropout_mask: Tensor | None,
    tanh: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.simple_recurrence`; returns h (T, B, D*H) and c_n (D, B, H)."""
    T, B, D, G, H = u.shape
    steps = torch.arange(T, device=u.device)[:, None]
    padding = (steps >= lengths if lengths is not None else torch.zeros_like(steps).expand(T, B) > 0)[
        ..., None
    ]
    mask = u.new_ones(B, D * H) if dropout_mask is None else dropout_mask
    if G == 4:
        skip = u[:, :, :, 3]
    else:
        skip = u.new_zeros(T, B, D, H) if x is None else scale * x.view(T, B, D, H)
    outputs, states = [], []
    for d in range(D):
        order = [u[:, :, d], skip[:, :, d], padding]
        if d == 1:  # the reverse direction walks the same times backwards
            order = [part.flip(0) for part in order]
        h, c = one_direction(
            *order[:2], weight_c[d], bias[d], c_0[d], order[2], tanh=tanh, mask=mask.view(B, D, H)[:, d]
        )
        outputs.append(h.flip(0) if d == 1 else h)
        states.append(c)
    return torch.cat(outputs, dim=-1), torch.stack(states)
