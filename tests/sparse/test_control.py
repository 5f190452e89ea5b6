"""Targets held in training: the density arrives, what is delivered is exact, and a run goes on to the bit."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from karui.errors import UserError
from karui.sparse import (
    METHODS,
    density,
    expected_density,
    gate_parameters,
    harden,
    kept_parameters,
    prunable_parameters,
    sparsify,
)
from karui.sparse.control import Control, Lagrangian
from karui.sparse.flops import flops_of_step
from karui.targets import Target

STEPS = 300
EXAMPLES = 512


def toy(method, groups=None):
    """A regression that needs 4 of its 24 inputs: 24 x 32 + 32 weights, 33 biases."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 1))
    options = {} if groups is None else {"groups": groups}
    return sparsify(model, METHODS[method](**options))


def train(model, control, first=0, last=STEPS):
    """Steps `first` to `last` of a run; the random numbers of a step depend on its number alone."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(EXAMPLES, 24, generator=generator)
    y = torch.tanh(x[:, :4].sum(1, keepdim=True))
    gates = {id(parameter): parameter for parameter in gate_parameters(model)}
    groups = [{"params": [p for p in model.parameters() if id(p) not in gates], "lr": 3e-3}]
    if gates:
        groups.append({"params": list(gates.values()), "lr": 5e-2})
    optimizer = torch.optim.Adam(groups)
    model.train()
    for step in range(first, last):
        torch.manual_seed(step)
        rows = torch.randint(0, EXAMPLES, (64,))
        loss = F.mse_loss(model(x[rows]), y[rows])
        term = control.constraint(step / STEPS)
        loss = loss if term is None else loss + term
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return x, y


@pytest.mark.parametrize("wanted", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("method", ["l0", "vd"])
def test_the_lagrangian_reaches_the_target_within_a_point(method, wanted):
    model = toy(method)
    control = Control(model, Target(density=wanted), method=method, num_examples=EXAMPLES)
    x, y = train(model, control)
    assert abs(float(expected_density(model).detach()) - wanted) < 0.01
    model.eval()
    with torch.no_grad(), control.deployed():
        assert kept_parameters(model) == int(wanted * prunable_parameters(model))
        assert F.mse_loss(model(x), y) < 0.5 * y.var()


def test_magnitude_follows_the_cubic_schedule_and_keeps_learning():
    model = toy("magnitude")
    control = Control(model, Target(density=0.1), method="magnitude", begin=0.2, end=0.8)
    assert [control.path(r) for r in (0.0, 0.2, 0.8, 1.0)] == pytest.approx([1.0, 1.0, 0.1, 0.1], abs=1e-3)
    assert control.path(0.5) == pytest.approx(0.1 + 0.9 * 0.5**3, abs=1e-3)
    rates = [control.path(r / 100) for r in range(101)]
    assert all(later <= now for now, later in itertools.pairwise(rates))
    seen = {}
    for last in (80, 150, STEPS):
        x, y = train(model, control, first=max(seen, default=0), last=last)
        seen[last] = density(model)
    wanted = {last: control.path((last - 1) / STEPS) for last in seen}
    assert seen == pytest.approx(wanted, abs=0.02)  # a renewal later
    model.eval()
    with torch.no_grad(), control.deployed():
        assert F.mse_loss(model(x), y) < 0.3 * y.var()


def test_the_multiplier_rises_above_the_target_and_restarts_below():
    share, lagrangian = expected_density(toy("l0")), Lagrangian(rate=100.0)
    for _ in range(3):
        lagrangian.term(share, 0.1, 0.01)
    assert float(lagrangian.multiplier) == pytest.approx(3.0)  # the excess counts as 1 at most
    lagrangian.term(share, 0.999, 0.01)
    assert float(lagrangian.multiplier) == 0.0


def test_the_gradient_closes_gates_above_the_target_and_opens_them_below():
    model, lagrangian = toy("l0"), Lagrangian()
    for path, sign in ((0.5, 1.0), (0.999, -1.0)):
        for parameter in gate_parameters(model):
            parameter.grad = None
        lagrangian.term(expected_density(model), path, 0.0).backward()
        grads = torch.cat([p.grad.flatten() for p in gate_parameters(model) if p.grad is not None])
        assert bool((grads * sign > 0).all())


@pytest.mark.parametrize("method", METHODS)
def test_a_block_of_deployment_changes_nothing_behind_it(method):
    model = toy(method)
    control = Control(model, Target(density=0.2), method=method)
    train(model, control, last=20)
    before = copy.deepcopy(model.state_dict())
    with control.deployed():
        inside = kept_parameters(model)
    assert inside == int(0.2 * prunable_parameters(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="stop"), control.deployed():
        raise RuntimeError("stop")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_to_the_bit(method):
    def start():
        model = toy(method)
        return model, Control(model, Target(density=0.2), method=method, num_examples=EXAMPLES)

    model, control = start()
    train(model, control, last=30)
    kept = copy.deepcopy(model.state_dict()), {name: value.clone() for name, value in control.state().items()}
    train(model, control, first=30, last=60)
    other, resumed = start()
    other.load_state_dict(kept[0])
    resumed.load_state(kept[1])
    train(other, resumed, first=30, last=60)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert all(torch.equal(control.state()[name], value) for name, value in resumed.state().items())


def test_params_count_biases():
    model = toy("l0")
    control = Control(model, Target(params=133), method="l0")
    with control.deployed():
        plain = harden(model)
        assert kept_parameters(model) == 100
    assert sum(int(torch.count_nonzero(p)) for p in plain.parameters()) <= 133
    with pytest.raises(UserError, match="33 numbers .* are never pruned"):
        Control(toy("l0"), Target(params=33), method="l0")


@pytest.mark.parametrize("method", METHODS)
def test_flops_are_met_and_never_above(method):
    model = toy(method)
    control = Control(model, Target(flops=300), method=method, measure=flops_of_step)
    train(model, control, last=20)
    with control.deployed():
        # A weight of the last layer that goes takes up to 24 of the first with it, 48 FLOPs.
        assert 252 <= flops_of_step(model) <= 300
        assert control.status()["flops"] == flops_of_step(harden(model)) == flops_of_step(model)


def test_a_target_that_groups_allow_only_below():
    model = toy("l0", groups=("input",))
    control = Control(model, Target(density=0.2), method="l0")
    with control.deployed():
        assert 0 < kept_parameters(model) <= 0.2 * prunable_parameters(model)


def test_what_cannot_be_met_says_what_is_reachable():
    def measure(model):
        return 500.0 + kept_parameters(model)

    with pytest.raises(UserError, match="400 bytes cannot be met: .* comes to 500;"):
        Control(toy("l0"), Target(size=400), method="l0", measure=measure)
    model = toy("magnitude")
    control = Control(model, Target(size="0.6kB"), method="magnitude", measure=measure)
    assert 594 <= 500 + control.keep <= 600
    assert density(model) == 1.0  # the search leaves no trace


def test_bad_arguments():
    model = toy("l0")
    with pytest.raises(ValueError, match="needs measure="):
        Control(model, Target(size=100), method="l0")
    with pytest.raises(ValueError, match="method must be"):
        Control(model, Target(density=0.1), method="none")
    with pytest.raises(ValueError, match="begin and end"):
        Control(model, Target(density=0.1), method="l0", begin=0.7, end=0.6)
    assert math.isnan(Control(model, Target(density=0.1), method="l0").reached)
