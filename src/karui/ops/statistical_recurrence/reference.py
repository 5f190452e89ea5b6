"""The Statistical Recurrent Unit's walk over time in plain torch, linear in time, differentiable twice.

Oliva, Póczos, Schneider, "The Statistical Recurrent Unit", ICML 2017 (arXiv 1703.00381), equations 7 to 9.

T time, B batch, P statistics, R recurrent statistics, A scales; mu is scale-major, (B, A*P).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "elu": F.elu, "tanh": torch.tanh}


def statistical_recurrence(
    projected: Tensor,
    weight_r: Tensor | None,
    bias_r: Tensor | None,
    weight_phi: Tensor | None,
    *,
    alphas: Tensor,
    mu_0: Tensor,
    padding_mask: Tensor | None,
    activation: str,
    last_only: bool,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.statistical_recurrence`; with last_only, mu (1, B, A*P) is the last state."""
    T, B, P = projected.shape
    f, mu, steps = ACTIVATIONS[activation], mu_0, []
    alpha = alphas.to(projected.dtype)[:, None]  # (A, 1) against (B, A, P)
    if padding_mask is not None:  # NaN in the padding would otherwise reach the gradients as 0 * NaN
        projected = projected.masked_fill(padding_mask[..., None], 0.0)
    for t in range(T):
        phi = projected[t]
        if weight_r is not None and weight_phi is not None:
            r = f(F.linear(mu, weight_r, bias_r))  # (7) reads the averages before this step
            phi = phi + F.linear(r, weight_phi)
        phi = f(phi)  # (8)
        new = alpha * mu.view(B, len(alphas), P) + (1 - alpha) * phi[:, None]  # (9), all scales at once
        new = new.view(mu_0.shape)
        mu = new if padding_mask is None else torch.where(padding_mask[t, :, None], mu, new)
        steps.append(mu)
    if last_only:
        return mu[None], mu
    return (torch.stack(steps) if steps else mu_0.new_empty(0, *mu_0.shape)), mu
