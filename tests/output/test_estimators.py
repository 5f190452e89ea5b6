"""The mean of many sampled gradients against what the estimator declares: the full gradient, or its exact expectation.

Limits come from the sample variance: a mean of n draws may lie 4.5 standard errors off (chance 7e-6 a number).
"""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from karui.output.noise import NoiseDistribution, Unigram
from karui.output.registry import build_output
from tests.support.noises import Drawn

V = 6
COUNTS = torch.tensor([40, 9, 1, 5, 90, 2])
LIMIT = 4.5
SAMPLED = [
    ("importance", {}),
    ("importance-target", {}),
    ("sampled", {}),
    ("sampled", {"remove_accidental_hits": True}),
    ("nce", {}),
    ("negative", {}),
    ("blackout", {}),
    ("blackout", {"remove_accidental_hits": "merge"}),
]


def scores() -> Tensor:
    return torch.randn(V, generator=torch.Generator().manual_seed(4), dtype=torch.float64).log_softmax(0)


def score_gradients(
    name: str, options: dict[str, Any], target: Tensor, splits: int, noise: NoiseDistribution, k: int
) -> Tensor:
    """dL/ds (N, V) of each position by itself: the table is the identity, so hidden vectors are scores."""
    options = options | {"num_samples": k, "num_splits": splits, "noise": noise}
    layer = build_output(name, V, V, bias=False, options=options).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(V))
    hidden = scores().expand(len(target), V).contiguous().requires_grad_()
    torch.manual_seed(12)
    layer(hidden, target, reduction="sum").backward()
    return hidden.grad


def expectation(name: str, options: dict[str, Any], target: int, noise: Unigram, k: int) -> Tensor:
    """The exact mean of dL/ds over all V^k sets of noise words."""
    sets = torch.tensor(list(product(range(V), repeat=k)))
    q = noise.log_prob(torch.arange(V)).exp()
    gradients = score_gradients(name, options, torch.full((len(sets),), target), len(sets), Drawn(q, sets), k)
    return (gradients * q[sets].prod(1).unsqueeze(1)).sum(0)


def z_scores(gradients: Tensor, expected: Tensor) -> Tensor:
    error = gradients.mean(0) - expected
    deviation = gradients.std(0) / len(gradients) ** 0.5
    return error.abs() / (deviation + 1e-12)  # where nothing varies the error must be rounding


def ratio_bias(noise: Unigram, k: int) -> float:
    """Declared bias of a ratio of means of k draws: its relative variance, sum p^2 / q, over k."""
    return float((scores().softmax(0).square() / noise.log_prob(torch.arange(V)).exp()).sum()) / k


@pytest.mark.parametrize(("name", "options"), SAMPLED)
def test_draws_have_the_exact_expectation(name: str, options: dict[str, Any]) -> None:
    noise, k, draws = Unigram(COUNTS, 0.75), 4, 40_000
    for target in (4, 2):
        expected = expectation(name, options, target, noise, k)
        found = score_gradients(name, options, torch.full((draws,), target), draws, noise, k)
        assert z_scores(found, expected).max() < LIMIT
        # The check has power: a bias of a twentieth of the largest gradient would be seen.
        assert found.std(0).max() / draws**0.5 * LIMIT < 0.05 * expected.abs().max()


@pytest.mark.parametrize(("name", "c"), [("nce", 0.0), ("nce", 0.5), ("negative", None)])
def test_binary_objectives_have_the_expectation_of_their_formula(name: str, c: float | None) -> None:
    """At every K: -(1 - sigma(D_t)) onehot(t) + K q sigma(D)."""
    noise, k, draws, target = Unigram(COUNTS, 0.75), 50, 4000, 4
    q, s = noise.log_prob(torch.arange(V)).exp(), scores()
    d = s if c is None else s - c - torch.log(k * q)
    expected = k * q * torch.sigmoid(d)
    expected[target] -= 1 - torch.sigmoid(d[target])
    options = {} if c is None else {"log_z_init": c}
    found = score_gradients(name, options, torch.full((draws,), target), draws, noise, k)
    assert z_scores(found, expected).max() < LIMIT


@pytest.mark.parametrize(
    ("name", "options"), [("importance", {}), ("importance-target", {}), ("sampled", {}), ("nce", {})]
)
def test_means_approach_the_full_gradient_as_samples_grow(name: str, options: dict[str, Any]) -> None:
    """Within `ratio_bias` and the noise of the draws."""
    noise, target = Unigram(COUNTS, 0.75), 4
    full = scores().softmax(0)
    full[target] -= 1
    if name == "sampled":
        # Averaged over targets as the data has them: the gradient is zero where the model is right, for every K.
        share = (scores().softmax(0) * 20_000).round().long()
        found = score_gradients(
            name, options, torch.arange(V).repeat_interleave(share), int(share.sum()), noise, 3
        )
        means = torch.stack([part.mean(0) for part in found[torch.randperm(len(found))].split(200)])
        assert z_scores(means, torch.zeros(V, dtype=torch.float64)).max() < LIMIT
    for k in (100, 1000):
        draws = 2000
        found = score_gradients(name, options, torch.full((draws,), target), draws, noise, k)
        deviation = found.std(0) / draws**0.5
        assert ((found.mean(0) - full).abs() <= LIMIT * deviation + ratio_bias(noise, k)).all()


def test_removed_hits_approach_another_gradient() -> None:
    """As K grows, (p - onehot(t)) / (1 - p_t): confident positions count more."""
    noise, target, k, draws = Unigram(COUNTS, 0.75), 4, 1000, 2000
    p = scores().softmax(0)
    limit = (p - torch.eye(V, dtype=torch.float64)[target]) / (1 - p[target])
    options = {"remove_accidental_hits": True}
    # The target leaves both sides of its own share: what is left is the softmax over the others.
    found = score_gradients("sampled", options, torch.full((draws,), target), draws, noise, k)
    a = (scores() - noise.log_prob(torch.arange(V)) - torch.log(torch.tensor(float(k)))).exp()
    rest = torch.where(torch.arange(V) == target, 0.0, scores().exp())
    p_t = a[target] / (a[target] + rest.sum())
    expected = rest / rest.sum() * (1 - p_t)
    expected[target] = p_t - 1
    deviation = found.std(0) / draws**0.5
    assert ((found.mean(0) - expected).abs() <= LIMIT * deviation + ratio_bias(noise, k)).all()
    others = torch.arange(V) != target
    assert (expected / (1 - p_t) - limit)[others].abs().max() < 1e-12
    assert (found.mean(0) - (p - torch.eye(V, dtype=torch.float64)[target])).abs().max() > 0.05


def test_a_fraction_of_the_normalisers_is_unbiased() -> None:
    """Self-normalised softmax: the mean gradient of fraction=0.3 is the gradient of fraction=1."""
    hidden = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target, found = torch.arange(10) % V, []
    layers = [build_output("self-normalized", 3, V, options={"fraction": f}).double() for f in (1.0, 0.3)]
    layers[1].load_state_dict(layers[0].state_dict())
    torch.manual_seed(3)
    for _ in range(1500):
        layers[1].zero_grad()
        layers[1](hidden, target).backward()
        found.append(torch.cat([layers[1].weight.grad.flatten(), layers[1].bias.grad]))
    layers[0](hidden, target).backward()
    expected = torch.cat([layers[0].weight.grad.flatten(), layers[0].bias.grad])
    assert z_scores(torch.stack(found), expected).max() < LIMIT


def test_splits_draw_sets_of_their_own() -> None:
    target = torch.full((90,), 4)
    one, three = (score_gradients("sampled", {}, target, splits, Unigram(COUNTS), 3) for splits in (1, 3))
    assert len(one.unique(dim=0)) == 1
    assert 2 <= len(three.unique(dim=0)) <= 3
    assert len(three[:30].unique(dim=0)) == 1
    assert (
        len(score_gradients("sampled", {}, target[:2], 5, Unigram(COUNTS), 3)) == 2
    )  # more sets than positions
