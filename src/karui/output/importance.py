"""Importance sampling of the softmax (Bengio and Senecal 2003, 2008), with the target outside or inside the estimate.

N positions, K noise words.
"""

from torch import Tensor, nn

from karui.output.flat import SampledOutput
from karui.output.fused import Terms
from karui.output.noise import NoiseDistribution
from karui.output.ranking import ranking_losses


class ImportanceSampledSoftmax(SampledOutput):
    """L = -s_t + log of an estimate of Z from the noise words; the gradient is the full one as K grows.

    include_target=False, the original: Z ~ sum_j e^{s_j} / (K q_j), hits kept. The target enters it only if it was
    drawn, so the loss has no lower bound and a step may push the target's score up without a check.
    include_target=True: Z ~ e^{s_t} + sum over noise words other than the target of e^{s_j} / (K q_j): an unbiased
    estimate of Z that is at least e^{s_t}, so L >= 0. Hits are dropped because the target is there already.
    Both estimate log Z with a bias of order 1/K, which sampled softmax has not. Other arguments: see SampledOutput.
    """

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        num_samples: int = 1024,
        noise: str | NoiseDistribution = "unigram",
        unigram_power: float = 0.75,
        include_target: bool = True,
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
        self.include_target = include_target
        self.reset_parameters()

    def _removes_hits(self) -> bool:
        return self.include_target

    def _terms(self, log_target: Tensor, log_noise: Tensor) -> Terms:
        del log_target  # the target is not corrected
        hits = self._removes_hits()
        return Terms("logsumexp", 0.0, -log_noise, includes_target=hits, drops_hits=hits)

    def _objective(
        self, of_target: Tensor, of_noise: Tensor, log_target: Tensor, log_noise: Tensor, hits: Tensor | None
    ) -> Tensor:
        del log_target  # the target is not corrected
        return ranking_losses(of_target, of_noise, log_noise, hits, inside=self.include_target)
