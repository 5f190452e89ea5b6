"""Losses over a target and its noise words with their gradients in closed form: few passes over N x K numbers.

N positions, K noise words.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _masses(
    of_noise: Tensor, log_noise: Tensor, hits: Tensor | None, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    """exp(v - top) (N, K) of v = of_noise - log_noise, zero at hits, and top (N, 1), the largest v or target (N,)."""
    v = of_noise - log_noise
    if hits is not None:
        v.masked_fill_(hits, torch.finfo(v.dtype).min)
    top = v.amax(1, keepdim=True)
    if target is not None:
        top = torch.maximum(top, target.unsqueeze(1))
    return v.sub_(top).exp_(), top  # a hit is 0 beside the target, which is larger than the least number


class _Ranking(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, target: Tensor, of_noise: Tensor, log_noise: Tensor, hits: Tensor | None, inside: bool
    ) -> Tensor:
        mass, top = _masses(of_noise, log_noise, hits, target if inside else None)
        total = mass.sum(1)
        own = (target - top.squeeze(1)).exp() if inside else torch.zeros_like(total)
        total += own
        ctx.save_for_backward(mass, total, own)
        return total.log() + (top.squeeze(1) - target)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        mass, total, own = ctx.saved_tensors
        share = grads[0] / total
        return own * share - grads[0], mass * share.unsqueeze(1), None, None, None


def ranking_losses(
    target: Tensor, of_noise: Tensor, log_noise: Tensor, hits: Tensor | None, *, inside: bool = True
) -> Tensor:
    """-target + log(e^target + sum_j e^{of_noise_j - log_noise_j}) for each position: (N,).

    target (N,), of_noise (N, K), log_noise (1 or N, K) which gets no gradient, hits (N, K) bool: words left out.
    inside: whether the target stands in the sum. Gradients: softmax over the words of the sum, minus the target.
    Raises ValueError for hits without the target inside: nothing might be left.
    """
    if hits is not None and not inside:
        raise ValueError("hits are left out of sums that hold the target only: else nothing may be left")
    result: Any = _Ranking.apply(target, of_noise, log_noise, hits, inside)
    return result


class _Discriminating(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, target: Tensor, of_noise: Tensor, log_noise: Tensor, hits: Tensor | None) -> Tensor:
        pt_noise, top = _masses(of_noise, log_noise, hits, target)
        own = (target - top.squeeze(1)).exp()
        total = pt_noise.sum(1) + own
        pt_noise /= total.unsqueeze(1)
        # Kept off 0: one noise word that takes all the mass would make the loss infinite.
        rest = (1 - pt_noise).clamp_min_(torch.finfo(pt_noise.dtype).eps)
        losses = total.log() + (top.squeeze(1) - target) - rest.log().sum(1)
        inverse = rest.reciprocal_()
        # 1 + n - A: a hit has pt = 0 and so adds 1 to n and to A.
        common = 1 + pt_noise.shape[1] - inverse.sum(1)
        ctx.save_for_backward(own / total * common - 1, inverse.add_(common.unsqueeze(1)).mul_(pt_noise))
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        d_target, d_noise = ctx.saved_tensors
        return d_target * grads[0], d_noise * grads[0].unsqueeze(1), None, None


def discriminating_losses(target: Tensor, of_noise: Tensor, log_noise: Tensor, hits: Tensor | None) -> Tensor:
    """-log pt_t - sum_j log(1 - pt_j), pt the softmax over target and of_noise - log_noise: (N,).

    Arguments: see ranking_losses. Gradients, with n noise words and A = sum_j 1 / (1 - pt_j): pt_t (1 + n - A) - 1 for
    the target and pt_l (1 + n - A + 1 / (1 - pt_l)) for a noise word.
    """
    result: Any = _Discriminating.apply(target, of_noise, log_noise, hits)
    return result
