"""Negative sampling (Mikolov et al. 2013), read exactly (PMI-LM, arXiv 1707.05266).

N positions, V classes, K noise words.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.output.flat import SampledOutput
from karui.output.fused import Terms
from karui.output.noise import NoiseDistribution


class NegativeSampling(SampledOutput):
    """L = -log sigma(s_t) - sum_j log sigma(-s_j): NCE without its correction, so s learns log p - log(K q).

    Its softmax(s) is therefore not the model. Every exact answer of this layer, and `score`, uses s + log q, whose
    softmax is p; q follows from `counts`, which are saved, and `unigram_power`, so keep that argument with the weights.
    `softmax_state_dict()` gives weights with log q inside the bias, for other layers and for files;
    `load_softmax_state_dict` takes them back. The bias starts at the optimum for a unigram, log unigram - log(K q).
    Arguments: see SampledOutput; hits are kept.
    """

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        num_samples: int = 1024,
        noise: str | NoiseDistribution = "unigram",
        unigram_power: float = 0.75,
        num_splits: int = 1,
        bias: bool = True,
        weight: nn.Parameter | None = None,
        sparse: bool | str = "auto",
    ) -> None:
        super().__init__(
            hidden_size,
            counts,
            num_samples=num_samples,
            noise=noise,
            unigram_power=unigram_power,
            num_splits=num_splits,
            bias=bias,
            weight=weight,
            sparse=sparse,
        )
        self.reset_parameters()

    def _correction(self, ids: Tensor | None) -> Tensor:
        every = torch.arange(self.n_classes, device=self.weight.device) if ids is None else ids
        return self.noise.log_prob(every)

    def _first_bias(self) -> Tensor:
        return self.log_unigram() - self._correction(None) - math.log(self.num_samples)

    def _terms(self, log_target: Tensor, log_noise: Tensor) -> Terms:
        del log_target  # no correction
        return Terms("softplus", 0.0, torch.zeros_like(log_noise))

    def _objective(
        self, of_target: Tensor, of_noise: Tensor, log_target: Tensor, log_noise: Tensor, hits: Tensor | None
    ) -> Tensor:
        del log_target, log_noise, hits  # no correction, and hits are kept
        return F.softplus(-of_target) + F.softplus(of_noise).sum(1)
