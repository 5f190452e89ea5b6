"""What every sparsifying method promises, for every layer it takes; a new layer or method is one row of CASES."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from karui.nn import GRU, LSTM, SRU
from karui.nn.min_gru import MinGRU
from karui.nn.qrnn import QRNN
from karui.nn.statistical import StatisticalRecurrentUnit
from karui.sparse import (
    HardConcrete,
    SparseVariationalDropout,
    density,
    harden,
    keep_mask,
    penalty,
    sparsify,
    words_kept,
)
from karui.sparse.division import Axis
from karui.sparse.layers import SparseEmbedding, SparseLayer, SparseLinear, SparseRecurrent


class Case(NamedTuple):
    """A recurrent layer inside a small model of one's own, and the groups."""

    recurrent: type[nn.Module]
    groups: tuple[str, ...] = ("word", "neuron")
    options: dict[str, Any] = {}  # noqa: RUF012  never changed


CASES = [
    *(Case(kind) for kind in (SRU, LSTM, GRU, QRNN, MinGRU, nn.LSTM, nn.GRU)),
    Case(StatisticalRecurrentUnit, options={"num_stats": 6, "recur_size": 3}),
    Case(QRNN, ("word",), {"window": 2, "bidirectional": True}),
    Case(SRU, ("word",), {"variant": "v1", "layer_norm": "post", "input_rank": 3}),
    Case(nn.LSTM, (), {"num_layers": 2, "bidirectional": True}),
    Case(SRU, ("word",), {"num_layers": 2, "bidirectional": True}),
]
every_case = pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda c: f"{c.recurrent.__module__.split('.')[0]}-{c.recurrent.__name__}-{len(c.groups)}",
)


class Tagger(nn.Module):
    """Embedding, recurrence and linear layer, as a user would write it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 6, padding_idx=0)
        self.recurrent = case.recurrent(6, 5, **case.options)
        self.output = nn.Linear(10 if case.options.get("bidirectional") else 5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.output(self.recurrent(self.embedding(ids))[0])


def trained(case: Case) -> nn.Module:
    """A sparse model with about half of its weights pruned."""
    torch.manual_seed(2)
    model = sparsify(Tagger(case), SparseVariationalDropout(groups=case.groups))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("log_sigma2"):
                parameter.copy_(torch.randn_like(parameter) * 3)
            elif not name.endswith("mean"):
                parameter.copy_(torch.randn_like(parameter))
    return model


IDS = torch.randint(0, 30, (7, 4), generator=torch.Generator().manual_seed(1))


@every_case
def test_penalty_is_positive_and_reaches_every_sparse_parameter(case: Case) -> None:
    model = trained(case)
    total = penalty(model)
    assert total.isfinite()
    assert total > 0
    total.backward()
    for name, layer in model.named_modules():
        if isinstance(layer, SparseLayer):
            for parameter, mean, state in layer.states():
                assert mean.grad.count_nonzero() > 0, (name, parameter)
                assert all(p.grad.count_nonzero() > 0 for p in state.parameters()), (name, parameter)


@every_case
def test_masks_agree_with_density_and_with_the_masked_model(case: Case) -> None:
    model = trained(case).eval()
    masks = keep_mask(model)
    assert all(mask.dtype == torch.bool for mask in masks.values())
    kept, total = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
    assert density(model) == kept / total
    assert 0.05 < density(model) < 0.95
    plain = harden(model)
    assert not any(isinstance(module, SparseLayer) for module in plain.modules())
    weights = dict(plain.named_parameters())
    for name, mask in masks.items():
        assert mask.shape == weights[name].shape
        alive = weights[name] != 0
        if name.startswith("embedding"):
            assert not alive[0].any()
            alive[0] = mask[0]
        assert torch.equal(alive, mask), name
    assert words_kept(model) == int(masks["embedding.weight"].any(1).sum())
    assert torch.equal(plain(IDS), model(IDS))
    assert type(plain.recurrent) is case.recurrent


@every_case
def test_evaluation_is_deterministic_and_training_is_not(case: Case) -> None:
    model = trained(case)
    assert not torch.equal(model(IDS), model(IDS))
    assert torch.equal(model.eval()(IDS), model(IDS))


@every_case
def test_one_sample_is_shared_by_all_steps_and_sequences(case: Case) -> None:
    """The same ids in two sequences of a batch give the same numbers; the next mini-batch gives others."""
    model = trained(case)
    twins = IDS[:, :1].expand(-1, 2).contiguous()
    first = model(twins)
    assert (first[:, 0] - first[:, 1]).abs().max() < 1e-5 * first.abs().max()
    assert (first - model(twins)).abs().max() > 1e-2


@every_case
def test_state_dict_round_trip(case: Case) -> None:
    model = trained(case).eval()
    other = sparsify(Tagger(case), SparseVariationalDropout(groups=case.groups)).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(IDS), model(IDS))


@every_case
def test_biases_and_wrapped_parameters_survive(case: Case) -> None:
    """torch's layers read a list of weights beside their parameters: it must be whole again after a call."""
    model = trained(case)
    model(IDS)
    base = model.recurrent.base
    for name, parameter in base.named_parameters():
        assert getattr(base, name) is parameter
    if hasattr(base, "_flat_weights"):
        assert all(a is b for a, b in zip(base._flat_weights, base.parameters(), strict=True))
    model(IDS).sum().backward()
    assert all(p.grad is not None for n, p in base.named_parameters()), (
        "every parameter of the base is trained"
    )


@every_case
def test_a_tiny_task_is_learned_and_made_sparse(case: Case) -> None:
    """Copy the class of the last word: only 3 of 29 words matter, the rest must go."""
    torch.manual_seed(0)
    model = sparsify(Tagger(case), SparseVariationalDropout(groups=case.groups, log_sigma_init=-4.0))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for step in range(300):
        ids = torch.randint(4, 30, (3, 32))
        labels = torch.randint(0, 3, (32,))
        ids[-1] = labels + 1
        loss = (
            nn.functional.cross_entropy(model(ids)[-1], labels) + min(1.0, step / 100) * penalty(model) / 3000
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    labels = torch.arange(3).repeat(20)
    ids = torch.randint(4, 30, (3, 60))
    ids[-1] = labels + 1
    assert (model(ids)[-1].argmax(1) == labels).float().mean() > 0.95
    assert words_kept(model) < 20
    assert density(model) < 0.6


def test_rows_drawn_alone_have_the_distribution_of_the_whole_draw() -> None:
    """Mean and variance of 20,000 draws of some rows agree with those of draws of the whole table."""
    torch.manual_seed(0)
    method = SparseVariationalDropout(groups=("word",), log_sigma_init=-1.0)
    weight = torch.randn(6, 3)
    state = method.weight(weight, {"row": Axis((6, 3), 0)})
    rows, n = torch.tensor([1, 4]), 20_000
    with torch.no_grad():
        whole = torch.stack([state.sample(weight)[rows] for _ in range(n)])
        alone = torch.stack([state.sample(weight, rows) for _ in range(n)])
    error = (whole.var(0) / n).sqrt()
    assert ((whole.mean(0) - alone.mean(0)).abs() < 5 * 2**0.5 * error).all()
    assert ((whole.var(0) / alone.var(0) - 1).abs() < 0.1).all()
    sigma2 = torch.exp(torch.tensor(-2.0))
    expected = (weight[rows] ** 2 + sigma2) * (1 + sigma2) - weight[
        rows
    ] ** 2  # product of two independent draws
    assert ((alone.var(0) / expected - 1).abs() < 0.1).all()


def test_local_reparametrisation_has_the_moments_of_weight_draws() -> None:
    torch.manual_seed(0)
    state = SparseVariationalDropout(groups=(), log_sigma_init=-0.5).weight(torch.zeros(2, 4))
    weight, x, n = torch.randn(2, 4), torch.randn(1, 4), 40_000
    with torch.no_grad():
        local = state.product(x.expand(n, 4), weight, None)
        drawn = torch.stack([x[0] @ state.sample(weight).t() for _ in range(n)])
    assert ((local.mean(0) - drawn.mean(0)).abs() < 5 * 2**0.5 * (drawn.var(0) / n).sqrt()).all()
    assert ((local.var(0) / drawn.var(0) - 1).abs() < 0.05).all()


def test_linear_shares_one_sample_where_the_input_has_a_time_axis() -> None:
    layer = sparsify(nn.Linear(4, 3), SparseVariationalDropout(groups=()))
    assert isinstance(layer, SparseLinear)
    x = torch.randn(1, 4).expand(6, 4)
    assert not torch.equal(layer(x)[0], layer(x)[1]), "two-dimensional input: a draw a row"
    shared = layer(x.view(2, 3, 4))
    assert torch.equal(shared[0, 0], shared[1, 2])


def test_threshold_is_a_parameter() -> None:
    counts = []
    for threshold in (-2.0, 3.0, 30.0):
        model = sparsify(nn.Linear(40, 40), SparseVariationalDropout(groups=(), threshold=threshold))
        with torch.no_grad():
            model.weights["weight"].log_sigma2.copy_(torch.linspace(-8, 8, 1600).view(40, 40))
        counts.append(int(keep_mask(model)["weight"].sum()))
    assert counts[0] < counts[1] < counts[2] == 1600


def test_padding_row_stays_zero_and_untrained() -> None:
    layer = sparsify(nn.Embedding(5, 3, padding_idx=0), SparseVariationalDropout())
    assert isinstance(layer, SparseEmbedding)
    output = layer(torch.tensor([0, 2, 0]))
    assert output[[0, 2]].count_nonzero() == 0
    output.sum().backward()
    assert layer.base.weight.grad[0].count_nonzero() == 0
    assert layer.base.weight.grad[2].count_nonzero() == 3


@pytest.mark.parametrize("words", [5, 40, 4000])
def test_an_embedding_draws_each_word_of_a_batch_once(words: int) -> None:
    """By a table of all words where that is short, by a sort where it is not: the same rows."""
    torch.manual_seed(1)
    layer = sparsify(nn.Embedding(words, 3), HardConcrete(groups=("word",))).train()
    ids = torch.randint(0, words, (7, 9), dtype=torch.int32)
    torch.manual_seed(2)
    found = layer(ids)
    torch.manual_seed(2)
    rows, inverse = torch.unique(ids, return_inverse=True)
    state = layer.weights["weight"]
    assert torch.equal(found, state.sample(layer.base.weight, rows, shared=layer.drawn())[inverse])
    for out_of_range in (-1, words):
        with pytest.raises((IndexError, RuntimeError)):
            layer(torch.full((words, 2), out_of_range))


def test_what_cannot_be_done_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="holds no Linear, Embedding or recurrent layer"):
        sparsify(nn.Sequential(nn.ReLU()), SparseVariationalDropout())
    with pytest.raises(ValueError, match="groups must be among .* got .'gates'"):
        SparseVariationalDropout(groups=("gates",))
    with pytest.raises(ValueError, match="exclude names 'head'"):
        sparsify(nn.Sequential(nn.Linear(2, 2)), SparseVariationalDropout(), exclude=("head",))
    with pytest.raises(ValueError, match="sparse already"):
        sparsify(
            sparsify(nn.Sequential(nn.Linear(2, 2)), SparseVariationalDropout()), SparseVariationalDropout()
        )
    with pytest.raises(ValueError, match="no sparse layer"):
        penalty(nn.Linear(2, 2))


def test_excluded_layers_stay_dense() -> None:
    model = sparsify(Tagger(CASES[0]), SparseVariationalDropout(), exclude=("output",))
    assert type(model.output) is nn.Linear
    assert isinstance(model.recurrent, SparseRecurrent)
