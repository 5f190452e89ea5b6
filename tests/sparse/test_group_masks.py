"""What is alive after thresholding, on matrices made by hand (Chirkova et al. 2018, Lobacheva et al. 2020)."""

import math

import pytest
import torch
from torch import nn

from karui.nn import SRU
from karui.sparse import (
    METHODS,
    HardConcrete,
    SparseVariationalDropout,
    harden,
    keep_mask,
    project,
    release,
    sparsify,
    words_kept,
)

ALIVE, DEAD = -6.0, 4.0  # log sigma^2 of a mean of 1: log alpha on either side of the threshold of 3


def set_units(parameter, dead):
    """Log variances of units (for log alpha of L0: the other way round): dead where named, alive elsewhere."""
    with torch.no_grad():
        parameter.fill_(ALIVE)
        for index in dead:
            parameter[index] = DEAD


def embedding(groups, *, dead_weights=(), dead_rows=(), dead_columns=()):
    layer = nn.Embedding(4, 3)
    nn.init.ones_(layer.weight)
    sparse = sparsify(layer, SparseVariationalDropout(groups=groups))
    state = sparse.weights["weight"]
    set_units(state.log_sigma2, dead_weights)
    for place, dead in (("row", dead_rows), ("column", dead_columns)):
        if place in state.places:
            set_units(state.get_submodule(place).log_sigma2, dead)
    return sparse


def test_a_word_is_alive_with_its_variable_and_a_weight():
    """Live variables and live rows differ: a word whose weights have all gone is none, whatever its variable says."""
    layer = embedding(("word",), dead_rows=[1], dead_weights=[2, (3, 0), (3, 2)])
    wanted = torch.tensor([[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0]], dtype=torch.bool)
    assert torch.equal(keep_mask(layer)["weight"], wanted)
    assert int(layer.weights["weight"].row.keep_mask().sum()) == 3
    assert words_kept(layer) == 2
    assert torch.equal(harden(layer).weight != 0, wanted)


def test_without_a_variable_a_word_is_alive_with_any_weight():
    layer = embedding(("weight",), dead_weights=[0, (1, 0), (1, 1)])
    assert words_kept(layer) == 3
    assert keep_mask(layer)["weight"].sum(1).tolist() == [0, 1, 3, 3]


def test_a_dimension_needs_its_variable_and_a_weight():
    layer = embedding(("word", "dimension"), dead_rows=[0], dead_columns=[2], dead_weights=[(1, 0)])
    wanted = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
    assert torch.equal(keep_mask(layer)["weight"], wanted)


class Reader(nn.Module):
    """Words, an LSTM of two units, one output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(4, 3)
        self.recurrent = nn.LSTM(3, 2)
        self.output = nn.Linear(2, 1)

    def forward(self, ids):
        return self.output(self.recurrent(self.embedding(ids))[0])


def reader(*, dead_gates=(), dead_words=(), dead_inputs=()):
    model = sparsify(Reader(), SparseVariationalDropout(groups=("word", "input", "gate")))
    with torch.no_grad():
        for layer in (model.embedding, model.recurrent, model.output):
            for _, mean, state in layer.states():
                mean.copy_(mean.sign() * mean.abs().clamp(min=0.3))
                state.log_sigma2.fill_(-12.0)
        for gates in (model.embedding.weights["weight"].row, model.recurrent.gates["gate_l0"]):
            set_units(
                gates.log_sigma2, dead_words if gates is not model.recurrent.gates["gate_l0"] else dead_gates
            )
        set_units(model.recurrent.weights["weight_hh_l0"].column.log_sigma2, dead_inputs)
        model.recurrent.base.bias_ih_l0.copy_(torch.linspace(-0.7, 0.7, 8))
    return model.eval()


IDS = torch.tensor([[0], [1], [2], [3], [1]])


def test_a_closed_gate_is_a_constant_of_its_bias():
    """act(z (Wx x + Wh h) + b) with z = 0: rows 0 and 5 of both matrices go at once, their biases stay."""
    model = reader(dead_gates=[0, 5])
    masks = keep_mask(model)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        assert masks[f"recurrent.{name}"].any(1).tolist() == [
            False,
            True,
            True,
            True,
            True,
            False,
            True,
            True,
        ]
    lstm = model.recurrent.base
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()
    plain = harden(model)
    x, h, c = plain.embedding(IDS)[:, 0], torch.zeros(2), torch.zeros(2)
    wanted = []
    for now in x:
        i, f, g, o = (plain.recurrent.weight_ih_l0 @ now + plain.recurrent.weight_hh_l0 @ h + bias).view(4, 2)
        i = torch.stack([bias[0], i[1]])  # the input gate of unit 0: a constant
        g = torch.stack([g[0], bias[5]])  # the candidate of unit 1: a constant
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        wanted.append(plain.output(h))
    assert (model(IDS)[:, 0] - torch.stack(wanted)).abs().max() < 1e-6


def test_a_unit_without_inputs_is_not_dead():
    """All four gates of unit 1 are constant: c_t = (1 - f^t) i g / (1 - f) still moves, and whoever reads it, stays."""
    model = reader(dead_gates=[1, 3, 5, 7])
    bias = (model.recurrent.base.bias_ih_l0 + model.recurrent.base.bias_hh_l0).detach().view(4, 2)[:, 1]
    i, f, o = torch.sigmoid(bias[[0, 1, 3]])
    steps = torch.arange(1, 6)
    cell = (1 - f**steps) * i * torch.tanh(bias[2]) / (1 - f)
    hidden = model.recurrent(model.embedding(IDS))[0][:, 0, 1]
    assert (hidden - o * torch.tanh(cell)).abs().max() < 1e-6
    assert (hidden.diff().abs() > 1e-4).all()
    masks = keep_mask(model)
    assert masks["recurrent.weight_hh_l0"][0, 1]
    assert masks["output.weight"][0, 1]


def test_a_pruned_word_still_advances_the_state():
    model = reader(dead_words=[1])
    with torch.no_grad():
        whole, skipped = model(IDS), model(IDS[[0, 2, 3]])
        x = harden(model).embedding(IDS)
        assert not x[1].any()
        assert not x[4].any()
        assert torch.allclose(model.output(model.recurrent(x)[0]), whole)
    assert (whole[3] - skipped[2]).abs().max() > 1e-3
    assert words_kept(model) == 3


def test_a_dead_input_unit_goes_reader_by_reader():
    masks = keep_mask(reader(dead_inputs=[0]))
    assert not masks["recurrent.weight_hh_l0"][:, 0].any()
    assert masks["recurrent.weight_hh_l0"][:, 1].all()
    assert masks["output.weight"].all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("group", "size"), [("16x1", (16, 1)), ("8x4", (8, 4))])
def test_blocks_are_pruned_whole_at_the_edges_too(method, group, size):
    torch.manual_seed(0)
    model = sparsify(nn.Linear(10, 36), METHODS[method](groups=(group,)))
    project(model, keep=150)
    if method == "vd":  # its single weights are pruned as well: look at the blocks' own masks
        mask = model.weights["weight"].block
        mask = mask.divisions[0].spread(mask.keep_mask())
    else:
        mask = keep_mask(model)["weight"]
    seen = set()
    for top in range(0, 36, size[0]):
        for left in range(0, 10, size[1]):
            block = mask[top : top + size[0], left : left + size[1]]
            assert block.all() or not block.any()
            seen.add(bool(block.any()))
    assert seen == {True, False} or method == "vd"


def test_one_factor_of_a_gate_scales_all_of_its_matrices_and_no_bias():
    torch.manual_seed(0)
    for layer in (nn.LSTM(3, 2), SRU(3, 2)):
        model = sparsify(layer, HardConcrete(groups=("gate",), drop_rate=0.5))
        before = {name: p.clone() for name, p in layer.named_parameters() if "bias" in name}
        first, second = model.current(), model.current()
        ratios = [first[name] / getattr(layer, name) for name in first]
        assert all(torch.allclose(each, ratios[0][:, :1].expand_as(each), atol=1e-6) for each in ratios)
        assert not torch.equal(first["weight_ih_l0"], second["weight_ih_l0"])
        assert not any(name in first for name in before)
        output = model(torch.ones(4, 2, 3))[0]
        assert torch.allclose(output[:, 0], output[:, 1])  # one draw for all sequences


def toy():
    """Two layers of very different sizes of weights, as a language model's embedding and output are."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 10))
    with torch.no_grad():
        model[1].weight.mul_(0.01)
    return model


def test_a_global_scope_empties_the_layer_of_small_weights_and_a_layers_own_does_not():
    shares = {}
    for scope in ("global", "layer"):
        model = sparsify(toy(), METHODS["magnitude"](scope=scope))
        project(model, keep=100)
        shares[scope] = [int(mask.sum()) for mask in keep_mask(model).values()]
    assert shares["global"] == [100, 0]
    assert shares["layer"] == [50, 50]


@pytest.mark.parametrize("regrow", [False, True])
def test_pruned_weights_keep_their_values_and_come_back_where_others_shrink(regrow):
    """As published they get no gradient (the default); with regrow they do."""
    assert METHODS["magnitude"]().regrow is False
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))
    model = sparsify(layer, METHODS["magnitude"](regrow=regrow)).train()
    project(model, keep=2)
    model(torch.ones(1, 4)).sum().backward()
    layer.weight.requires_grad_(requires_grad=False)
    assert layer.weight.grad.tolist() == [[float(regrow), float(regrow), 1.0, 1.0]]
    assert layer.weight.tolist() == [[1.0, -2.0, 3.0, -4.0]]
    layer.weight[0, 2] = 0.5
    assert float(model(torch.ones(1, 4))) == pytest.approx(-3.5)  # the mask stands still between renewals
    project(model, keep=2)
    assert keep_mask(model)["weight"].tolist() == [[False, True, False, True]]
    release(model)
    assert math.isclose(float(model(torch.ones(1, 4))), 1 - 2 + 0.5 - 4)
