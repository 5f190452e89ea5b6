"""FLOPs against counts by hand: every kind of layer, expected and deployed, along chains; a target is met in FLOPs."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from karui.compact.images import deliver
from karui.errors import UserError
from karui.nn.statistical import StatisticalRecurrentUnit
from karui.sparse import (
    METHODS,
    HardConcrete,
    factorise,
    gate_parameters,
    harden,
    keep_mask,
    kept_parameters,
    project,
    sparsify,
)
from karui.sparse.chains import chains
from karui.sparse.control import Control
from karui.sparse.flops import FlopCount, expected_flops, flops_of_step
from karui.targets import Target

DENSE = {
    "Linear": (lambda: nn.Linear(6, 9), (torch.ones(5, 6),), 2 * 5 * 6 * 9),
    "Linear-steps": (lambda: nn.Linear(6, 9), (torch.ones(4, 5, 6),), 2 * 20 * 6 * 9),
    "Conv1d": (lambda: nn.Conv1d(6, 4, 3), (torch.ones(2, 6, 8),), 2 * 2 * 6 * (6 * 4 * 3)),
    "Conv2d": (
        lambda: nn.Conv2d(3, 4, 3, stride=2),
        (torch.ones(2, 3, 9, 7),),
        2 * 2 * (4 * 3) * (3 * 4 * 9),
    ),
    "Conv2d-groups": (
        lambda: nn.Conv2d(4, 8, 3, groups=2),
        (torch.ones(1, 4, 5, 5),),
        2 * 9 * (2 * 8 * 9),
    ),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 2, 4), (torch.ones(1, 3, 5),), 2 * 5 * (3 * 2 * 4)),
    "Embedding": (lambda: nn.Embedding(9, 4), (torch.ones(3, 2, dtype=torch.long),), 0),
    "Factorised": (lambda: factorise(nn.Linear(6, 9), 4), (torch.ones(5, 6),), 2 * 5 * (6 * 4 + 4 * 9)),
    "LSTM": (
        lambda: nn.LSTM(6, 5, 2, bidirectional=True),
        (torch.ones(7, 3, 6),),
        2 * 21 * 2 * (20 * 11 + 20 * 15),
    ),
    "LSTM-packed": (
        lambda: nn.LSTM(6, 5, proj_size=2),
        (pack_sequence([torch.ones(4, 6), torch.ones(3, 6)]),),
        2 * 7 * (20 * 6 + 20 * 2 + 2 * 5),
    ),
    "statistical": (
        lambda: StatisticalRecurrentUnit(6, 5, num_stats=4, recur_size=0, output_steps="last"),
        (torch.ones(7, 3, 6),),
        2 * (21 * (4 * 6) + 3 * (5 * 4 * 5)),
    ),
}


@pytest.mark.parametrize("case", DENSE)
def test_dense_flops_of_every_layer(case):
    make, example, wanted = DENSE[case]
    layer = make()
    count = FlopCount(layer, *example)
    assert count.dense == wanted == count.deployed(layer)
    if wanted:
        assert float(count.expected(layer)) == wanted
    assert layer.training


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 6)
        self.recurrent = nn.GRU(6, 5)
        self.output = nn.Linear(5, 3)

    def forward(self, ids):
        return self.output(self.recurrent(self.embedding(ids))[0])


def open_gates(model, probability):
    """Set every hard concrete gate so that it is open with this probability, one more for each next unit."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("log_alpha"):
                spread = torch.linspace(-0.1, 0.1, parameter.numel()).view(parameter.shape)
                parameter.copy_(torch.logit(probability + spread) - 1.598597)  # beta log(-gamma / zeta)


def test_independent_gates_cost_the_product_of_their_expectations():
    model = sparsify(nn.Linear(6, 9), HardConcrete(groups=("input", "output")))
    open_gates(model, 0.5)
    found = expected_flops(model, torch.ones(4, 6))
    assert float(found.detach()) == pytest.approx(2 * 4 * 3.0 * 4.5, rel=1e-4)
    found.backward()
    assert all((gate.grad > 0).all() for gate in gate_parameters(model))


def test_gates_of_elements_cost_the_sum_of_their_probabilities():
    torch.manual_seed(0)
    model = sparsify(Tagger(), HardConcrete(groups=("weight", "input")))
    open_gates(model, 0.4)
    ids = torch.ones(7, 2, dtype=torch.long)
    total = 0.0
    for layer in (model.recurrent, model.output):
        for _, mean, state in layer.states():
            chance = torch.ones(mean.shape)
            for values, division in state.open_probabilities(mean):
                chance = chance * division.spread(values.detach())
            total += 2 * 14 * float(chance.sum())
    count = FlopCount(model, ids)
    assert float(count.expected(model).detach()) == pytest.approx(total, rel=1e-5)
    assert float(FlopCount.of_step(model).expected(model).detach()) == pytest.approx(total / 14, rel=1e-5)
    assert count.free_layers(model) == {"embedding"}


def test_expected_is_the_mean_of_what_is_drawn():
    """10,000 draws of the gates of a chain: units count where both of their gates are open."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3))
    sparsify(model, HardConcrete(groups=("input", "output")))
    open_gates(model, 0.5)
    total = 0.0
    with torch.no_grad():
        layers = (model[0], model[3], model[4])
        gates = [[g.sample(shape=(10_000,)) > 0 for g, _ in m.weights["weight"].gates()] for m in layers]
        out0, in0 = gates[0]
        out1, in1 = gates[1]
        out2, in2 = gates[2]
        read = in1.view(-1, 4, 4).any(2) & out0
        live = in1 & out0.repeat_interleave(4, 1)
        between = out1 & in2
        costs = (
            (in0.sum(1), read.sum(1), 9 * 4),
            (live.sum(1), between.sum(1), 1),
            (between.sum(1), out2.sum(1), 1),
        )
        total = sum(2.0 * uses * (rows * columns).double().mean() for columns, rows, uses in costs)
    found = float(expected_flops(model, torch.ones(1, 2, 4, 4)).detach())
    assert found == pytest.approx(float(total), rel=0.01)


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 9, 20), nn.ReLU(), nn.Dropout(0.1), nn.Linear(20, 4),
    )  # fmt: skip


IMAGES = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def test_what_is_pruned_before_and_behind_a_layer_costs_nothing_there():
    """Deployed FLOPs are those of the small network that is left: 3 and 5 channels, 20 units of which 6 are read."""
    model = lenet()
    assert [link[:3] for link in chains(model)] == [("0", "3", 1), ("3", "7", 9), ("7", "10", 1)]
    with torch.no_grad():
        model[0].weight[3:] = 0.0
        model[3].weight[5:] = 0.0
        model[10].weight[:, 6:] = 0.0
    count = FlopCount(model, IMAGES)
    small = 2 * (100 * 9 * 3 + 9 * 9 * 3 * 5 + 45 * 6 + 6 * 4)
    assert count.deployed(model) == small
    assert count.dense == 2 * (100 * 9 * 6 + 9 * 9 * 6 * 8 + 72 * 20 + 20 * 4)


@pytest.mark.parametrize("breaks", [nn.LayerNorm(5), nn.Softmax(1), nn.Sequential(nn.ReLU())])
def test_chains_end_where_units_mix(breaks):
    model = nn.Sequential(nn.Linear(4, 5), breaks, nn.Linear(5, 3))
    assert chains(model) == []
    with torch.no_grad():
        model[2].weight[:, 0] = 0.0
    assert FlopCount(model, torch.ones(1, 4)).deployed(model) == 2 * (20 + 12)


def test_a_convolution_before_a_linear_needs_its_flatten():
    assert chains(nn.Sequential(nn.Conv2d(2, 4, 1), nn.Linear(4, 3))) == []
    assert chains(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2))) == []
    assert chains(nn.Sequential(nn.Linear(4, 4), nn.Flatten(0), nn.Linear(4, 4))) == []


def test_masks_weights_and_the_plain_model_count_the_same():
    torch.manual_seed(3)
    model = sparsify(lenet(), HardConcrete(groups=("weight", "output"))).eval()
    project(model, keep=300)
    count = FlopCount(model, IMAGES)
    assert count(model) == count(harden(model)) == FlopCount(harden(model), IMAGES)(model)
    masked = sum(2 * uses * int(keep_mask(model)[key].sum()) for key, uses in count.uses.items())
    assert 0 < count(model) <= masked
    shares = count.shares(model)
    assert shares["flops_share"] == count(model) / count.dense
    assert 0 < shares["expected_flops_share"] < 1


PARTS = {
    "padding": ((), 1, ()),
    "none": ((), 0, ()),
    "reflected": ((), "reflect", ()),
    "maxima": ((nn.MaxPool2d(2),), 1, ()),
    "averages": ((nn.AvgPool2d(2), nn.BatchNorm2d(8)), 1, (nn.AvgPool2d(2),)),
}


def test_a_norm_without_statistics_of_its_own_ends_a_chain():
    """What it makes of a dead channel depends on the batch: the smaller network keeps the columns that read it."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model = sparsify(
        nn.Sequential(nn.Conv2d(2, 8, 3), norm, nn.Conv2d(8, 4, 3)), HardConcrete(groups=("output",))
    )
    project(model, keep=250)
    images = torch.rand(1, 2, 12, 12)
    assert chains(model) == []
    assert FlopCount(model, images).deployed(model) == deliver(model, images).sparse_flops


@pytest.mark.parametrize("case", PARTS)
@pytest.mark.parametrize("seed", range(3))
def test_constants_behind_a_batch_norm_count_where_the_smaller_network_keeps_them(case, seed):
    torch.manual_seed(seed)
    front, padding, back = copy.deepcopy(PARTS[case])
    padded = {"padding": 1, "padding_mode": padding} if isinstance(padding, str) else {"padding": padding}
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=seed > 0), nn.BatchNorm2d(8), nn.ReLU(), *front,
        nn.Conv2d(8, 8, 3, **padded), nn.ReLU(), *back, nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 5),
    )  # fmt: skip
    for norm in (module for module in model if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
    sparsify(model, HardConcrete(groups=("output",)))
    with torch.no_grad():
        for gates in gate_parameters(model):
            gates.normal_(0.0, 3.0)
    project(model, keep=500)
    images = torch.rand(1, 2, 12, 12)
    was = [module.training for module in model.modules()]
    count = FlopCount(model, images)
    assert count.deployed(model) == deliver(model, images).sparse_flops
    assert [module.training for module in model.modules()] == was


STEPS = 200


def learn(model, control, loss):
    gates = {id(parameter): parameter for parameter in gate_parameters(model)}
    groups = [{"params": [p for p in model.parameters() if id(p) not in gates], "lr": 3e-3}]
    if gates:
        groups.append({"params": list(gates.values()), "lr": 6e-2})
    optimizer = torch.optim.Adam(groups)
    model.train()
    for step in range(STEPS):
        torch.manual_seed(step)
        value = loss(model)
        term = control.constraint(step / STEPS)
        optimizer.zero_grad()
        (value if term is None else value + term).backward()
        optimizer.step()


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 4),
    )  # fmt: skip


def convolutional_loss(model):
    x = torch.randn(16, 1, 6, 6)
    return F.mse_loss(model(x)[:, 0], x[:, 0, :3].mean((1, 2)))


@pytest.mark.parametrize(
    ("method", "groups"),
    [
        ("l0", ("output",)),
        ("magnitude", ("output",)),
        *((method, ("weight",)) for method in METHODS),
    ],
)
def test_a_target_of_flops_is_held_and_delivered(method, groups):
    torch.manual_seed(0)
    model = sparsify(convolutional(), METHODS[method](groups=groups), exclude=("8",))
    count = FlopCount(model, torch.ones(1, 1, 6, 6))
    wanted = 0.25 * count.dense
    control = Control(model, Target(flops=wanted), method=method, measure=count, num_examples=1000)
    learn(model, control, convolutional_loss)
    model.eval()
    with torch.no_grad(), control.deployed():
        # One of 16 channels is up to a tenth of it, and so may be the last weight of one.
        least = (0.93 if groups == ("output",) or method == "l0" else 0.97) * wanted
        assert least <= count(model) <= wanted
        assert count(copy.deepcopy(harden(model))) == count(model)
        status = control.status()
    assert least <= status["flops"] <= wanted
    if method != "magnitude":
        assert status["expected_flops"] == pytest.approx(wanted, rel=0.1)


def test_embeddings_are_left_alone_by_a_target_of_flops():
    torch.manual_seed(0)
    model = sparsify(Tagger(), METHODS["magnitude"]())
    count = FlopCount.of_step(model)
    control = Control(model, Target(flops=100), method="magnitude", measure=count)
    ids = torch.arange(12).view(6, 2)
    learn(model, control, lambda model: model(ids).square().mean())
    with control.deployed():
        assert keep_mask(model)["embedding.weight"].all()
        assert 97 <= flops_of_step(model) <= 100
        assert kept_parameters(model) == 72 + control.keep


def test_a_step_of_a_convolution_is_refused():
    with pytest.raises(TypeError, match="0 is a convolution"):
        flops_of_step(nn.Sequential(nn.Conv1d(1, 1, 1)))
    with pytest.raises(ValueError, match="no weight that a pass multiplies"):
        FlopCount.of_step(nn.ReLU()).expected(nn.ReLU())


def test_flops_below_one_unit_a_layer_say_what_is_reachable():
    model = sparsify(convolutional(), HardConcrete(groups=("output",)), exclude=("8",))
    count = FlopCount(model, torch.ones(1, 1, 6, 6))
    one_each = 2 * (16 * 9 + 4 + 1 + 4)
    with pytest.raises(UserError, match=f"100 FLOPs cannot be met: .* comes to {one_each};"):
        Control(model, Target(flops=100), method="l0", measure=count)


@pytest.mark.parametrize(
    ("method", "groups"), [("l0", ("weight",)), ("l0", ("output",)), ("magnitude", ("weight",))]
)
def test_deployed_flops_are_those_of_the_compacted_network(method, groups):
    torch.manual_seed(0)
    model = sparsify(lenet(), METHODS[method](groups=groups)).eval()
    count = FlopCount(model, IMAGES)
    for keep in (1000, 600):
        project(model, keep=keep)
        made = deliver(model, IMAGES)
        assert count(model) == made.sparse_flops > 0
