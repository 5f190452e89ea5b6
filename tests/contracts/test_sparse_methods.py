"""The sparse contract: every method x layer x group that is offered, by one table; all others are refused."""

import itertools
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from karui.nn import GRU, LSTM, SRU
from karui.nn.min_gru import MinGRU
from karui.nn.qrnn import QRNN
from karui.nn.srupp import SRUpp
from karui.nn.statistical import StatisticalRecurrentUnit
from karui.sparse import (
    GROUPS,
    METHODS,
    Factorised,
    density,
    expected_density,
    expected_kept,
    factorise,
    gate_parameters,
    harden,
    keep_mask,
    kept_parameters,
    penalty,
    predict_samples,
    project,
    prunable_parameters,
    release,
    sparsify,
)

# oneDNN lacks projections up to torch 2.13, which says so; the numbers are right
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


class Layer(NamedTuple):
    """How to make one, what it reads, and its groups."""

    make: Any
    input: Any
    groups: tuple[str, ...]


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


SEQUENCE = values(4, 2, 6)
RECURRENT = ("weight", "input", "gate", "16x1", "8x4")
LAYERS = {
    "Linear": Layer(lambda: nn.Linear(6, 9), values(5, 6), ("weight", "input", "output", "16x1", "8x4")),
    "Linear-steps": Layer(
        lambda: nn.Linear(6, 9), values(40, 5, 6), ("weight", "input", "output", "16x1", "8x4")
    ),
    "Conv1d": Layer(lambda: nn.Conv1d(6, 4, 3), values(2, 6, 8), ("weight", "input", "output")),
    "Conv2d": Layer(lambda: nn.Conv2d(3, 4, 3, padding=1), values(2, 3, 5, 5), ("weight", "input", "output")),
    "Embedding": Layer(
        lambda: nn.Embedding(12, 5, padding_idx=0),
        torch.tensor([[1, 3, 0], [7, 7, 2]]),
        ("weight", "word", "dimension"),
    ),
    "Factorised": Layer(
        lambda: factorise(nn.Linear(6, 9), 5),
        values(5, 6),
        ("weight", "input", "output", "rank", "16x1", "8x4"),
    ),
    "nn.LSTM": Layer(lambda: nn.LSTM(6, 3, 2, bidirectional=True), SEQUENCE, RECURRENT),
    "nn.LSTM-projected": Layer(lambda: nn.LSTM(6, 5, proj_size=3), SEQUENCE, RECURRENT),
    "nn.GRU": Layer(lambda: nn.GRU(6, 5), SEQUENCE, RECURRENT),
    "LSTM": Layer(lambda: LSTM(6, 5), SEQUENCE, RECURRENT),
    "GRU": Layer(lambda: GRU(6, 5, bidirectional=True), SEQUENCE, RECURRENT),
    "SRU": Layer(lambda: SRU(6, 3, 2, bidirectional=True), SEQUENCE, RECURRENT),
    "SRUpp": Layer(lambda: SRUpp(6, 8, attention_size=4), SEQUENCE, RECURRENT),
    "QRNN": Layer(lambda: QRNN(6, 5, window=2), SEQUENCE, RECURRENT),
    "MinGRU": Layer(lambda: MinGRU(6, 5), SEQUENCE, RECURRENT),
    "StatisticalRU": Layer(
        lambda: StatisticalRecurrentUnit(6, 5, num_stats=6, recur_size=3), SEQUENCE, RECURRENT
    ),
}
PAIRS = [("weight", "input"), ("input", "output"), ("word", "dimension"), ("weight", "gate", "input")]
OFFERED = [
    (method, layer, groups)
    for method in METHODS
    for layer, (_, _, offered) in LAYERS.items()
    for groups in [*((group,) for group in offered), *(p for p in PAIRS if set(p) <= set(offered))]
]
NOT_OFFERED = [
    (method, layer, group)
    for method, (layer, row) in itertools.product(METHODS, LAYERS.items())
    for group in GROUPS
    if group not in row.groups
]
every_case = pytest.mark.parametrize(("method", "layer", "groups"), OFFERED, ids=str)


def make(method: str, layer: str, groups: tuple[str, ...], *, closed: float = 0.0) -> nn.Module:
    """A sparse layer whose gates stand all over their range; closed: added, to open (below 0) or close more."""
    torch.manual_seed(1)
    model = sparsify(LAYERS[layer].make(), METHODS[method](groups=groups))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("log_alpha"):
                parameter.copy_(torch.randn_like(parameter) * 2 - 1.5 - closed)
            elif name.endswith("log_sigma2"):
                parameter.copy_(torch.randn_like(parameter) * 2 - 1.0 + closed)
    if method == "magnitude":
        project(model, keep=prunable_parameters(model) // 2)
    return model


def run(model: nn.Module, layer: str) -> Tensor:
    output = model(LAYERS[layer].input)
    return output[0] if isinstance(output, tuple) else output


def plain_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the masked model by the names of `keep_mask`; of a factorised layer before its parts are dropped."""
    return {name: state.deployed(mean).detach() for name, mean, state in model.states()}


@every_case
def test_deployed_equals_the_masked_model(method: str, layer: str, groups: tuple[str, ...]) -> None:
    model = make(method, layer, groups).eval()
    plain = harden(model)
    assert type(plain) is type(LAYERS[layer].make())
    assert (run(plain, layer) - run(model, layer)).abs().max() <= 1e-6
    kept = 0
    masks, weights = keep_mask(model), dict(plain.named_parameters())
    for name, value in plain_weights(model).items():
        assert torch.equal(value != 0, masks[name]), name
        kept += int(masks[name].sum())
        if not isinstance(plain, Factorised):
            assert torch.equal(weights[name], value), name
    assert kept == kept_parameters(model)
    assert density(model) == kept / prunable_parameters(model)
    if isinstance(plain, Factorised):
        assert plain.rank <= 5
        if "rank" in groups:
            assert plain.rank == int(model.shared_gates()["rank"].keep_mask().sum())


@every_case
def test_expected_count_is_the_sum_of_products(method: str, layer: str, groups: tuple[str, ...]) -> None:
    """The product of independent units, element by element; VD's smooth count is held to the same product."""
    model = make(method, layer, groups)
    total = 0.0
    for _, mean, state in model.states():
        chance = torch.ones(mean.shape, dtype=torch.float64)
        for values_of_units, division in state.open_probabilities(mean):
            chance = chance * division.spread(values_of_units.detach().double())
        if state.zero_row is not None:
            chance[state.zero_row] = 0.0
        total += float(chance.sum())
    assert float(expected_kept(model).detach()) == pytest.approx(total, rel=1e-5, abs=1e-6)
    assert float(expected_density(model).detach()) == pytest.approx(
        total / prunable_parameters(model), rel=1e-5
    )


@every_case
def test_gradients_reach_every_gate_and_weight(method: str, layer: str, groups: tuple[str, ...]) -> None:
    model = make(method, layer, groups, closed=-2.0)
    if method != "magnitude":
        total = penalty(model)
        assert total.isfinite()
        assert total >= 0
        total.backward()
        for parameter in gate_parameters(model):
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.count_nonzero() > 0
    model.zero_grad()
    for _ in range(8):  # a gate that is drawn at 0 or 1 has no gradient in that step
        run(model, layer).square().sum().backward()
        if any(gate.grad is not None and gate.grad.any() for gate in gate_parameters(model)):
            break
    for name, mean, _ in model.states():
        assert mean.grad is not None, name
        assert mean.grad.isfinite().all()
    assert sum(int(p.grad.count_nonzero()) for p in gate_parameters(model)) > 0 or method == "magnitude"


@every_case
def test_projection_keeps_the_number_asked_for(method: str, layer: str, groups: tuple[str, ...]) -> None:
    model = make(method, layer, groups)
    release(model)
    total = prunable_parameters(model)
    usable = total - (5 if layer == "Embedding" else 0)
    before = 0
    for count in (1, total // 3, total):
        kept = project(model, keep=count)
        assert kept == kept_parameters(model) <= count
        assert kept >= before
        before = kept
        if method == "vd" or "weight" in groups:
            assert kept == min(count, usable)
    assert before == usable
    project(model, keep=total // 3)
    other = make(method, layer, groups)
    other.load_state_dict(model.state_dict())
    for name, mask in keep_mask(model).items():
        assert torch.equal(keep_mask(other)[name], mask), "cuts are part of the state dict"
    assert torch.equal(run(other.eval(), layer), run(model.eval(), layer))
    release(model)
    assert method != "magnitude" or kept_parameters(model) == usable


@every_case
def test_everything_pruned_still_runs(method: str, layer: str, groups: tuple[str, ...]) -> None:
    model = make(method, layer, groups)
    assert project(model, keep=0) == 0
    assert run(model, layer).isfinite().all()
    model.eval()
    assert density(model) == 0.0
    assert run(model, layer).isfinite().all()
    assert (run(harden(model), layer) - run(model, layer)).abs().max() <= 1e-6


@every_case
def test_16_bits_and_broken_numbers(method: str, layer: str, groups: tuple[str, ...]) -> None:
    model = make(method, layer, groups)
    with torch.autocast("cpu", torch.bfloat16):
        output = run(model, layer)
        assert output.isfinite().all()
        output.float().sum().backward()
    with torch.no_grad():
        for _, mean, _ in model.states():
            mean.fill_(math.nan)
        for parameter in gate_parameters(model):
            parameter.fill_(math.nan)
    with pytest.raises(ValueError, match="not numbers"):
        project(model, keep=1)


@pytest.mark.parametrize(
    ("layer", "groups"),
    [
        ("Linear", ("weight", "input")),
        ("Linear", ("input", "output")),
        ("Linear", ("8x4",)),
        ("Conv2d", ("input", "output")),
        ("Embedding", ("word", "dimension")),
        ("Factorised", ("rank",)),
        ("nn.LSTM", ("weight", "gate", "input")),
    ],
)
def test_hard_concrete_forward_has_the_mean_of_its_gates(layer: str, groups: tuple[str, ...]) -> None:
    """The mean of 500 drawn weights is the weight times the means of its gates."""
    model = make("l0", layer, groups)
    for _, mean, state in model.states():
        expected = mean.detach().clone()
        for gate, division in state.gates():
            used = next((use.scales for use in state.shared if use.gate is gate), True)
            if used:
                expected = expected * division.spread(gate.mean(gate.log_alpha.detach()))
        with torch.no_grad():
            drawn = torch.stack([state.sample(mean) for _ in range(500)])
        share = (
            expected / mean.detach()
        ).nan_to_num()  # of a factor in [0, 1]: its variance is at most its mean
        error = mean.detach().abs() * (6 * (share / 500).sqrt() + 6 / 500)
        assert ((drawn.mean(0) - expected).abs() <= error).all()


@pytest.mark.parametrize(("method", "layer", "group"), NOT_OFFERED, ids=str)
def test_what_is_not_offered_is_refused_by_name(method: str, layer: str, group: str) -> None:
    with pytest.raises(
        ValueError, match=f"{method}: no layer of the model offers the group '{group}': .*offers"
    ):
        sparsify(nn.Sequential(LAYERS[layer].make()), METHODS[method](groups=(group,)))


def test_samples_of_predictions_spread_with_the_posterior() -> None:
    model = make("vd", "Linear", ("weight",)).eval()
    model.train(mode=False)
    samples = predict_samples(model, LAYERS["Linear"].input, n_samples=400)
    assert samples.shape == (400, 5, 9)
    assert not model.training
    state = model.states()[0][2]
    x = LAYERS["Linear"].input
    expected = (x * x) @ torch.exp(state.log_sigma2).t()
    assert ((samples.var(0) / expected).detach() - 1).abs().max() < 0.5
    with pytest.raises(ValueError, match="n_samples must be at least 1"):
        predict_samples(model, x, n_samples=0)
