"""Losses and gradients of the flat objectives against the formulas of their papers, written out word by word.

V classes, s (V,) the scores of one position, t its target, S its noise words with repeats.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from karui.output.ranking import ranking_losses
from karui.output.registry import build_output
from tests.support.noises import Drawn, EveryWord

V, H, K, N = 9, 5, 7, 8
LEARNED, ALPHA = 0.75, 0.3


def lse(*logs: Tensor) -> Tensor:
    return torch.stack(logs).logsumexp(0)


# --- the losses, literally ------------------------------------------------------------------------------------------


def full(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    return -s[t] + s.logsumexp(0)


def importance(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    return -s[t] + torch.log(sum(s[j].exp() / q[j] for j in noise) / len(noise))


def importance_target(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    return -s[t] + lse(s[t], *(s[j] - torch.log(len(noise) * q[j]) for j in noise if j != t))


def sampled(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    a = s - torch.log(len(noise) * q)
    return -a[t] + lse(a[t], *(a[j] for j in noise))


def sampled_removed(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    a = s - torch.log(len(noise) * q)
    return -a[t] + lse(a[t], *(a[j] for j in noise if j != t))


def nce(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    d = s - LEARNED - torch.log(len(noise) * q)
    return -torch.sigmoid(d[t]).log() - sum(torch.sigmoid(-d[j]).log() for j in noise)


def negative(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    return -torch.sigmoid(s[t]).log() - sum(torch.sigmoid(-s[j]).log() for j in noise)


def blackout_of(s: Tensor, t: int, noise: list[int], q: Tensor, merged: int = 0) -> Tensor:
    u = s.exp() / q
    u_t = u[t] * (1 + merged)
    total = u_t + sum(u[j] for j in noise)
    return -torch.log(u_t / total) - sum(torch.log(1 - u[j] / total) for j in noise)


def blackout(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    return blackout_of(s, t, [j for j in noise if j != t], q)


def blackout_merged(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    return blackout_of(s, t, [j for j in noise if j != t], q, noise.count(t))


def self_normalized(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    return full(s, t, noise, q) + ALPHA * s.logsumexp(0) ** 2


# --- the gradients, in closed form ----------------------------------------------------------------------------------


def full_gradient(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    g = s.softmax(0).clone()
    g[t] -= 1
    return g


def importance_gradient(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    r = s.exp() / q
    g = torch.zeros_like(s)
    g[t] -= 1
    for j in noise:
        g[j] += r[j] / sum(r[i] for i in noise)
    return g


def nce_gradient(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    k, g = len(noise), torch.zeros_like(s)
    g[t] -= k * q[t] / ((s[t] - LEARNED).exp() + k * q[t])
    for j in noise:
        g[j] += torch.sigmoid(s[j] - LEARNED - torch.log(k * q[j]))
    return g


def negative_gradient(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    g = torch.zeros_like(s)
    g[t] -= 1 - torch.sigmoid(s[t])
    for j in noise:
        g[j] += torch.sigmoid(s[j])
    return g


def blackout_gradient(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    rest = [j for j in noise if j != t]
    u = s.exp() / q
    p = u / (u[t] + sum(u[j] for j in rest))
    n, a = len(rest), sum(1 / (1 - p[j]) for j in rest)
    g = torch.zeros_like(s)
    g[t] += -1 + p[t] * (1 + n - a)
    for j in rest:
        g[j] += p[j] * (1 + n - a + 1 / (1 - p[j]))
    return g


def self_normalized_gradient(s: Tensor, t: int, noise: list[int], q: Tensor) -> Tensor:
    g = s.softmax(0) * (1 + 2 * ALPHA * s.logsumexp(0))
    g[t] -= 1
    return g


Formula = Callable[[Tensor, int, list[int], Tensor], Tensor]


class Objective(NamedTuple):
    """A layer, its loss as written in its paper, and the gradient in closed form where there is one."""

    layer: str
    loss: Formula
    gradient: Formula | None = None
    options: dict[str, Any] = {}  # noqa: RUF012  never changed

    def build(self, noise: Any) -> Any:
        torch.manual_seed(2)
        drawn = self.layer not in {"full", "self-normalized"}
        words = {"noise": noise, "num_samples": K, "num_splits": N} if drawn else {}
        layer = build_output(self.layer, H, V, options=words | self.options).double()
        with torch.no_grad():
            layer.weight.normal_()
            layer.bias.normal_()
        return layer

    def __str__(self) -> str:
        return self.loss.__name__


OBJECTIVES = [
    Objective("full", full, full_gradient),
    Objective("importance", importance, importance_gradient),
    Objective("importance-target", importance_target),
    Objective("sampled", sampled),
    Objective("sampled", sampled_removed, None, {"remove_accidental_hits": True}),
    Objective("nce", nce, nce_gradient, {"log_z_init": LEARNED}),
    Objective("nce", nce, nce_gradient, {"log_z": "learned", "log_z_init": LEARNED}),
    Objective("negative", negative, negative_gradient),
    Objective("blackout", blackout, blackout_gradient),
    Objective("blackout", blackout_merged, None, {"remove_accidental_hits": "merge"}),
    Objective("blackout", blackout_of, None, {"remove_accidental_hits": False}),
    Objective("self-normalized", self_normalized, self_normalized_gradient, {"alpha": ALPHA}),
]


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden (N, H), target (N,), noise words (N, K) with repeats in each row and hits in most, q (V,)."""
    generator = torch.Generator().manual_seed(5)
    q = torch.rand(V, dtype=torch.float64, generator=generator) + 0.05
    ids = torch.randint(V, (N, K), generator=generator)
    ids[:, 1] = ids[:, 0]
    target = ids[torch.arange(N), torch.randint(K, (N,), generator=generator)]
    target[0] = (ids[0].max() + 1) % V  # and one row without a hit
    ids[1, :3] = target[1]  # three hits
    hidden = torch.randn(N, H, dtype=torch.float64, generator=generator)
    return hidden, target, ids, q / q.sum()


@pytest.mark.parametrize("form", ["cpp", None, "reference"], ids=["fused", "plain", "by rows"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_losses_and_gradients_are_those_of_the_paper(
    objective: Objective, form: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the compiled pass of a CPU, by plain operations, and the way a GPU goes."""
    monkeypatch.setattr("karui.output.flat.fused_form", lambda *_: form)
    hidden, target, ids, q = problem()
    layer = objective.build(Drawn(q, ids))
    hidden.requires_grad_()
    losses = layer(hidden, target, reduction="none")
    ramp = torch.linspace(0.5, 2.0, N, dtype=torch.float64)
    (losses * ramp).sum().backward()
    found = [hidden.grad, layer.weight.grad, layer.bias.grad]
    hidden.grad = layer.weight.grad = layer.bias.grad = None
    # The same through autograd of the formula, position by position.
    rows = hidden @ layer.weight.t() + layer.bias
    literal = torch.stack([objective.loss(rows[n], int(target[n]), ids[n].tolist(), q) for n in range(N)])
    assert (losses - literal).abs().max() < 1e-12 * literal.abs().max()
    (literal * ramp).sum().backward()
    for a, b in zip(found, [hidden.grad, layer.weight.grad, layer.bias.grad], strict=True):
        assert (a - b).abs().max() < 1e-12 * max(1.0, float(b.abs().max()))
    if objective.gradient is None:
        return
    s = rows.detach()
    closed = torch.stack([objective.gradient(s[n], int(target[n]), ids[n].tolist(), q) for n in range(N)])
    closed *= ramp.unsqueeze(1)
    expected = [closed @ layer.weight.detach(), closed.t() @ hidden.detach(), closed.sum(0)]
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 1e-10


def test_a_sum_is_not_left_empty() -> None:
    hits = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="hits are left out of sums that hold the target only"):
        ranking_losses(torch.zeros(2), torch.zeros(2, 3), torch.zeros(1, 3), hits, inside=False)
    losses = ranking_losses(torch.tensor([1.0, -200.0]), torch.full((2, 3), 9.0), torch.zeros(1, 3), hits)
    assert torch.equal(losses, torch.zeros(2))  # the target alone


def test_the_learned_normaliser_has_its_gradient() -> None:
    hidden, target, ids, q = problem()
    layer = Objective("nce", nce, None, {"log_z": "learned", "log_z_init": LEARNED}).build(Drawn(q, ids))
    layer(hidden, target, reduction="sum").backward()
    s = (hidden @ layer.weight.t() + layer.bias).detach()
    expected = torch.zeros((), dtype=torch.float64)
    for n in range(N):
        d = s[n] - LEARNED - torch.log(K * q)
        expected += (1 - torch.sigmoid(d[target[n]])) - torch.sigmoid(d[ids[n]]).sum()
    assert (layer.log_z_offset.grad - expected).abs() < 1e-10


@pytest.mark.parametrize(
    ("name", "options"),
    [("sampled", {"remove_accidental_hits": True}), ("importance-target", {}), ("importance", {})],
)
def test_every_word_once_is_the_full_softmax(name: str, options: dict[str, Any]) -> None:
    hidden, target, _, _ = problem()
    found = []
    for layer in (
        build_output(name, H, V, options=options | {"noise": EveryWord(V), "num_samples": V}),
        build_output("full", H, V),
    ):
        layer = layer.double()
        with torch.no_grad():
            layer.weight.copy_(torch.randn(V, H, generator=torch.Generator().manual_seed(3)))
        x = hidden.clone().requires_grad_()
        loss = layer(x, target)
        loss.backward()
        found.append([loss.detach(), x.grad, layer.weight.grad, layer.bias.grad])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 1e-12


def test_large_numbers_of_samples_lead_to_the_likelihood() -> None:
    """NCE of a normalised model, noise in exact proportion: each step to ten times as many samples costs a tenth."""
    s = torch.tensor([1.0, 0.3, -0.5, -1.2], dtype=torch.float64).log_softmax(0)
    q, t = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64), 2
    wanted, errors = s.softmax(0), []
    wanted[t] -= 1
    for k in (10, 100, 1000, 10_000):
        ids = torch.arange(4).repeat_interleave((q * k).round().long()).unsqueeze(0)
        layer = build_output("nce", 1, 4, options={"noise": Drawn(q, ids), "num_samples": k}).double()
        with torch.no_grad():
            layer.bias.copy_(s)
        layer(torch.zeros(1, 1, dtype=torch.float64), torch.tensor([t])).backward()
        errors.append(float((layer.bias.grad - wanted).abs().max()))
    assert errors[0] < 0.2
    for before, after in pairwise(errors):
        assert after < 0.15 * before


def test_extreme_scores_stay_finite() -> None:
    """One noise word that takes all the mass, and targets that have none."""
    for name in ("importance", "importance-target", "sampled", "nce", "negative", "blackout"):
        for scale in (30.0, 300.0):
            layer = build_output(name, 1, 5, options={"num_samples": 6})
            with torch.no_grad():
                layer.weight.copy_(torch.tensor([[0.0], [1.0], [2.0], [-1.0], [-2.0]]))
            hidden = torch.tensor([[scale], [-scale], [scale]], requires_grad=True)
            torch.manual_seed(1)
            loss = layer(hidden, torch.tensor([4, 2, 2]))
            loss.backward()
            assert math.isfinite(loss.item()), name
            assert hidden.grad.isfinite().all(), name
            assert layer.weight.grad.isfinite().all(), name
