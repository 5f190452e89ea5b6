"""The first-order linear recurrence in plain torch, linear in time, differentiable twice.

c_t = f_t c_{t-1} + b_t: equation 1 of Martin and Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence
Length", ICLR 2018. T time, B batch, D directions, H hidden size.
"""

import torch
from torch import Tensor


def linear_recurrence(
    f: Tensor, b: Tensor, *, c_0: Tensor, padding_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.linear_recurrence`; returns c (T, B, D, H) and c_n (D, B, H)."""
    if padding_mask is not None:  # 1 c + 0: the state passes through, whatever stood there
        f = f.masked_fill(padding_mask[..., None, None], 1.0)
        b = b.masked_fill(padding_mask[..., None, None], 0.0)
    directions, states = [], []
    for d in range(f.shape[2]):
        steps = list(zip(f[:, :, d].unbind(0), b[:, :, d].unbind(0), strict=True))
        c, outputs = c_0[d], []
        for f_t, b_t in reversed(steps) if d == 1 else steps:
            c = f_t * c + b_t
            outputs.append(c)
        if d == 1:  # walked time backwards
            outputs.reverse()
        directions.append(torch.stack(outputs) if outputs else b[:, :, d])
        states.append(c)
    return torch.stack(directions, dim=2), torch.stack(states)
