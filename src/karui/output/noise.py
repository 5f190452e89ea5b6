"""Noise distributions q over V classes: draws, and exact log-probabilities for the correction they need.

Every table is computed and kept in float64: a float32 running sum over a million classes bends the tail by a fifth.
Kept as int64 bit patterns, so that `model.half()` and `model.bfloat16()` leave them alone, and not in the state dict:
they follow from the counts, which are.
"""

import math

import torch
from torch import Tensor, nn

from karui.output.base import as_counts

NOISES = ("uniform", "unigram", "log-uniform")


class NoiseDistribution(nn.Module):
    """A distribution q over `n_classes` class ids: `sample(shape)` draws with replacement, `log_prob(ids)` is log q."""

    _place: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        if n_classes < 1:
            raise ValueError(f"noise needs at least 1 class, got {n_classes}")
        self.n_classes = n_classes
        # Moves with the module, and tells the device to draw on.
        self.register_buffer("_place", torch.zeros(0, dtype=torch.int64), persistent=False)

    def sample(self, shape: tuple[int, ...] | int, generator: torch.Generator | None = None) -> Tensor:
        """Ids int64 of `shape`, drawn with replacement; from torch's global generator if none is given."""
        raise NotImplementedError

    def log_prob(self, ids: Tensor) -> Tensor:
        """log q of ids (...): float64 (...)."""
        raise NotImplementedError

    def log_expected_count(self, ids: Tensor, num_samples: int, tries: int | None = None) -> Tensor:
        """Log of how often each of ids (...) is expected among `num_samples` draws, float64 (...).

        log(K q) for draws with replacement. With `tries`, the number of draws it took to see `num_samples` different
        ids: log(1 - (1 - q)^tries), the chance to be among them (TensorFlow's candidate samplers).
        """
        log_q = self.log_prob(ids)
        if tries is None:
            return log_q + math.log(num_samples)
        q = log_q.exp()
        # q = 1, a single class: log1p(-1) is -inf and the chance is 1, as it should be.
        return (-torch.expm1(tries * torch.log1p(-q))).log()

    def sample_unique(self, num_samples: int, generator: torch.Generator | None = None) -> tuple[Tensor, int]:
        """`num_samples` different ids (K,) in the order of their first draw, and the number of draws it took.

        Raises ValueError when there are fewer classes than that.
        """
        if num_samples > self.n_classes:
            raise ValueError(
                f"{num_samples} different noise words need as many classes, got {self.n_classes}"
            )
        drawn = self.sample(num_samples, generator)
        while True:
            first = first_places(drawn)
            if len(first) >= num_samples:
                last = int(first[num_samples - 1])
                return drawn[first[:num_samples]], last + 1
            drawn = torch.cat([drawn, self.sample(len(drawn), generator)])


def first_places(ids: Tensor) -> Tensor:
    """Places in ids (n,) at which a value is met for the first time, ascending."""
    ordered, order = ids.sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return order[new].sort().values


class Uniform(NoiseDistribution):
    """q = 1 / V. V: a number of classes, or counts of which only their number is used."""

    def __init__(self, counts: Tensor | int) -> None:
        super().__init__(len(as_counts(counts)) if isinstance(counts, Tensor) else counts)

    def sample(self, shape: tuple[int, ...] | int, generator: torch.Generator | None = None) -> Tensor:
        """See NoiseDistribution."""
        return torch.randint(self.n_classes, _shape(shape), generator=generator, device=self._place.device)

    def log_prob(self, ids: Tensor) -> Tensor:
        """See NoiseDistribution."""
        return torch.full(ids.shape, -math.log(self.n_classes), dtype=torch.float64, device=ids.device)


class Unigram(NoiseDistribution):
    """q proportional to counts ** power; drawn from an alias table in O(1), whatever V is.

    counts (V,) int64, in any order; a count of 0 has the mass of a count of 1, so every class can be drawn.
    power: 1 the data's own frequencies, 0 uniform, 0.75 in word2vec (Mikolov et al. 2013).
    """

    _threshold: Tensor
    _alias: Tensor
    _log_q: Tensor

    def __init__(self, counts: Tensor | int, power: float = 0.75) -> None:
        counts = as_counts(counts)
        super().__init__(len(counts))
        if not math.isfinite(power) or power < 0:
            raise ValueError(f"unigram_power must be a number >= 0, got {power}")
        self.power = power
        log_mass = counts.clamp_min(1).to(torch.float64).log_().mul_(power)
        log_q = log_mass.sub_(torch.logsumexp(log_mass, 0))
        threshold, alias = alias_table(log_q.exp())
        self.register_buffer("_threshold", threshold.view(torch.int64), persistent=False)
        self.register_buffer("_alias", alias, persistent=False)
        self.register_buffer("_log_q", log_q.view(torch.int64), persistent=False)

    def sample(self, shape: tuple[int, ...] | int, generator: torch.Generator | None = None) -> Tensor:
        """See NoiseDistribution. One float64 uniform a draw: its whole part names a cell, the rest decides in it."""
        uniform = torch.rand(
            _shape(shape), dtype=torch.float64, generator=generator, device=self._alias.device
        )
        uniform *= self.n_classes
        cell = uniform.to(torch.int64).clamp_(max=self.n_classes - 1)
        uniform -= cell
        flat = cell.reshape(-1)
        stays = uniform.reshape(-1) < self._threshold.index_select(0, flat).view(torch.float64)
        return torch.where(stays, flat, self._alias.index_select(0, flat)).view(cell.shape)

    def log_prob(self, ids: Tensor) -> Tensor:
        """See NoiseDistribution."""
        return self._log_q.index_select(0, ids.reshape(-1)).view(torch.float64).view(ids.shape)

    def extra_repr(self) -> str:
        """The power, as torch.nn shows arguments."""
        return f"n_classes={self.n_classes}, power={self.power}"


class LogUniform(NoiseDistribution):
    """q(rank) = log((rank + 2) / (rank + 1)) / log(V + 1): Zipf-like, in closed form (TensorFlow's default).

    counts (V,): classes are ranked by falling count, so ids may be in any order. A number: ids are ranks already.
    """

    _order: Tensor | None
    _rank: Tensor | None

    def __init__(self, counts: Tensor | int) -> None:
        ranked = None if isinstance(counts, int) else as_counts(counts)
        super().__init__(counts if isinstance(counts, int) else len(counts))
        order = None if ranked is None else ranked.argsort(descending=True, stable=True)
        rank = None if order is None else torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        self.register_buffer("_order", order, persistent=False)
        self.register_buffer("_rank", rank, persistent=False)

    def sample(self, shape: tuple[int, ...] | int, generator: torch.Generator | None = None) -> Tensor:
        """See NoiseDistribution. The inverse of the distribution function: rank = floor((V + 1)^u) - 1."""
        uniform = torch.rand(
            _shape(shape), dtype=torch.float64, generator=generator, device=self._place.device
        )
        rank = uniform.mul_(math.log1p(self.n_classes)).exp_().to(torch.int64) - 1
        rank.clamp_(0, self.n_classes - 1)
        return rank if self._order is None else self._order.index_select(0, rank.reshape(-1)).view(rank.shape)

    def log_prob(self, ids: Tensor) -> Tensor:
        """See NoiseDistribution."""
        rank = ids if self._rank is None else self._rank.index_select(0, ids.reshape(-1)).view(ids.shape)
        return torch.log1p(1.0 / (rank.to(torch.float64) + 1.0)).log_() - math.log(math.log1p(self.n_classes))


def alias_table(q: Tensor) -> tuple[Tensor, Tensor]:
    """Walker's alias table of probabilities q (V,) float64: thresholds (V,) float64 and other ids (V,) int64.

    Cell i is drawn uniformly; it gives i if a uniform number is below threshold[i], alias[i] else. Without a loop over
    the classes: Walker's sweep fills light cells (mass below the mean) from heavy ones in order, so who fills whom
    follows from two running sums (Hübschle-Schneider and Sanders, "Parallel Weighted Random Sampling", 2019, sec. 4).
    With D_i the deficits of light cells up to i and E_j the excess of heavy ones up to j: light i is filled by the
    first heavy j with E_j > D_{i-1}; heavy j gives until the first D_i >= E_j, keeps 1 + E_j - D_i, and is then itself
    filled by heavy j + 1.
    """
    scaled = q / q.sum() * len(q)
    light = (scaled < 1).nonzero().squeeze(1)
    heavy = (scaled >= 1).nonzero().squeeze(1)
    threshold, alias = torch.ones_like(scaled), torch.arange(len(q), device=q.device)
    if len(light) == 0 or len(heavy) == 0:
        return threshold, alias
    deficit = (1 - scaled[light]).cumsum(0)
    excess = (scaled[heavy] - 1).cumsum(0)
    before = torch.cat([deficit.new_zeros(1), deficit[:-1]])
    giver = torch.searchsorted(excess, before, right=True).clamp_(max=len(heavy) - 1)
    threshold[light], alias[light] = scaled[light], heavy[giver]
    # The last heavy cells outlive the lights (or would, but for rounding): they keep all of their cell.
    until = torch.searchsorted(deficit, excess)
    emptied = (until < len(light)) & (torch.arange(len(heavy), device=q.device) + 1 < len(heavy))
    giving = emptied.nonzero().squeeze(1)
    threshold[heavy[giving]] = (1 + excess[giving] - deficit[until[giving]]).clamp_(0, 1)
    alias[heavy[giving]] = heavy[giving + 1]
    return threshold, alias


def build_noise(
    noise: str | NoiseDistribution, counts: Tensor | int, unigram_power: float = 0.75
) -> NoiseDistribution:
    """A noise distribution over the classes of counts: by a name of `NOISES`, or one that is there already."""
    if isinstance(noise, NoiseDistribution):
        n_classes = counts if isinstance(counts, int) else len(counts)
        if noise.n_classes != n_classes:
            raise ValueError(f"noise has {noise.n_classes} classes, the layer {n_classes}")
        return noise
    if noise == "unigram":
        return Unigram(counts, unigram_power)
    if noise == "uniform":
        return Uniform(counts)
    if noise == "log-uniform":
        return LogUniform(counts)
    raise ValueError(f"noise must be a NoiseDistribution or one of {NOISES}, got {noise!r}")


def _shape(shape: tuple[int, ...] | int) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)
