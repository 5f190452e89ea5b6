"""The hard concrete gate against its closed forms."""

import math

import pytest
import torch
from torch import nn

from karui.sparse import HardConcrete, anneal, expected_density, penalty, project, sparsify
from karui.sparse.division import Elements
from karui.sparse.hard_concrete import HIGH, LOW


@pytest.mark.parametrize(
    ("rate", "log_alpha", "chance", "mean", "test_gate"),
    [
        (0.05, 2.94, 0.989, 0.936, 1.0),
        (0.2, 1.39, 0.952, 0.773, 0.860),
        (0.3, 0.85, 0.920, 0.678, 0.740),
        (0.5, 0.0, 0.832, 0.5, 0.5),
    ],
)
def test_start_and_closed_forms(
    rate: float, log_alpha: float, chance: float, mean: float, test_gate: float
) -> None:
    """Initial values, open probability, mean and test gate for the published drop rates."""
    torch.manual_seed(0)
    gate = HardConcrete(drop_rate=rate).gate(Elements((40_000,))).requires_grad_(requires_grad=False)
    assert float(gate.log_alpha.mean()) == pytest.approx(log_alpha, abs=0.01)
    assert float(gate.log_alpha.std()) == pytest.approx(0.01, rel=0.05)
    assert float(gate.open_probability().mean()) == pytest.approx(chance, abs=1e-3)
    assert float(gate.mean(gate.log_alpha).mean()) == pytest.approx(mean, abs=2e-3)
    assert float(gate.deployed().mean()) == pytest.approx(test_gate, abs=2e-3)
    drawn = gate.sample()
    assert float((drawn > 0).float().mean()) == pytest.approx(chance, abs=5 * math.sqrt(0.25 / 40_000))
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.01)
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_the_test_gate_closes_at_its_threshold() -> None:
    gate = HardConcrete().gate(Elements((2,))).requires_grad_(requires_grad=False)
    edge = math.log(0.1 / 1.1)
    with torch.no_grad():
        gate.log_alpha.copy_(torch.tensor([edge - 1e-3, edge + 1e-3]))
    assert gate.keep_mask().tolist() == [False, True]
    assert gate.deployed()[0] == 0
    assert gate.deployed()[1] > 0
    assert float(gate.open_probability()[0]) == pytest.approx(0.31, abs=0.005)


def test_bounds_leave_room_below_a_target_of_five_percent() -> None:
    gate = HardConcrete().gate(Elements((2,))).requires_grad_(requires_grad=False)
    with torch.no_grad():
        gate.log_alpha.copy_(torch.tensor([-50.0, 50.0]))
    gate.sample()
    assert gate.log_alpha.tolist() == [LOW, pytest.approx(HIGH)]
    assert float(gate.open_probability()[0]) < 0.001


def test_gradient_of_a_draw_is_that_of_the_formula() -> None:
    gate = HardConcrete().gate(Elements((500,)))
    torch.manual_seed(1)
    z = gate.sample()
    z.sum().backward()
    inside = (z > 0) & (z < 1)
    expected = (z + 0.1) * (1.1 - z) / (1.2 * 2 / 3) * inside
    assert torch.allclose(gate.log_alpha.grad, expected.detach(), atol=1e-5)


def test_lambda_decay_and_drop_rate_a_layer() -> None:
    layers = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model = sparsify(layers, HardConcrete(groups=("input",), lambda_={"0": 2.0, "1": 0.0}, weight_decay=0.5))
    gate, weight = model[0].weights["weight"].column, model[0].base.weight
    chance = gate.open_probability()
    states = [(layer.weights["weight"].column, layer.base.weight) for layer in (model[0], model[1])]
    squares = [0.25 * (column.open_probability() * mean**2).sum() for column, mean in states]
    assert torch.allclose(penalty(model), 2.0 * 3 * chance.sum() + sum(squares))
    penalty(model).backward()
    slope = chance * (1 - chance)
    assert torch.allclose(gate.log_alpha.grad, 6.0 * slope), "the L2 term gives gates no gradient"
    assert torch.allclose(weight.grad, 0.5 * chance * weight)
    for option in ({"lambda_": {"0": 1.0}}, {"drop_rate": {"0": 0.5}}):
        with pytest.raises(ValueError, match="but not the sparse layer '1'"):
            sparsify(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), HardConcrete(**option))
    with pytest.raises(ValueError, match="drop_rate names '7'"):
        sparsify(nn.Sequential(nn.Linear(4, 3)), HardConcrete(drop_rate={"0": 0.5, "7": 0.5}))


def test_weights_are_scaled_up_where_asked() -> None:
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    sparsify(layer, HardConcrete(groups=("input", "output"), drop_rate=0.5, rescale=True))
    assert torch.allclose(layer.weight, 4 * before)


def test_temperature_anneals() -> None:
    model = sparsify(nn.Linear(4, 3), HardConcrete(beta=0.6, beta_end=0.15))
    anneal(model, 0.5)
    assert model.weights["weight"].element.beta == pytest.approx(0.3)


def test_one_mask_for_a_mini_batch_and_a_new_one_each_step() -> None:
    model = sparsify(nn.Linear(40, 3), HardConcrete(groups=("input",), drop_rate=0.5))
    x = torch.randn(1, 40).expand(5, 40)
    out = model(x)
    assert torch.equal(out[0], out[4])
    assert not torch.equal(model(x), out)


def test_a_unit_kept_by_count_below_its_threshold_is_the_mean_of_its_gate() -> None:
    model = sparsify(nn.Linear(5, 5), HardConcrete())
    gate = model.weights["weight"].element
    with torch.no_grad():
        gate.log_alpha.copy_(torch.linspace(-9, -3, 25).view(5, 5))
    assert project(model, keep=4) == 4
    assert int((gate.deployed() > 0).sum()) == 4
    assert torch.allclose(gate.deployed().flatten()[-1], gate.mean(torch.tensor(-3.0)))
    assert float(expected_density(model).detach()) < 0.1


def test_options_out_of_range_are_refused() -> None:
    for option, said in (
        ({"drop_rate": 0.0}, "drop_rate"),
        ({"gamma": 0.1}, "gamma"),
        ({"beta": 0.0}, "beta"),
        ({"groups": ()}, "at least one group"),
        ({"groups": ("16x1", "8x4")}, "one form"),
    ):
        with pytest.raises(ValueError, match=said):
            HardConcrete(**option)
