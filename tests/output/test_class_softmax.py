"""Two-level softmax: its clusters, its definition, its sparse gradients and bounded search."""

import pytest
import torch
from torch.nn import functional as F

from karui.output.class_softmax import ClassSoftmax, cluster_borders

V, H = 300, 7
COUNTS = torch.randint(0, 2000, (V,), generator=torch.Generator().manual_seed(5))


def trained_like(**words) -> ClassSoftmax:
    torch.manual_seed(1)
    layer = ClassSoftmax(H, COUNTS, **words).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += torch.randn(parameter.shape)
    return layer


def test_clusters_hold_equal_shares_of_the_roots() -> None:
    masses = (1e6 / torch.arange(1, 10_001)).long()
    borders = cluster_borders(masses, 100)
    assert len(borders) == 101
    shares = torch.stack(
        [part.double().sqrt().sum() for part in masses.split(torch.tensor(borders).diff().tolist())]
    )
    assert (shares / shares.sum() * 100 - 1).abs().max() <= 0.6  # the first word alone is a share and a half
    assert cluster_borders(torch.tensor([10_000, 1, 1, 1]), 4) == [0, 1, 4]  # one word fills three shares
    assert cluster_borders(torch.ones(6), 3) == [0, 2, 4, 6]
    assert cluster_borders(torch.ones(6), 1) == [0, 6]
    assert len(ClassSoftmax(2, 400).borders) - 1 == 20


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_losses_and_gradients_are_those_of_the_definition(bias, sparse) -> None:
    layer = trained_like(bias=bias, sparse=sparse)
    hidden, target = torch.randn(40, H, dtype=torch.float64, requires_grad=True), torch.randint(V, (40,))
    losses = []
    for h, word in zip(hidden, target.tolist(), strict=True):
        rank = int((layer.order == word).nonzero())
        cluster = next(c for c, end in enumerate(layer.borders[1:]) if rank < end)
        first, end = layer.borders[cluster : cluster + 2]
        scores = layer.weight[first:end] @ h + (0 if layer.bias is None else layer.bias[first:end])
        losses.append(-layer.cluster(h).log_softmax(0)[cluster] - scores.log_softmax(0)[rank - first])
    ramp = torch.linspace(-1, 1, 40, dtype=torch.float64)
    inputs = [hidden, *layer.parameters()]
    found, expected = layer(hidden, target, reduction="none"), torch.stack(losses)
    assert (found - expected).abs().max() <= 1e-12
    pairs = zip(
        torch.autograd.grad((found * ramp).sum(), inputs),
        torch.autograd.grad((expected * ramp).sum(), inputs),
        strict=True,
    )
    for a, b in pairs:
        assert (a.to_dense() - b).abs().max() <= 1e-12


def test_sparse_gradients_hold_the_clusters_met() -> None:
    layer = trained_like(sparse=True)
    word = int(layer.order[200])
    layer(torch.randn(3, H, dtype=torch.float64), torch.full((3,), word)).backward()
    cluster = int(layer.cluster_of[200])
    for parameter in layer.sparse_parameters():
        rows = parameter.grad.coalesce().indices()[0].tolist()
        assert rows == list(range(*layer.borders[cluster : cluster + 2]))
    assert len(layer.sparse_parameters()) == 2
    assert trained_like().sparse_parameters() == []


@pytest.mark.parametrize("k", [1, 10, V])
def test_topk_leaves_clusters_closed(monkeypatch, k) -> None:
    layer, hidden = trained_like(), torch.randn(25, H, dtype=torch.float64)
    with torch.no_grad():
        layer.cluster.weight *= 3  # a model that knows where to look
    monkeypatch.setattr("karui.output.class_softmax.TOPK_WORDS", 25)
    opened = []
    plain = ClassSoftmax._clusters_log_prob
    monkeypatch.setattr(
        ClassSoftmax,
        "_clusters_log_prob",
        lambda s, h, p, c: opened.append(len(h) * len(c)) or plain(s, h, p, c),
    )
    values, ids = layer.log_prob(hidden).topk(k)
    found, places = layer.topk(hidden, k)
    assert (found - values).abs().max() <= 1e-12
    assert torch.equal(places, ids)
    every = 25 * (len(layer.borders) - 1)
    assert sum(opened) == every if k == V else sum(opened) < 0.6 * every
    assert layer.topk(torch.full((2, H), torch.nan, dtype=torch.float64), k)[0].isnan().all()


def test_the_first_model_is_the_unigram() -> None:
    layer = ClassSoftmax(H, COUNTS)
    unigram = COUNTS.clamp_min(1).double().log().log_softmax(0)
    assert (layer.log_prob(torch.zeros(H)) - unigram).abs().max() <= 1e-5


def test_one_cluster_is_the_plain_softmax() -> None:
    layer = trained_like(n_clusters=1)
    hidden, target = torch.randn(9, H, dtype=torch.float64), torch.randint(V, (9,))
    logits = F.linear(hidden, layer.weight, layer.bias)
    expected = F.cross_entropy(logits, layer.rank[target])
    assert (layer(hidden, target) - expected).abs() <= 1e-12


@pytest.mark.parametrize("wrong", [0, V + 1, 2.5, "many"])
def test_wrong_numbers_of_clusters_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"n_clusters must be 'auto' or in \[1, 300\], got"):
        ClassSoftmax(H, COUNTS, n_clusters=wrong)
