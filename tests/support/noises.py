"""Noise distributions whose draws are known beforehand."""

import torch
from torch import Tensor

from karui.output.noise import NoiseDistribution


class Drawn(NoiseDistribution):
    """Says that it draws from q (V,), and gives the ids (S, K) it was made with."""

    def __init__(self, q: Tensor, ids: Tensor) -> None:
        super().__init__(len(q))
        self.q, self.ids = q, ids

    def sample(self, shape: tuple[int, ...] | int, generator: torch.Generator | None = None) -> Tensor:
        assert tuple(self.ids.shape) == shape
        return self.ids

    def log_prob(self, ids: Tensor) -> Tensor:
        return self.q.log()[ids]


class EveryWord(NoiseDistribution):
    """Every class once, with an expected count of 1."""

    def sample(self, shape: tuple[int, ...] | int, generator: torch.Generator | None = None) -> Tensor:
        assert shape == (1, self.n_classes)
        return torch.arange(self.n_classes).unsqueeze(0)

    def log_prob(self, ids: Tensor) -> Tensor:
        return torch.zeros(ids.shape, dtype=torch.float64)

    def log_expected_count(self, ids: Tensor, num_samples: int, tries: int | None = None) -> Tensor:
        return torch.zeros(ids.shape, dtype=torch.float64)
