"""Draws follow the stated distribution, tail included, and the stated log-probabilities are exact."""

import math

import pytest
import torch
from torch import Tensor

from karui.output.noise import LogUniform, NoiseDistribution, Uniform, Unigram, alias_table, build_noise

MILLION = 1_000_000


def zipf(n_classes: int, exponent: float = 1.0) -> Tensor:
    """Counts falling with the rank, at ids in any order."""
    counts = (1e9 / torch.arange(1, n_classes + 1, dtype=torch.float64) ** exponent).long()
    return counts[torch.randperm(n_classes, generator=torch.Generator().manual_seed(2))]


def chi_square(noise: NoiseDistribution, draws: int, bins: int) -> tuple[float, int]:
    """Statistic and degrees of freedom: the likeliest classes by themselves, all others in bins of equal mass."""
    log_q = noise.log_prob(torch.arange(noise.n_classes))
    q, order = log_q.exp().sort(descending=True)
    alone = min(50, noise.n_classes)
    rest = q[alone:].cumsum(0)
    of_rest = (rest / rest[-1] * bins).long().clamp_max(bins - 1) + alone if len(rest) else rest.long()
    bin_of = torch.empty(noise.n_classes, dtype=torch.int64)
    bin_of[order] = torch.cat([torch.arange(alone), of_rest])
    expected = torch.zeros(alone + bins, dtype=torch.float64).index_add_(0, bin_of[order], q) * draws
    found = torch.zeros_like(expected)
    for _ in range(4):
        ids = noise.sample(draws // 4, generator=torch.Generator().manual_seed(11 + int(found.sum())))
        assert ids.dtype == torch.int64
        found += bin_of[ids].bincount(minlength=len(found))
    return float(((found - expected).square() / expected).sum()), len(expected) - 1


@pytest.mark.parametrize(
    "noise",
    [
        Uniform(MILLION),
        Unigram(zipf(MILLION), power=1.0),
        Unigram(zipf(MILLION), power=0.75),
        Unigram(zipf(MILLION), power=0.1),
        LogUniform(MILLION),
        LogUniform(zipf(MILLION)),
    ],
    ids=lambda noise: f"{type(noise).__name__}-{getattr(noise, 'power', '')}",
)
def test_a_million_classes_are_drawn_as_stated(noise: NoiseDistribution) -> None:
    assert noise.log_prob(torch.arange(MILLION)).logsumexp(0).abs() < 1e-9
    statistic, freedom = chi_square(noise, draws=2_000_000, bins=500)
    assert abs(statistic - freedom) <= 4.5 * math.sqrt(2 * freedom)  # too good a fit is wrong as well


def test_the_test_sees_a_bent_tail() -> None:
    noise = Unigram(zipf(MILLION), power=0.75)
    tail = noise.log_prob(torch.arange(MILLION)) < -14
    bent = noise._threshold.view(torch.float64) * torch.where(tail, 0.8, 1.0)
    noise._threshold = bent.view(torch.int64)
    statistic, freedom = chi_square(noise, draws=2_000_000, bins=500)
    assert statistic - freedom > 20 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "counts", [zipf(MILLION), zipf(1000, 2.0), torch.arange(1, 4001), torch.ones(7, dtype=int)]
)
@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_the_alias_table_holds_the_distribution(counts: Tensor, power: float) -> None:
    q = (counts.double() ** power) / (counts.double() ** power).sum()
    threshold, alias = alias_table(q)
    mass = threshold.clone().index_add_(0, alias, 1 - threshold) / len(q)
    assert (threshold >= 0).all()
    assert (threshold <= 1).all()
    assert ((mass - q).abs() / q).max() < 1e-7


def test_more_classes_than_float32_can_count() -> None:
    n_classes = 2**24 + 4099
    for noise in (Uniform(n_classes), LogUniform(n_classes)):
        ids = noise.sample(200_000, generator=torch.Generator().manual_seed(1))
        assert 0 <= ids.min() <= ids.max() < n_classes
        assert noise.log_prob(torch.tensor([n_classes - 1])).exp() > 0
    ids = Uniform(n_classes).sample(400_000, generator=torch.Generator().manual_seed(1))
    assert (ids % 2).double().mean() == pytest.approx(0.5, abs=0.005)  # float32 would miss odd ids above 2^24
    assert ids.max() > 2**24


@pytest.mark.slow
def test_an_alias_table_above_two_to_the_24() -> None:
    n_classes = 2**24 + 4099
    noise = Unigram(torch.arange(n_classes) % 1000)
    assert noise.log_prob(torch.arange(n_classes)).logsumexp(0).abs() < 1e-9
    ids = noise.sample(2_000_000, generator=torch.Generator().manual_seed(1))
    found = (ids % 1000).bincount(minlength=1000).double()
    expected = noise.log_prob(torch.arange(n_classes)).exp()
    expected = torch.zeros(1000, dtype=torch.float64).index_add_(
        0, torch.arange(n_classes) % 1000, expected
    ) * len(ids)
    assert ((found - expected).square() / expected).sum() - 999 <= 4.5 * math.sqrt(2 * 999)


def test_a_count_of_zero_weighs_as_one() -> None:
    assert torch.equal(
        Unigram(torch.tensor([0, 3, 1])).log_prob(torch.arange(3)),
        Unigram(torch.tensor([1, 3, 1])).log_prob(torch.arange(3)),
    )
    q = Unigram(torch.tensor([0, 16, 1]), power=0.5).log_prob(torch.tensor([[0, 1]])).exp()
    assert torch.allclose(q, torch.tensor([[1 / 6, 4 / 6]], dtype=torch.float64))


@pytest.mark.parametrize("name", ["uniform", "unigram", "log-uniform"])
def test_shapes_seeds_and_a_single_class(name: str) -> None:
    noise = build_noise(name, zipf(100))
    assert noise.sample((3, 4)).shape == (3, 4)
    first, second = (noise.sample((50,), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(noise.sample(50), first)  # torch's global generator
    single = build_noise(name, torch.tensor([7]))
    assert single.sample(20).count_nonzero() == 0
    assert single.log_prob(torch.tensor([0])).abs() < 1e-15
    ids, tries = single.sample_unique(1)
    assert (ids.tolist(), tries) == ([0], 1)
    assert single.log_expected_count(ids, 1, tries) == 0
    assert noise.state_dict() == {}  # it follows from the counts


@pytest.mark.parametrize("name", ["uniform", "unigram", "log-uniform"])
def test_narrow_weights_leave_the_tables_alone(name: str) -> None:
    noise, narrow = build_noise(name, zipf(1000)), build_noise(name, zipf(1000)).half().bfloat16()
    ids = torch.arange(1000)
    assert torch.equal(noise.log_prob(ids), narrow.log_prob(ids))
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(noise.sample(999, generators[0]), narrow.sample(999, generators[1]))


def test_draws_without_repeats_and_their_expected_count() -> None:
    noise, count, runs = Unigram(zipf(40)), 12, 3000
    generator = torch.Generator().manual_seed(6)
    among, stated = torch.zeros(40, dtype=torch.float64), torch.zeros(40, dtype=torch.float64)
    squares = torch.zeros(40, dtype=torch.float64)
    for _ in range(runs):
        ids, tries = noise.sample_unique(count, generator)
        assert len(ids.unique()) == len(ids) == count
        assert tries >= count
        difference = torch.zeros(40, dtype=torch.float64).index_fill_(0, ids, 1.0)
        among += difference
        chance = noise.log_expected_count(torch.arange(40), count, tries).exp()
        stated += chance
        squares += (difference - chance).square()
    error = (among - stated) / runs
    deviation = (squares / runs / runs).sqrt()
    # Given the number of tries the chance is a known approximation: allow it a hundredth besides the draws' own noise.
    assert (error.abs() <= 4.5 * deviation + 0.01).all()
    with pytest.raises(ValueError, match="41 different noise words need as many classes, got 40"):
        noise.sample_unique(41)
    assert noise.sample_unique(40)[0].sort().values.tolist() == list(range(40))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="noise must be a NoiseDistribution or one of"):
        build_noise("zipf", 5)
    with pytest.raises(ValueError, match="noise has 6 classes, the layer 5"):
        build_noise(Uniform(6), 5)
    with pytest.raises(ValueError, match="unigram_power must be a number >= 0, got -1"):
        Unigram(zipf(5), power=-1)
    with pytest.raises(ValueError, match="unigram_power must be a number >= 0, got nan"):
        Unigram(zipf(5), power=math.nan)
    with pytest.raises(ValueError, match="at least 1 class, got 0"):
        Uniform(0)
    with pytest.raises(ValueError, match="counts must be >= 0, got -4 for class 1"):
        Unigram(torch.tensor([1, -4]))
