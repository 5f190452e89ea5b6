"""Hierarchical softmax beside a literal transcription, and what only it promises."""

import pytest
import torch
from torch import Tensor

from karui.output.hierarchical import HierarchicalSoftmax

COUNTS = torch.tensor([5, 0, 71, 3, 1, 9, 30, 2, 2, 250, 1, 4, 8, 0, 6, 13, 1, 40, 7, 3])
V, H = len(COUNTS), 6


def layer_and_input(**words) -> tuple[HierarchicalSoftmax, Tensor, Tensor]:
    torch.manual_seed(2)
    layer = HierarchicalSoftmax(H, COUNTS, **words).double()
    with torch.no_grad():
        layer.weight += torch.randn(layer.weight.shape)
    return layer, torch.randn(30, H, dtype=torch.float64, requires_grad=True), torch.randint(V, (30,))


def literal_nll(layer: HierarchicalSoftmax, hidden: Tensor, target: Tensor) -> Tensor:
    """-sum over the path of log sigmoid(d s), walking up from each word by the links alone."""
    losses = []
    for h, word in zip(hidden, target.tolist(), strict=True):
        up, loss = int(layer.tree.parent[V - 1 + word]), h.new_zeros(())
        while up >= 0:
            node, d = up // 2, 1 - 2 * (up % 2)
            score = layer.weight[node] @ h + (0 if layer.bias is None else layer.bias[node])
            loss = loss - torch.log(torch.sigmoid(d * score))
            up = int(layer.tree.parent[node])
        losses.append(loss)
    return torch.stack(losses)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_losses_and_gradients_are_those_of_the_definition(bias, sparse) -> None:
    layer, hidden, target = layer_and_input(bias=bias, sparse=sparse)
    ramp = torch.linspace(-1, 1, 30, dtype=torch.float64)
    inputs = [hidden, *layer.parameters()]
    found = layer(hidden, target, reduction="none")
    expected = literal_nll(layer, hidden, target)
    assert (found - expected).abs().max() <= 1e-12
    pairs = zip(
        torch.autograd.grad((found * ramp).sum(), inputs),
        torch.autograd.grad((expected * ramp).sum(), inputs),
        strict=True,
    )
    for index, (a, b) in enumerate(pairs):
        assert a.is_sparse == (sparse and index > 0)
        assert (a.to_dense() - b).abs().max() <= 1e-12


def test_the_first_model_is_the_unigram() -> None:
    layer = HierarchicalSoftmax(H, COUNTS)
    unigram = COUNTS.clamp_min(1).double().log().log_softmax(0)
    assert (layer.log_prob(torch.zeros(H)) - unigram).abs().max() <= 1e-5


def test_sparse_is_automatic_and_named() -> None:
    large, small = HierarchicalSoftmax(2, 50_000), HierarchicalSoftmax(2, 49_999)
    assert {id(p) for p in large.sparse_parameters()} == {id(large.weight), id(large.bias)}
    assert small.sparse_parameters() == []
    large(torch.randn(4, 2), torch.tensor([1, 5, 5, 40_000])).backward()
    assert large.weight.grad.is_sparse
    assert large.weight.grad._nnz() < 60
    with pytest.raises(ValueError, match="sparse must be True, False or 'auto', got 'yes'"):
        HierarchicalSoftmax(2, 5, sparse="yes")


def test_a_long_code_and_many_positions() -> None:
    counts = torch.tensor([2**i for i in range(61)])
    layer = HierarchicalSoftmax(H, counts)
    hidden = torch.randn(500, H)
    target = torch.randint(61, (500,))
    expected = -layer.log_prob(hidden).gather(1, target[:, None])[:, 0]
    assert (layer.nll(hidden, target, reduction="none") - expected).abs().max() <= 1e-3
    values, ids = layer.log_prob(hidden).topk(7)
    found, places = layer.topk(hidden, 7)
    assert (found - values).abs().max() <= 1e-4
    assert (places == ids).double().mean() > 0.99  # two may be equal in float32


def test_weights_of_other_counts_are_refused() -> None:
    layer = HierarchicalSoftmax(H, COUNTS)
    with pytest.raises(
        RuntimeError, match="counts differ from those that this HierarchicalSoftmax was built from"
    ):
        HierarchicalSoftmax(H, COUNTS.flip(0)).load_state_dict(layer.state_dict())


def test_nothing_can_be_tied() -> None:
    from karui.output import build_output

    for name in ("huffman", "class", "adaptive"):
        with pytest.raises(ValueError, match=f"{name} takes no weight="):
            build_output(name, H, COUNTS, weight=torch.nn.Parameter(torch.zeros(V, H)))
