"""SRU++ against its formula, and what its attention must not see."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn.srupp import SRUpp
from karui.ops.simple_recurrence import simple_recurrence


def build(**options) -> SRUpp:
    torch.manual_seed(5)
    layer = SRUpp(5, 6, **({"attention_size": 4, "num_heads": 2} | options)).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("attention"):  # they start where attention has no effect
                parameter.uniform_(0.5, 1.5)
    return layer


def by_hand(layer: SRUpp, x: Tensor) -> Tensor:
    """Equations of the paper for one causal layer, one sequence, head and step at a time."""
    T, B, H, p, heads = *x.shape[:2], layer.hidden_size, layer.attention_size, layer.num_heads
    z = x @ layer.weight_rank_l0.t()
    k, v = (z @ layer.weight_kv_l0.t()).split(p, dim=-1)
    attended = torch.zeros_like(z)
    for b in range(B):
        for part in torch.arange(p).chunk(heads):
            for t in range(T):
                score = k[: t + 1, b, part] @ z[t, b, part] / math.sqrt(p / heads)
                attended[t, b, part] = score.softmax(0) @ v[: t + 1, b, part]
    o = z + layer.attention_scale_l0 * attended
    o = F.layer_norm(o, (p,), layer.attention_norm_weight_l0, layer.attention_norm_bias_l0)
    u = (o @ layer.weight_ih_l0.t()).view(T, B, 1, 4, H)
    gates = [parameter.view(1, 2, H) for parameter in (layer.weight_c_l0, layer.bias_l0)]
    return simple_recurrence(u, None, *gates, c_0=x.new_zeros(1, B, H), implementation="reference")[0]


@pytest.mark.parametrize("implementation", ["reference", None])
def test_equals_the_formula(implementation: str | None) -> None:
    layer, x = build(implementation=implementation), torch.randn(7, 3, 5).double()
    assert (layer(x)[0] - by_hand(layer, x)).abs().max() < 1e-12


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True, "num_layers": 2}, {"causal": False, "proj_size": 2}]
)
def test_fused_and_plain_attention_agree(options: dict) -> None:
    x = torch.randn(7, 3, 5).double()
    mask = torch.rand(3, 7) < 0.4
    for given in (None, mask):
        plain = build(**options, implementation="reference")(x, padding_mask=given)
        fused = build(**options)(x, padding_mask=given)
        assert all((a - b).abs().max() < 1e-12 for a, b in zip(plain, fused, strict=True))


@pytest.mark.parametrize("implementation", ["reference", None])
def test_a_causal_layer_does_not_see_the_future(implementation: str | None) -> None:
    layer, x = build(num_layers=2, implementation=implementation), torch.randn(8, 2, 5).double()
    before = layer(x)[0]
    x[5:] += 1.0
    after = layer(x)[0]
    assert torch.equal(before[:5], after[:5]) or (before[:5] - after[:5]).abs().max() < 1e-12
    assert (before[5:] - after[5:]).abs().max() > 1e-3
    whole = build(causal=False)
    assert (whole(x)[0][0] - whole(x[:7])[0][0]).abs().max() > 1e-3


def test_attention_starts_without_effect_and_every_nth_layer_has_it() -> None:
    torch.manual_seed(0)
    layer = SRUpp(6, 6, 4, attention_size=3, attention_every=2)
    names = [name for name, _ in layer.named_parameters() if name.startswith("weight_kv")]
    assert names == ["weight_kv_l1", "weight_kv_l3"]
    x = torch.randn(5, 2, 6)
    output = layer(x)[0]
    with torch.no_grad():
        layer.weight_kv_l1.normal_()
    assert torch.equal(layer(x)[0], output)
    assert layer.bias_l0[6:].eq(-2.0).all()


def test_memory_is_seen_and_keeps_its_newest_steps() -> None:
    layer, x = build(memory_len=4, attention_every=2, num_layers=2), torch.randn(6, 2, 5).double()
    _, state = layer(x)
    assert [tuple(part.shape) for part in state] == [(2, 2, 6), (1, 2, 4, 4), (1, 2, 4)]
    assert not state[2].any()
    c, memory, absent = state
    output, _ = layer(x, state)
    assert (layer(x, (c, memory + 1.0, absent))[0] - output).abs().max() > 1e-4
    hidden, _ = layer(x, (c, memory, torch.ones_like(absent)))
    assert torch.equal(hidden, layer(x, (c, memory + 1.0, torch.ones_like(absent)))[0])
    _, again = layer(x[:1], state)
    assert torch.equal(again[1][:, :, :3], memory[:, :, 1:])


@pytest.mark.parametrize("options", [{}, {"memory_len": 3}, {"causal": False, "bidirectional": True}])
def test_gradients(options: dict) -> None:
    layer = build(**options, implementation="reference")
    x = torch.randn(4, 2, 5).double().requires_grad_()
    mask = torch.tensor([[True, False, False, False], [False, False, True, True]])
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, given, (x,), {"padding_mask": mask})[0]

    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "attention_size=4 must be a multiple of num_heads=3"),
        ({"attention_every": 2}, r"attention_every must be in \[1, num_layers=1\], got 2"),
        ({"memory_len": -1}, "memory_len must be at least 0, got -1"),
        ({"attention_dropout": 1.0}, r"attention_dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_states_that_do_not_fit_are_refused() -> None:
    layer, x = build(memory_len=3), torch.zeros(2, 2, 5).double()
    c, memory, absent = layer(x)[1]
    with pytest.raises(ValueError, match=r"hx must be \(c, memory, memory_padding_mask\)"):
        layer(x, c)
    with pytest.raises(ValueError, match="memory in hx must have shape"):
        layer(x, (c, memory[:, :1], absent))


def test_attention_dropout_acts_in_training_alone() -> None:
    layer, x = build(attention_dropout=0.5), torch.randn(7, 3, 5).double()
    assert not torch.equal(layer(x)[0], layer(x)[0])
    assert torch.equal(layer.eval()(x)[0], build()(x)[0])
