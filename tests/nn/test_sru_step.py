"""`SRU.step` without gradients, which is compiled, against one call over all steps."""

import pytest
import torch

from karui.nn import SRU
from karui.ops.simple_recurrence import step as compiled
from tests.support.kernel_proof import assert_as_exact_as_plain

OPTIONS = [
    {},
    {"num_layers": 3, "variant": "v1", "activation": "tanh"},
    {"input_size": 6, "hidden_size": 6, "rescale": 1.3, "highway_bias": -1.0},
    {"has_skip_term": False, "bias": False},
    {"layer_norm": "pre", "proj_size": 3},
    {"layer_norm": "post", "input_rank": 2, "activation": "relu"},
    {"dropout": 0.3, "recurrent_dropout": 0.2},
]


def build(options: dict) -> SRU:
    torch.manual_seed(4)
    return SRU(**({"input_size": 7, "hidden_size": 5, "num_layers": 2} | options)).eval()


def walk(layer: SRU, x: torch.Tensor, hx: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = []
    for x_t in x:
        output, hx = layer.step(x_t, hx)
        outputs.append(output)
    assert hx is not None
    return torch.stack(outputs), hx


@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("batch", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("options", OPTIONS)
def test_steps_equal_one_call(options: dict, batch: int, given_state: bool) -> None:
    layer = build(options)
    truth = build(options).double()
    truth.load_state_dict(layer.state_dict())
    x = torch.randn(6, batch, layer.input_size)
    c_0 = torch.randn(layer.num_layers, batch, layer.hidden_size) if given_state else None
    with torch.no_grad():
        found, plain = walk(layer, x, c_0), layer(x, c_0)
        exact = truth(x.double(), None if c_0 is None else c_0.double())
    for name, *tensors in zip(("output", "c_n"), found, plain, exact, strict=True):
        assert_as_exact_as_plain(name, *tensors)


def test_the_compiled_step_runs_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = compiled.simple_recurrence_step
    monkeypatch.setattr(
        compiled, "simple_recurrence_step", lambda *a, **k: (calls.append(1), original(*a, **k))[1]
    )
    layer = build({"dropout": 0.5})
    x = torch.randn(2, 7)

    def used(layer: SRU, x: torch.Tensor) -> int:
        calls.clear()
        layer.step(x)
        return len(calls)

    assert used(layer, x) == 0  # a gradient may be asked for
    with torch.no_grad():
        assert used(layer, x) == 2
        assert used(layer.train(), x) == 0
        assert used(build({"implementation": "reference"}), x) == 0
        assert used(layer.eval(), torch.randn(9, 7)) == 0
        assert used(build({}).bfloat16(), x.bfloat16()) == 0
    with torch.inference_mode():
        assert used(layer, x) == 2


def test_gradients_flow_through_steps() -> None:
    layer = build({}).double()
    x = torch.randn(4, 2, 7, dtype=torch.float64)
    stepped = torch.autograd.grad(walk(layer, x, None)[0].square().sum(), list(layer.parameters()))
    whole = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    for a, b in zip(stepped, whole, strict=True):
        assert_as_exact_as_plain("gradient", a, b, b)


def test_changed_weights_count_at_once() -> None:
    layer, x = build({}), torch.randn(1, 7)
    with torch.no_grad():
        before = layer.step(x)[0]
        layer.weight_ih_l0.mul_(2.0)
        after = layer.step(x)[0]
        assert not torch.equal(before, after)
        assert_as_exact_as_plain("output", after, layer(x[None])[0][0], layer(x[None])[0][0].double())


@pytest.mark.parametrize(
    ("x", "hx", "message"),
    [
        (torch.zeros(2, 6), None, r"input must have shape \(B, 7\), got \(2, 6\)"),
        (torch.zeros(7), None, r"input must have shape \(B, 7\), got \(7,\)"),
        (torch.zeros(2, 7).double(), None, "input must have the dtype of the weights, torch.float32"),
        (torch.zeros(2, 7), torch.zeros(2, 3, 5), r"hx must have shape \(2, 2, 5\), got \(2, 3, 5\)"),
        (torch.zeros(2, 7), torch.zeros(2, 2, 5).double(), "c_0 must have the dtype of u"),
    ],
)
def test_errors_are_those_of_the_general_path(x: torch.Tensor, hx: torch.Tensor | None, message: str) -> None:
    layer = build({})
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients), pytest.raises(ValueError, match=message):
            layer.step(x, hx)
