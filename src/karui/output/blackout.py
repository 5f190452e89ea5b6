"""BlackOut (Ji, Vishwanathan, Satish, Anderson, Dubey, ICLR 2016).

N positions, V classes, K noise words.
"""

import math

from torch import Tensor, nn

from karui.output.base import option
from karui.output.flat import SampledOutput
from karui.output.fused import Terms
from karui.output.noise import NoiseDistribution
from karui.output.ranking import discriminating_losses


def default_power(n_classes: int) -> float:
    """The papers' exponent on the counts: 0.4 up to 100,000 classes, 0.1 from 800,000, between them by log V."""
    far = (math.log(max(n_classes, 1)) - math.log(1e5)) / (math.log(8e5) - math.log(1e5))
    return 0.4 - 0.3 * min(max(far, 0.0), 1.0)


class BlackOut(SampledOutput):
    """u_i = e^{s_i} / q_i, pt_i = u_i / (u_t + sum_j u_j);  L = -log pt_t - sum_j log(1 - pt_j).

    The first term is sampled softmax without hits, the second pushes each noise word down by itself. Z cancels, and
    so does any constant in q. Consistent up to the small bias of the missing hits.
    unigram_power: "auto" for 0.4 up to 100,000 classes, falling to 0.1 at 800,000. remove_accidental_hits: "auto" and
    True drop noise words equal to the target; "merge" adds their weight to the target's, u_t (1 + hits), as the
    authors' code does; False keeps them as noise. Others: see SampledOutput.
    """

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        num_samples: int = 1024,
        noise: str | NoiseDistribution = "unigram",
        unigram_power: float | str = "auto",
        remove_accidental_hits: bool | str = "auto",
        num_splits: int = 1,
        bias: bool = True,
        weight: nn.Parameter | None = None,
        sparse: bool | str = "auto",
    ) -> None:
        if isinstance(unigram_power, str):
            option("unigram_power", unigram_power, ("auto",))
            unigram_power = default_power(counts if isinstance(counts, int) else counts.numel())
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
            "remove_accidental_hits", remove_accidental_hits, (True, False, "auto", "merge")
        )
        self.reset_parameters()

    def _removes_hits(self) -> bool:
        return self.remove_accidental_hits is not False

    def _terms(self, log_target: Tensor, log_noise: Tensor) -> Terms | None:
        if self.remove_accidental_hits == "merge":
            return None
        hits = self._removes_hits()
        return Terms("blackout", -log_target, -log_noise, includes_target=True, drops_hits=hits)

    def _objective(
        self, of_target: Tensor, of_noise: Tensor, log_target: Tensor, log_noise: Tensor, hits: Tensor | None
    ) -> Tensor:
        v_target = of_target - log_target  # log u, up to log K
        if hits is not None and self.remove_accidental_hits == "merge":
            v_target = v_target + hits.sum(1).to(v_target.dtype).log1p()
        return discriminating_losses(v_target, of_noise, log_noise, hits)
