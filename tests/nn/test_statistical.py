"""The Statistical Recurrent Unit as a layer: what the contract table does not hold."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from karui.nn import LSTM, StatisticalRecurrentUnit
from karui.nn.statistical import ALPHAS_DEFAULT, ALPHAS_LONG

T, B, I, H = 9, 3, 4, 5  # noqa: E741
SMALL: dict[str, Any] = {"num_stats": 6, "recur_size": 3}
LENGTHS = torch.tensor([9, 4, 1])


def build(**options: Any) -> StatisticalRecurrentUnit:
    torch.manual_seed(2)
    layer = StatisticalRecurrentUnit(I, H, **(SMALL | options))
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias"):  # zero at first: a bias that is left out would not show
                parameter.uniform_(-0.5, 0.5)
    return layer


def inputs() -> Tensor:
    return torch.randn(T, B, I, generator=torch.Generator().manual_seed(8))


def plain_loop(layer: StatisticalRecurrentUnit, x: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 7 to 10 as the paper writes them: one scale at a time, [x; r] as one vector."""
    f = {"relu": torch.relu, "elu": F.elu, "tanh": torch.tanh}[layer.activation]
    P, outputs = layer.num_stats, []
    for x_t in x:
        seen, weight = x_t, layer.weight_ih_l0
        if layer.recur_size:
            r = f(mu @ layer.weight_r_l0.T + layer.bias_r_l0)
            seen = torch.cat([x_t, r], dim=1)
            weight = torch.cat([layer.weight_ih_l0, layer.weight_phi_l0], dim=1)
        phi = f(seen @ weight.T + layer.bias_phi_l0)
        scales = [
            alpha * mu[:, k * P : (k + 1) * P] + (1 - alpha) * phi for k, alpha in enumerate(layer.alphas)
        ]
        mu = torch.cat(scales, dim=1)
        read = torch.cat([mu, x_t], dim=1) if layer.include_input else mu
        o = read @ layer.weight_o_l0.T + layer.bias_o_l0
        outputs.append(o if layer.linear_output else f(o))
    return torch.stack(outputs), mu


@pytest.mark.parametrize("alphas", [ALPHAS_DEFAULT, ALPHAS_LONG, (0.99,)], ids=["default", "long", "one"])
@pytest.mark.parametrize("recur_size", [3, 0])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "elu", "linear_output": True},
        {"activation": "tanh", "include_input": True},
    ],
    ids=str,
)
def test_equals_the_papers_equations(
    alphas: tuple[float, ...], recur_size: int, options: dict[str, Any]
) -> None:
    """The full unit, and with one scale or no feedback the ablations recur, multi and iid."""
    layer = build(alphas=alphas, recur_size=recur_size, **options).double()
    x, first = inputs().double(), torch.rand(1, B, 6 * len(alphas), dtype=torch.float64)
    output, state = layer(x, first)
    expected, mu = plain_loop(layer, x, first[0])
    assert (output - expected).abs().max() < 1e-12
    assert (state[0] - mu).abs().max() < 1e-12


def test_published_size_has_272660_parameters() -> None:
    layer = StatisticalRecurrentUnit(1, 200, num_stats=200, recur_size=60, alphas=ALPHAS_LONG)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 272_660
    # The published count of the LSTM beside it has one bias vector a gate, torch's layer has two.
    assert sum(parameter.numel() for parameter in LSTM(1, 200).parameters()) == 162_400


@pytest.mark.parametrize("options", [{}, {"include_input": True}, {"num_layers": 2, "proj_size": 3}], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_last_step_alone_is_the_last_of_all(options: dict[str, Any], batch_first: bool) -> None:
    every, last = build(**options), build(output_steps="last", batch_first=batch_first, **options)
    last.load_state_dict(every.state_dict())
    output, state = every(inputs(), lengths=LENGTHS)
    given = inputs().transpose(0, 1) if batch_first else inputs()
    found, state_again = last(given, lengths=LENGTHS)
    found = found.transpose(0, 1) if batch_first else found
    assert found.shape == (1, *output.shape[1:])
    ends = torch.stack([output[n - 1, b] for b, n in enumerate(LENGTHS.tolist())])
    assert (found[0] - ends).abs().max() < 1e-6
    assert (state - state_again).abs().max() < 1e-6
    packed, _ = last(pack_sequence([inputs()[:n, b] for b, n in enumerate(LENGTHS.tolist())]))
    assert (packed[0] - ends).abs().max() < 1e-6


def test_last_step_of_two_directions_is_the_last_and_the_first() -> None:
    every, last = build(bidirectional=True), build(bidirectional=True, output_steps="last")
    output, found = every(inputs(), lengths=LENGTHS)[0], last(inputs(), lengths=LENGTHS)[0][0]
    ends = torch.stack([output[n - 1, b, :H] for b, n in enumerate(LENGTHS.tolist())])
    assert (found[:, :H] - ends).abs().max() < 1e-6
    assert (found[:, H:] - output[0, :, H:]).abs().max() < 1e-6


def test_learned_alphas_start_clamped_move_and_stay_inside() -> None:
    layer = build(learn_alphas=True, alphas=(0.0, 0.5, 1.0))
    first = layer.decays(0, "", inputs())
    assert (first - torch.tensor([1e-3, 0.5, 0.9995])).abs().max() < 1e-6
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        layer(inputs())[0].square().mean().backward()
        assert layer.alpha_logit_l0.grad.count_nonzero() == 3
        optimizer.step()
    assert (layer.decays(0, "", inputs()) != first).all()
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        with torch.no_grad():
            layer.to(dtype).alpha_logit_l0.copy_(torch.tensor([-500.0, 0.0, 500.0]))
        alphas = layer.decays(0, "", inputs().to(dtype))
        assert (alphas > 0).all()
        assert (alphas < 1).all()


def test_long_averages_survive_16_bits() -> None:
    layer = StatisticalRecurrentUnit(1, 2, num_stats=3, recur_size=0, alphas=(0.999,), output_steps="last")
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1.0)
    _, state = layer.bfloat16()(torch.ones(500, 1, 1, dtype=torch.bfloat16))
    assert (state.float() - (1 - 0.999**500)).abs().max() < 2e-3


def test_first_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    layer = StatisticalRecurrentUnit(30, 200, num_stats=200, recur_size=60, alphas=ALPHAS_LONG)
    joint = (12.0 / (30 + 60 + 200)) ** 0.5  # Xavier with ReLU's gain over [x; r] -> phi
    for name, bound in (("ih", joint), ("phi", joint), ("r", (12 / 1060) ** 0.5), ("o", (12 / 1200) ** 0.5)):
        weight = getattr(layer, f"weight_{name}_l0").detach()
        assert 0.99 * bound < weight.abs().max() <= bound, name
        assert abs(weight.var() * 3 / bound**2 - 1) < 0.05, name
    assert all(parameter.eq(0).all() for name, parameter in layer.named_parameters() if "bias" in name)
    other = StatisticalRecurrentUnit(30, 20, init="uniform")
    weights = [parameter for name, parameter in other.named_parameters() if name.startswith("weight")]
    assert all(0.09 < weight.detach().abs().max() <= 0.1 for weight in weights)


def test_a_constant_input_is_averaged_to_its_statistics() -> None:
    """Every scale forgets its start as alpha to the power of t."""
    layer = build(recur_size=0, alphas=(0.0, 0.5, 0.9))
    x = torch.ones(200, 1, I)
    phi = torch.relu(F.linear(x[0], layer.weight_ih_l0, layer.bias_phi_l0))
    _, state = layer(x[:3])
    kept = torch.tensor([0.0, 0.5**3, 0.9**3])[:, None]
    assert (state.view(3, 6) - (1 - kept) * phi).abs().max() < 1e-6
    _, state = layer(x)
    assert (state.view(3, 6) - phi).abs().max() < 1e-6


def test_without_biases_or_feedback_the_parameters_are_gone() -> None:
    names = {name for name, _ in build(bias=False, bidirectional=True).named_parameters()}
    kinds = ("weight_ih", "weight_phi", "weight_r", "weight_o")
    assert names == {f"{kind}_l0{suffix}" for kind in kinds for suffix in ("", "_reverse")}
    names = {name for name, _ in build(recur_size=0).named_parameters()}
    assert names == {"weight_ih_l0", "weight_o_l0", "bias_phi_l0", "bias_o_l0"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_stats": 0}, "num_stats must be at least 1, got 0"),
        ({"recur_size": -1}, "recur_size must be at least 0, got -1"),
        ({"alphas": ()}, r"alphas must be one or more numbers in \[0, 1\], got \(\)"),
        ({"alphas": (0.5, 1.5)}, r"alphas must be .* got \(0.5, 1.5\)"),
        ({"activation": "gelu"}, "activation must be one of .* got 'gelu'"),
        ({"output_steps": "first"}, "output_steps must be one of .* got 'first'"),
        ({"init": "zeros"}, "init must be one of .* got 'zeros'"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StatisticalRecurrentUnit(I, H, **options)
