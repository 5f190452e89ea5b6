"""Adaptive softmax beside torch's own, and what only karui's has."""

import pytest
import torch
from torch import nn

from karui.output import adaptive_parts
from karui.output.adaptive import AdaptiveSoftmax

V, H = 300, 40


def torch_and_own(*, head_bias: bool = True, cutoffs: tuple[int, ...] = (20, 90)):
    torch.manual_seed(3)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(H, V, list(cutoffs), div_value=3.0, head_bias=head_bias)
    return theirs, AdaptiveSoftmax.from_torch(theirs)


@pytest.mark.parametrize("head_bias", [True, False])
@pytest.mark.parametrize("cutoffs", [(20,), (20, 90), (1, 2, 299)])
def test_equal_weights_give_torchs_losses_and_gradients(head_bias, cutoffs) -> None:
    theirs, own = torch_and_own(head_bias=head_bias, cutoffs=cutoffs)
    hidden, target = torch.randn(64, H, requires_grad=True), torch.randint(V, (64,))
    output, loss = theirs(hidden, target)
    found = own(hidden, target)
    assert abs(found - loss) <= 1e-5
    assert (own.nll(hidden, target, reduction="none") + output).abs().max() <= 1e-5
    assert (own.log_prob(hidden) - theirs.log_prob(hidden)).abs().max() <= 1e-5
    assert torch.equal(own.predict(hidden), theirs.predict(hidden))
    (of_theirs,), (of_own,) = (torch.autograd.grad(x, [hidden], retain_graph=True) for x in (loss, found))
    assert (of_theirs - of_own).abs().max() <= 1e-6
    loss.backward()
    found.backward()
    for (name, a), (other, b) in zip(theirs.named_parameters(), own.named_parameters(), strict=True):
        assert name == other
        assert a.grad is None if b.grad is None else (a.grad - b.grad).abs().max() <= 1e-6


def test_there_and_back() -> None:
    theirs, own = torch_and_own()
    again = own.to_torch()
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), again.parameters(), strict=True))
    wide = AdaptiveSoftmax(H, torch.randint(9, (V,)), cutoffs=[20, 90], bias=False, min_dim=16).to_torch()
    hidden = torch.randn(5, H)
    assert (wide.log_prob(hidden).logsumexp(1)).abs().max() <= 1e-5
    with pytest.raises(ValueError, match="no bias in its tails; build the layer with bias=False"):
        AdaptiveSoftmax(H, V, cutoffs=[20]).to_torch()
    with pytest.raises(ValueError, match="needs at least one cut-off"):
        AdaptiveSoftmax(H, V, cutoffs=[]).to_torch()


def test_ids_may_come_in_any_order() -> None:
    counts = torch.randperm(V) + 1
    own = AdaptiveSoftmax(H, counts, cutoffs=[20, 90], bias=False)
    theirs = own.to_torch()
    hidden, target = torch.randn(7, 3, H), torch.randint(V, (7, 3))
    target[2, 1] = -100
    ranks = own.rank[target.clamp_min(0)]
    expected = theirs.log_prob(hidden.view(-1, H)).view(7, 3, V)
    assert (own.log_prob(hidden).gather(2, own.order.expand(7, 3, V)) - expected).abs().max() <= 1e-5
    losses = -expected.gather(2, ranks[..., None])[..., 0]
    losses[2, 1] = 0
    assert (own(hidden, target, reduction="none") - losses).abs().max() <= 1e-5
    assert counts[own.order[0]] == V


def test_tails_are_no_narrower_than_min_dim() -> None:
    layer = AdaptiveSoftmax(256, 1000, cutoffs=[10, 100, 400])
    assert [tail[0].out_features for tail in layer.tail] == [64, 32, 32]
    layer = AdaptiveSoftmax(256, 1000, cutoffs=[10, 100, 400], min_dim=1, div_value=2)
    assert [tail[0].out_features for tail in layer.tail] == [128, 64, 32]
    assert AdaptiveSoftmax(8, 1000, cutoffs=[10]).tail[0][0].out_features == 8


def test_the_first_model_is_the_unigram() -> None:
    counts = torch.randint(0, 500, (V,))
    layer = AdaptiveSoftmax(H, counts, cutoffs=[20, 90])
    unigram = counts.clamp_min(1).double().log().log_softmax(0)
    assert (layer.log_prob(torch.zeros(H)) - unigram).abs().max() <= 1e-5


@pytest.mark.parametrize("k", [1, 10, 25, V])
def test_topk_opens_only_the_tails_that_can_matter(monkeypatch, k) -> None:
    layer = AdaptiveSoftmax(H, (1e6 / (torch.arange(V) + 1) ** 1.5).long(), cutoffs=[20, 90])
    opened = []
    plain = AdaptiveSoftmax.tail_log_prob
    monkeypatch.setattr(
        AdaptiveSoftmax, "tail_log_prob", lambda s, i, h: opened.append((i, len(h))) or plain(s, i, h)
    )
    hidden = torch.randn(30, H)
    values = layer.log_prob(hidden).topk(k).values
    opened.clear()
    found, places = layer.topk(hidden, k)
    assert k > 1 or opened == []  # the first word beats both tails
    assert k < 25 or len(opened) == 2
    assert (found - values).abs().max() <= 1e-5  # products of other shapes round otherwise
    assert (layer.log_prob(hidden).gather(1, places) - values).abs().max() <= 1e-5
    monkeypatch.setattr(adaptive_parts, "CHUNK_NUMBERS", 500)  # a few rows at a time
    again = layer.topk(hidden, k)
    assert (again[0] - found).abs().max() <= 1e-5
    assert (again[1] == places).double().mean() > 0.98
    assert layer.topk(torch.full((2, H), torch.nan), k)[0].isnan().all()


def test_a_tail_without_targets_gets_no_gradient_and_large_ones_sparse_gradients() -> None:
    layer = AdaptiveSoftmax(4, 60_000, cutoffs=[100, 5000])
    large = layer.tail[1][1]
    assert [id(p) for p in layer.sparse_parameters()] == [id(large.weight), id(large.bias)]
    layer(torch.randn(3, 4), torch.tensor([1, 2, 400])).backward()
    assert large.weight.grad is None
    assert not layer.tail[0][1].weight.grad.is_sparse
    hidden, target = torch.randn(3, 4), torch.tensor([1, 6000, 59_999])
    layer.zero_grad()
    layer(hidden, target).backward()
    assert large.weight.grad.is_sparse
    dense = AdaptiveSoftmax(4, 60_000, cutoffs=[100, 5000], sparse=False)
    dense.load_state_dict(layer.state_dict())
    dense(hidden, target).backward()
    for a, b in zip(layer.parameters(), dense.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad.to_dense(), b.grad)


def test_cutoffs_are_chosen_by_the_counts() -> None:
    layer = AdaptiveSoftmax(8, (1e6 / (torch.arange(6000) + 1)).long())
    assert layer.cutoffs[0] >= 2000
    assert f"cutoffs={layer.cutoffs}" in repr(layer)
    assert AdaptiveSoftmax(8, 50).cutoffs == []


@pytest.mark.parametrize("wrong", [[0, 5], [5, 5], [9, 3], [300], [1.5], "some"])
def test_wrong_cutoffs_are_refused(wrong) -> None:
    with pytest.raises(
        ValueError, match="cutoffs must be 'auto' or ascending integers between 1 and 299, got"
    ):
        AdaptiveSoftmax(H, V, cutoffs=wrong)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="div_value must be > 0, got 0"):
        AdaptiveSoftmax(H, V, div_value=0)
    with pytest.raises(ValueError, match="min_dim must be >= 1, got 0"):
        AdaptiveSoftmax(H, V, min_dim=0)
    with pytest.raises(
        RuntimeError, match="counts differ from those that this AdaptiveSoftmax was built from"
    ):
        AdaptiveSoftmax(H, torch.arange(V)).load_state_dict(AdaptiveSoftmax(H, V).state_dict())
