"""Multiplicative group variables: one learned factor a row or column of a weight, kept or dropped as one.

A factor z multiplies a whole row (a word of an embedding) or column (an input neuron) of a weight. Its posterior and
prior are those of a single weight (Chirkova, Lobacheva, Vetrov, EMNLP 2018, section 3.3), mean starting at 1.
"""

import torch
from torch import Tensor, nn

from karui.ops.variational_kl import log_alpha, variational_kl


class GroupVariable(nn.Module):
    """`size` independent factors with Gaussian posteriors; one sample a mini-batch, for all steps and sequences."""

    def __init__(self, size: int, *, log_sigma_init: float, threshold: float) -> None:
        super().__init__()
        self.size, self.threshold = size, threshold
        self.mean = nn.Parameter(torch.ones(size))
        self.log_sigma2 = nn.Parameter(torch.full((size,), 2.0 * log_sigma_init))

    def sample(self, index: Tensor | None = None, *, shape: tuple[int, ...] = ()) -> Tensor:
        """Factors of all members, or of `index` only: the others' noise is independent, so it need not be drawn.

        shape: leading dimensions of independent samples, for local reparametrisation.
        """
        mean, log_sigma2 = self.mean, self.log_sigma2
        if index is not None:
            mean, log_sigma2 = mean[index], log_sigma2[index]
        noise = torch.randn(*shape, *mean.shape, dtype=mean.dtype, device=mean.device)
        return mean + torch.exp(0.5 * log_sigma2) * noise

    def penalty(self) -> Tensor:
        """KL in nats, summed."""
        return variational_kl(self.mean, self.log_sigma2)

    def keep_mask(self) -> Tensor:
        """(size,) boolean, True = kept."""
        return log_alpha(self.mean, self.log_sigma2) < self.threshold

    def deployed(self) -> Tensor:
        """(size,) factors at test time: the mean where kept, else 0."""
        return torch.where(self.keep_mask(), self.mean, torch.zeros_like(self.mean))
