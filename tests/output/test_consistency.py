"""Which objectives have the true distribution as their optimum: the table of perplexity inflations.

A model without context over 20 classes with Zipf probabilities p; noise q ~ p^0.75. Every class stands in the batch as
often as it is likely (its loss is weighted by p), so noise words are the only chance in a step. The inflation is
exp(KL(p || model)) after an exact softmax. The model starts as uniform.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from karui.output.noise import Unigram
from karui.output.registry import build_output

V = 20
COUNTS = (1e6 / torch.arange(1, V + 1, dtype=torch.float64) ** 1.3).round().long()
P = COUNTS.double() / COUNTS.sum()


class Unweighted(Unigram):
    """Draws from q and says that every expected count is 1, as ports of BlackOut without 1/q do."""

    def log_expected_count(self, ids: Tensor, num_samples: int, tries: int | None = None) -> Tensor:
        return torch.zeros(ids.shape, dtype=torch.float64)


def trained(name: str, k: int, options: dict[str, Any], *, weighted: bool = True) -> Any:
    """A layer whose bias was trained to the end; the last third of the steps is averaged."""
    splits, steps = 24, 500
    noise = (Unigram if weighted else Unweighted)(COUNTS, 0.75)
    layer = build_output(
        name, 1, V, options=options | {"num_samples": k, "num_splits": splits, "noise": noise}
    )
    layer = layer.double()
    target = torch.arange(V).repeat(splits)
    hidden, mean = torch.zeros(len(target), 1, dtype=torch.float64), torch.zeros(V, dtype=torch.float64)
    optimizer = torch.optim.Adam([layer.bias], lr=0.3, betas=(0.8, 0.99))
    torch.manual_seed(6)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / steps)
        optimizer.zero_grad()
        loss = (layer(hidden, target, reduction="none").view(splits, V) * P).sum(1).mean()
        loss.backward()
        optimizer.step()
        if step >= steps * 2 // 3:
            mean += layer.bias.detach() / (steps - steps * 2 // 3)
    with torch.no_grad():
        layer.bias.copy_(mean)
    return layer


def inflation(log_prob: Tensor) -> float:
    return math.exp(float((P * (P.log() - log_prob.detach())).sum()))


NO_CONTEXT = torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "k"),
    [("sampled", 5), ("sampled", 50), ("nce", 5), ("nce", 50), ("importance", 50), ("importance-target", 50)],
)
def test_consistent_objectives_find_the_distribution(name: str, k: int) -> None:
    layer = trained(name, k, {})
    assert inflation(layer.log_prob(NO_CONTEXT)) <= 1.002
    if name == "nce":  # and it normalises itself
        assert layer.log_z(NO_CONTEXT).abs() <= 0.02
        assert layer.score(NO_CONTEXT, torch.tensor(3)).item() == pytest.approx(math.log(P[3]), abs=0.05)


@pytest.mark.parametrize("k", [5, 50])
def test_negative_sampling_is_right_with_log_q_and_wrong_without(k: int) -> None:
    layer = trained("negative", k, {})
    assert inflation(layer.log_prob(NO_CONTEXT)) <= 1.002
    assert inflation(layer.bias.log_softmax(0)) > 1.3


@pytest.mark.parametrize(
    ("name", "options", "weighted", "low", "high"),
    [
        ("sampled", {"remove_accidental_hits": True}, True, 1.03, 1.15),
        ("blackout", {}, True, 1.01, 1.15),
        ("blackout", {}, False, 1.15, 1.6),
    ],
)
def test_biased_forms_are_as_biased_as_documented(
    name: str, options: dict[str, Any], weighted: bool, low: float, high: float
) -> None:
    layer = trained(name, 50, options, weighted=weighted)
    assert low < inflation(layer.log_prob(NO_CONTEXT)) < high
