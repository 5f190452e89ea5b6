"""The Simple Recurrent Unit against its formulas, written out step by step; its options and first values."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn import SRU

G_OF = {"identity": lambda c: c, "tanh": torch.tanh, "relu": torch.relu}


def by_hand(layer: SRU, x: Tensor, c: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One layer, one direction: recurrences of 2018 (v2) and 2017 (v1: no state in the gates, mask on g(c) only)."""
    H, g, old = layer.hidden_size, G_OF[layer.activation], layer.variant == "v1"
    v = torch.zeros(2 * H, dtype=x.dtype) if old else layer.weight_c_l0
    b = layer.bias_l0 if layer.bias else torch.zeros(2 * H, dtype=x.dtype)
    product = layer.weight_ih_l0 if layer.input_rank is None else layer.weight_ih_l0 @ layer.weight_rank_l0
    outputs = []
    for x_t in x:
        u = F.linear(x_t, product).split(H, dim=1)
        skip = u[3] if len(u) == 4 else layer.skip_scale * x_t if layer.has_skip_term else torch.zeros_like(c)
        f = torch.sigmoid(u[1] + v[:H] * c + b[:H])
        r = torch.sigmoid(u[2] + v[H:] * c + b[H:])
        c = f * c + (1 - f) * u[0]
        h = (mask * g(c) - skip) * r + skip if old else (g(c) - skip) * mask * r + skip
        outputs.append(h)
    return torch.stack(outputs), c


@pytest.mark.parametrize("implementation", ["reference", "cpp"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("activation", ["identity", "tanh", "relu"])
@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize(
    "options",
    [{}, {"input_size": 7}, {"has_skip_term": False, "bias": False}, {"input_rank": 2, "highway_bias": -1.0}],
    ids=["skip", "projected", "bare", "rank"],
)
def test_equals_the_formula(
    options: dict, variant: str, activation: str, dropout: float, implementation: str
) -> None:
    torch.manual_seed(3)
    chosen = {"input_size": 5, "variant": variant, "activation": activation, "implementation": implementation}
    layer = SRU(hidden_size=5, **(chosen | options)).double()
    x, c_0 = torch.randn(6, 3, layer.input_size).double(), torch.randn(3, 5).double()
    mask = F.dropout(torch.ones(3, 5).double(), dropout)
    layer._dropout_mask = lambda *_: mask if dropout else None  # type: ignore[method-assign]
    output, c_n = layer(x, c_0[None])
    expected, c = by_hand(layer, x, c_0, mask)
    upstream = torch.randn_like(output)
    assert (output - expected).abs().max() < 1e-12
    assert (c_n[0] - c).abs().max() < 1e-12
    ours = torch.autograd.grad((output * upstream).sum() + c_n.sum(), list(layer.parameters()))
    theirs = torch.autograd.grad((expected * upstream).sum() + c.sum(), list(layer.parameters()))
    assert all((a - b).abs().max() < 1e-11 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.5}, r"dropout must be in \[0, 1\), got 1.5"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"activation": "gelu"}, "activation must be 'identity', 'tanh' or 'relu', got 'gelu'"),
        ({"variant": "v3"}, "variant must be 'v1' or 'v2', got 'v3'"),
        ({"layer_norm": "both"}, "layer_norm must be None, 'pre' or 'post', got 'both'"),
        ({"proj_size": 4}, r"proj_size must be in \[0, hidden_size=4\), got 4"),
        ({"bias": False, "highway_bias": -1.0}, "highway_bias must be 0 with bias=False, got -1.0"),
        ({"input_rank": 3}, r"input_rank must be at least 1 and below an input width \[3\] .* 4, got 3"),
        ({"input_rank": 0}, "input_rank must be at least 1 .* got 0"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SRU(**({"input_size": 3, "hidden_size": 4} | options))


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="input must have 3 features"):
        SRU(3, 4)(torch.zeros(2, 2, 5))
    with pytest.raises(ValueError, match=r"hx must have shape \(1, 2, 4\)"):
        SRU(3, 4)(torch.zeros(2, 2, 3), torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match=r"input must have shape \(B, 3\), got \(1, 2, 3\)"):
        SRU(3, 4).step(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="step needs bidirectional=False"):
        SRU(3, 4, bidirectional=True).step(torch.zeros(2, 3))


def test_dropout_masks_are_shared_by_all_steps() -> None:
    torch.manual_seed(0)
    layer = SRU(4, 4, 2, variant="v1", has_skip_term=False, dropout=0.5, bias=False)
    with torch.no_grad():
        seen = layer._run_and_wrap(torch.rand(50, 3, 4), 0, torch.zeros(1, 3, 4), None)[0]
    dropped = seen == 0.0
    assert torch.equal(dropped.all(0), dropped.any(0))  # a unit is off at all steps or at none
    assert 0 < int(dropped.any(0).sum()) < dropped[0].numel()


def test_recurrent_dropout_spares_the_skip() -> None:
    torch.manual_seed(0)
    layer = SRU(4, 4, recurrent_dropout=0.999, rescale=False, highway_bias=-30.0)
    x = torch.randn(5, 3, 4)
    assert (layer(x)[0] - x).abs().max() < 1e-6  # the transform gate is shut: the skip alone answers


def test_only_layers_that_a_rank_makes_smaller_have_one() -> None:
    layer = SRU(3, 8, 2, input_rank=4)
    assert layer.weight_ih_l0.shape == (32, 3)
    assert (layer.weight_rank_l1.shape, layer.weight_ih_l1.shape) == ((4, 8), (24, 4))


def test_initial_spread_is_the_published_one() -> None:
    torch.manual_seed(0)
    layer = SRU(400, 300, highway_bias=-2.0)
    weight = layer.weight_ih_l0.detach()
    assert abs(weight[:300].var() * 400 - 1.0) < 0.02
    assert abs(weight[300:900].var() * 400 - 0.5) < 0.02
    assert abs(weight[900:].var() * 400 - layer.skip_scale**2) < 0.05
    assert layer.bias_l0[300:].eq(-2.0).all()
    assert layer.bias_l0[:300].eq(0.0).all()
    assert abs(layer.weight_c_l0.detach().abs().max() - 1.5**0.5) < 0.01
    old = SRU(400, 400, variant="v1", layer_norm="pre", dropout=0.75, rescale=2.5)
    assert abs(old.weight_ih_l0[400:].detach().var() * 400 - 0.01) < 2e-4
    assert abs(old.weight_ih_l0[:400].detach().var() * 400 - 0.0025) < 1e-4
    assert not hasattr(old, "weight_c_l0")
    assert (old.skip_scale, layer.skip_scale) == (2.5, math.sqrt(1 + 2 * math.exp(-2.0)))


def test_repr_names_what_is_not_default() -> None:
    assert repr(SRU(3, 4, 2, layer_norm="pre")) == "SRU(3, 4, num_layers=2, layer_norm='pre')"
