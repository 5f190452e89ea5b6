"""What is left of a settled model trains on without gates and noise, and stays what is delivered."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui import nn as karui_nn
from karui.sparse import (
    METHODS,
    gate_parameters,
    harden,
    keep_mask,
    project,
    sparse_layers,
    sparsify,
)
from karui.sparse.control import Control
from karui.sparse.flops import flops_of_step
from karui.sparse.measures import sampling
from karui.targets import Target
from karui.tasks.settings import SparseSettings

STEPS, EXAMPLES = 300, 512


class Reader(nn.Module):
    """Embedding, recurrent layer, linear layer."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.embedding, self.recurrent, self.out = nn.Embedding(9, 6), recurrent, nn.Linear(5, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.recurrent(self.embedding(ids))[0][-1])


def images() -> tuple[nn.Module, Tensor]:
    layers = (nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3))
    return nn.Sequential(*layers), torch.randn(8, 2, 6, 6)


MODELS = {
    "linear": lambda: (nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)), torch.randn(8, 12)),
    "images": images,
    "lstm": lambda: (Reader(nn.LSTM(6, 5)), torch.randint(0, 9, (7, 8))),
    "sru": lambda: (Reader(karui_nn.SRU(6, 5)), torch.randint(0, 9, (7, 8))),
}
GROUPS = {
    "linear": [("weight",), ("input",), ("weight", "input"), ("16x1",)],
    "images": [("weight",), ("output",)],
    "lstm": [("weight",), ("weight", "word", "input", "gate")],
    "sru": [("weight",), ("weight", "word", "input")],
}
CASES = [(method, name, groups) for method in ("l0", "vd") for name in MODELS for groups in GROUPS[name]]


def make(method: str, name: str, groups: tuple[str, ...]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = MODELS[name]()
    return sparsify(model, METHODS[method](groups=groups)).train(), x


def settle(model: nn.Module) -> None:
    for _, layer in sparse_layers(model):
        layer.settle()


@pytest.mark.parametrize(("method", "name", "groups"), CASES)
def test_settled_layers_train_what_is_delivered(method: str, name: str, groups: tuple[str, ...]) -> None:
    model, x = make(method, name, groups)
    keep = sum(mask.numel() for mask in keep_mask(model).values()) // 3
    project(model, keep=keep)
    before = keep_mask(model)
    settle(model)
    assert all(torch.equal(mask, before[key]) for key, mask in keep_mask(model).items())
    means = {
        f"{n}.{p}".lstrip("."): mean for n, layer in sparse_layers(model) for p, mean, _ in layer.states()
    }
    pruned = {key: mean.detach()[~before[key]].clone() for key, mean in means.items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(20):
        first, again = model(x), model(x)
        assert torch.equal(first, again) or name == "images"  # a batch norm counts
        loss = first.square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is None for parameter in gate_parameters(model))
        optimizer.step()
    assert all(torch.equal(mean.detach()[~before[key]], pruned[key]) for key, mean in means.items())
    project(model, keep=keep)
    assert all(torch.equal(mask, before[key]) for key, mask in keep_mask(model).items())
    delivered = harden(model).train()(x)
    assert (model(x) - delivered).abs().max() <= 1e-6 * (1.0 + delivered.abs().max())


def test_without_a_projection_the_methods_own_rule_settles() -> None:
    model, x = make("vd", "linear", ("weight",))
    for _, layer in sparse_layers(model):
        with torch.no_grad():
            layer.weights["weight"].log_sigma2.add_(5.0)  # about a third is noise
    before = keep_mask(model)
    assert 0 < sum(int(mask.sum()) for mask in before.values()) < sum(m.numel() for m in before.values())
    settle(model)
    with torch.no_grad():
        for _, layer in sparse_layers(model):
            layer.base.weight.mul_(0.1)
    assert all(torch.equal(mask, before[key]) for key, mask in keep_mask(model).items())
    assert torch.allclose(model(x), harden(model)(x))


def test_masks_of_magnitude_stay_until_they_are_drawn_anew() -> None:
    model, x = make("magnitude", "linear", ("weight",))
    project(model, keep=40)
    before = keep_mask(model)
    settle(model)
    assert all(torch.equal(mask, before[key]) for key, mask in keep_mask(model).items())
    assert torch.allclose(model(x), harden(model)(x))


@pytest.mark.parametrize("method", ["l0", "vd"])
def test_a_settled_model_still_has_its_noise_to_tell_what_it_is_unsure_of(method: str) -> None:
    model, x = make(method, "linear", ("weight",))
    project(model, keep=60)
    settle(model)
    with sampling(model.eval()), torch.no_grad():
        assert not torch.equal(model(x), model(x))
    assert torch.equal(model(x), model(x))


def toy(method: str, **more: Any) -> tuple[nn.Module, Control]:
    torch.manual_seed(0)
    model = sparsify(nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 1)), METHODS[method]())
    return model, Control(model, Target(density=0.04), method=method, num_examples=EXAMPLES, **more)


def train(model: nn.Module, control: Control, first: int = 0, last: int = STEPS, *, seed: int = 0) -> float:
    """Steps of a run, their random numbers by seed and step alone; the error of what is delivered."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(EXAMPLES, 24, generator=generator)
    y = torch.tanh(x[:, :4].sum(1, keepdim=True))
    gates = {id(parameter): parameter for parameter in gate_parameters(model)}
    rest = [p for p in model.parameters() if id(p) not in gates]
    groups = [{"params": rest, "lr": 3e-3}, {"params": list(gates.values()), "lr": 5e-2}]
    optimizer = torch.optim.Adam(groups)
    model.train()
    for step in range(first, last):
        torch.manual_seed(step + STEPS * seed)
        rows = torch.randint(0, EXAMPLES, (64,))
        control.before_step(step / STEPS)
        loss = F.mse_loss(model(x[rows]), y[rows])
        term = control.constraint(step / STEPS)
        optimizer.zero_grad()
        (loss if term is None else loss + term).backward()
        optimizer.step()
    with torch.no_grad(), control.deployed():
        return float(F.mse_loss(harden(model).eval()(x), y))


@pytest.mark.parametrize("method", ["l0", "vd"])
def test_a_run_settles_once_and_ends_with_what_it_trained(method: str) -> None:
    model, control = toy(method, settle=0.7)
    train(model, control, last=210)
    assert not control.is_settled
    train(model, control, first=210, last=211)
    assert control.is_settled
    before = keep_mask(model)
    noise = [parameter.detach().clone() for parameter in gate_parameters(model)]
    train(model, control, first=211)
    assert sum(int(mask.sum()) for mask in before.values()) == control.keep
    with control.deployed():
        assert all(torch.equal(mask, before[key]) for key, mask in keep_mask(model).items())
    assert all(torch.equal(a, b) for a, b in zip(noise, gate_parameters(model), strict=True))


@pytest.mark.parametrize(("method", "most"), [("l0", 1.1), ("vd", 0.7)])
def test_settled_runs_deliver_no_more_error_than_others(method: str, most: float) -> None:
    """As much with gates, which are open or closed at the end anyway; about half with noise on every weight."""
    settled = [train(*toy(method, settle=0.7), seed=seed) for seed in range(4)]
    drawn = [train(*toy(method), seed=seed) for seed in range(4)]
    assert sum(settled) < most * sum(drawn)


@pytest.mark.parametrize("method", ["l0", "vd"])
@pytest.mark.parametrize("at", [200, 225, 260])
def test_a_run_goes_on_to_the_bit(method: str, at: int) -> None:
    model, control = toy(method, settle=0.75)
    train(model, control, last=at)
    kept = copy.deepcopy(model.state_dict()), {key: part.clone() for key, part in control.state().items()}
    other, resumed = toy(method, settle=0.75)
    other.load_state_dict(kept[0])
    resumed.load_state(kept[1])
    for pair in ((model, control), (other, resumed)):
        train(*pair, first=at)
    states = model.state_dict().values(), other.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_state_from_before_there_was_settling_is_read() -> None:
    model, control = toy("l0", settle=0.75)
    train(model, control, last=10)
    state = control.state()
    state["numbers"] = state["numbers"][:3]
    control.load_state(state)
    assert not control.is_settled


def test_flops_of_units_settle_too() -> None:
    torch.manual_seed(0)
    model = sparsify(
        nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 1)), METHODS["l0"](groups=("input",))
    )
    control = Control(model, Target(flops=600), method="l0", measure=flops_of_step, settle=0.7)
    train(model, control)
    before = keep_mask(model)
    with control.deployed():
        assert flops_of_step(model) <= 600
        assert all(torch.equal(mask, before[key]) for key, mask in keep_mask(model).items())


def test_bad_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"settle must be in \[end = 0.6, 1\], got 0.5"):
        toy("l0", settle=0.5)
    with pytest.raises(ValueError, match=r"settle_from must be in \[prune_until, 1\], got 0.3"):
        SparseSettings(method="l0", target_density=0.1, settle_from=0.3)
    with pytest.raises(ValueError, match="settle_from must be 1 without a target, got 0.7"):
        SparseSettings(method="l0", settle_from=0.7)
