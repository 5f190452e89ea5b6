"""Noise-contrastive estimation (Gutmann and Hyvarinen 2010; Mnih and Teh 2012).

N positions, K noise words.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.output.base import option
from karui.output.flat import SampledOutput
from karui.output.fused import Terms
from karui.output.noise import NoiseDistribution


class NCE(SampledOutput):
    """Data or noise? D_w = s_w - c - log(K q_w);  L = -log sigma(D_t) - sum_j log sigma(-D_j).

    As K grows the gradient becomes the likelihood's, and the model normalises itself to log Z = c. Hits are kept:
    without them this is another objective. log_z: "fixed" at `log_z_init`, or "learned" from there, one number
    (parameter `log_z_offset`, which no other layer of the family needs). The bias starts as log unigram + log_z_init,
    without which Z is about V and every D off by log V. unigram_power: 1, the data's own frequencies. `score` is
    s - c, which serves as log-probability without Z; the exact answers do not rely on it. Others: see SampledOutput.
    """

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        num_samples: int = 1024,
        noise: str | NoiseDistribution = "unigram",
        unigram_power: float = 1.0,
        log_z: str = "fixed",
        log_z_init: float = 0.0,
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
        # `log_z` is a method of every output layer, so the choice has another name here.
        self.log_z_mode = option("log_z", log_z, ("fixed", "learned"))
        self.log_z_init = float(log_z_init)
        self.log_z_offset = None
        if log_z == "learned":
            like = {"dtype": self.weight.dtype, "device": self.weight.device}
            self.log_z_offset = nn.Parameter(torch.empty((), **like))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """See FlatOutput; a learned log_z starts at log_z_init."""
        super().reset_parameters()
        if self.log_z_offset is not None:
            self.log_z_offset.fill_(self.log_z_init)

    def _first_bias(self) -> Tensor:
        return self.log_unigram() + self.log_z_init

    def _offset(self) -> Tensor | float:
        return self.log_z_init if self.log_z_offset is None else self.log_z_offset

    def score(self, hidden: Tensor, target: Tensor) -> Tensor:
        """s - c of the target: an estimate of its log-probability that reads one row and no Z."""
        return super().score(hidden, target) - self._offset()

    def _terms(self, log_target: Tensor, log_noise: Tensor) -> Terms:
        offset = self._offset()
        return Terms("softplus", -(log_target + offset), -(log_noise + offset))

    def _objective(
        self, of_target: Tensor, of_noise: Tensor, log_target: Tensor, log_noise: Tensor, hits: Tensor | None
    ) -> Tensor:
        del hits  # kept
        offset = self._offset()
        d_target = of_target - (log_target + offset)
        d_noise = of_noise - (log_noise + offset)
        return F.softplus(-d_target) + F.softplus(d_noise).sum(1)

    def extra_repr(self) -> str:
        """The normaliser, as torch.nn shows arguments."""
        return f"{super().extra_repr()}, log_z={self.log_z_mode}, log_z_init={self.log_z_init}"
