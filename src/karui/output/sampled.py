"""Sampled softmax (Jean et al. 2015; Jozefowicz et al. 2016, section 3.1; Ma and Collins 2018, "ranking NCE").

N positions, K noise words.
"""

from torch import Tensor, nn

from karui.output.base import option
from karui.output.flat import SampledOutput
from karui.output.fused import Terms
from karui.output.noise import NoiseDistribution
from karui.output.ranking import ranking_losses


class SampledSoftmax(SampledOutput):
    """L = -a_t + log(e^{a_t} + sum_j e^{a_j}), a_w = s_w - log Q_w, Q_w the expected count of w among the samples.

    Which of K + 1 words is the real one? With replacement and with hits kept it is consistent for every K: the best
    model of the loss is the true distribution. That is "auto", and the default layer of large vocabularies.
    remove_accidental_hits: True drops noise words equal to the target, which weights positions by 1 / (1 - p_t) as K
    grows: a bias that is small for flat distributions only. unique: draw `num_samples` different words, with the
    inclusion probability as Q (TensorFlow's sampled_softmax_loss); there "auto" removes hits.
    Others: see SampledOutput.
    """

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        num_samples: int = 1024,
        noise: str | NoiseDistribution = "unigram",
        unigram_power: float = 0.75,
        remove_accidental_hits: bool | str = "auto",
        unique: bool = False,
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
        self.remove_accidental_hits = option(
            "remove_accidental_hits", remove_accidental_hits, (True, False, "auto")
        )
        if unique and num_splits > 1:
            raise ValueError(f"unique draws come as one set, got num_splits={num_splits}")
        if unique and num_samples > self.n_classes:
            raise ValueError(f"num_samples must be <= {self.n_classes} for unique draws, got {num_samples}")
        self.unique = unique
        self.reset_parameters()

    def _removes_hits(self) -> bool:
        choice = self.remove_accidental_hits
        return self.unique if choice == "auto" else bool(choice)

    def _draw(self, n_positions: int) -> tuple[Tensor, int | None]:
        if not self.unique:
            return super()._draw(n_positions)
        ids, tries = self.noise.sample_unique(self.num_samples)
        return ids.unsqueeze(0), tries

    def _terms(self, log_target: Tensor, log_noise: Tensor) -> Terms:
        return Terms(
            "logsumexp", -log_target, -log_noise, includes_target=True, drops_hits=self._removes_hits()
        )

    def _objective(
        self, of_target: Tensor, of_noise: Tensor, log_target: Tensor, log_noise: Tensor, hits: Tensor | None
    ) -> Tensor:
        return ranking_losses(of_target - log_target, of_noise, log_noise, hits)
