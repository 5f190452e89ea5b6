"""QRNN: its equations in float64 against a loop over single sequences, its window of two inputs, zoneout."""

from typing import Any

import pytest
import torch
from torch import Tensor

import karui.nn.qrnn as module
from karui.nn.qrnn import QRNN

T, B, N, H = 7, 4, 5, 3  # N features in
PADDING = torch.tensor(
    [[0, 0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 1, 0, 1], [1] * 7], dtype=torch.bool
)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"output_gate": False, "bias": False},
    {"num_layers": 2, "bidirectional": True},
    {"window": 2},
    {"window": 2, "num_layers": 2, "bidirectional": True, "output_gate": False},
    {"window": 2, "num_layers": 2, "bidirectional": True, "proj_size": 2, "layer_norm": "pre"},
    {"zoneout": 0.3, "forget_bias": 1.0, "window": 2},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")


def build(**options: Any) -> QRNN:
    torch.manual_seed(3)
    layer = QRNN(N, H, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return layer


def inputs(batch_size: int = B) -> Tensor:
    return torch.randn(T, batch_size, N, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def first_state(layer: QRNN) -> Any:
    generator = torch.Generator().manual_seed(5)
    many = layer.num_layers * layer.num_directions
    width = max(layer.layer_input_size(k) for k in range(layer.num_layers))
    c = torch.randn(many, B, H, generator=generator, dtype=torch.float64)
    last = torch.randn(many, B, width, generator=generator, dtype=torch.float64)
    return c if layer.window == 1 else (c, last)


def flat(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def loop(layer: QRNN, x: Tensor, state: Any, padding: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The equations of the docstring in eval(): one sequence, direction and step at a time."""
    D, ends_c, ends_last = layer.num_directions, [], []
    c_0, last_0 = (state, None) if layer.window == 1 else state
    for k in range(layer.num_layers):
        if layer.layer_norm == "pre":
            weights = (getattr(layer, f"norm_{kind}_l{k}") for kind in ("weight", "bias"))
            x = torch.nn.functional.layer_norm(x, x.shape[2:], *weights)
        outputs = []
        for d in range(D):
            p = {n.removesuffix(f"_l{k}" + "_reverse" * d): w for n, w in layer.named_parameters()}
            columns, cs, lasts = [], [], []
            for b in range(B):
                c, column = c_0[k * D + d, b], [torch.zeros(layer.proj_size or H, dtype=x.dtype)] * T
                before = None if last_0 is None else last_0[k * D + d, b, : x.shape[2]]
                for t in range(T - 1, -1, -1) if d else range(T):
                    if padding is not None and padding[b, t]:
                        continue
                    seen = x[t, b] if before is None else torch.cat([x[t, b], before])
                    gates = p["weight_ih"] @ seen + (p["bias_ih"] if layer.bias else 0.0)
                    z, f = gates[:H].tanh(), gates[H : 2 * H].sigmoid()
                    f = 1 - (1 - layer.zoneout) * (1 - f)
                    c = f * c + (1 - f) * z
                    h = gates[2 * H :].sigmoid() * c if layer.output_gate else c
                    column[t] = p["weight_hr"] @ h if layer.proj_size else h
                    before = x[t, b] if before is not None else None
                columns.append(torch.stack(column))
                cs.append(c)
                lasts.append(before)
            outputs.append(torch.stack(columns, 1))
            ends_c.append(torch.stack(cs))
            if last_0 is not None:
                beyond = last_0[k * D + d, :, x.shape[2] :]  # not this layer's: it passes through
                ends_last.append(torch.cat([torch.stack(lasts), beyond], 1))
        x = torch.cat(outputs, 2)
    return x, [torch.stack(part) for part in (ends_c, ends_last) if part]


def gradients(output: Tensor, state: Any, leaves: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(6)
    loss = sum(
        (p * torch.randn(p.shape, generator=generator, dtype=p.dtype)).sum() for p in (output, *flat(state))
    )
    return list(torch.autograd.grad(loss, leaves))


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() < 1e-11 * (1 + b.abs().max())


@pytest.mark.parametrize("padding", [None, PADDING], ids=["whole", "padded"])
@every_option
def test_outputs_states_and_gradients_equal_the_equations(options: Any, padding: Tensor | None) -> None:
    layer, clean = build(**options).eval(), inputs().requires_grad_()
    state = first_state(layer)
    leaves = [part.requires_grad_() for part in flat(state)]
    expected, last = loop(layer, clean, state, padding)
    truth = gradients(expected, tuple(last), [*layer.parameters(), clean, *leaves])
    x = inputs()
    if padding is not None:
        x[padding.t()] = torch.nan
    x.requires_grad_()
    output, found = layer(x, state, padding_mask=padding)
    assert_same([output, *flat(found)], [expected, *last])
    assert_same(gradients(output, found, [*layer.parameters(), x, *leaves]), truth)
    if padding is not None:
        assert output[padding.t()].count_nonzero() == 0


@every_option
def test_chunks_and_steps_with_carried_state_equal_the_whole(options: Any) -> None:
    layer, x = build(**(options | {"bidirectional": False})).eval(), inputs()
    whole, last = layer(x, first_state(layer))
    first, state = layer(x[:3], first_state(layer))
    second, state = layer(x[3:], state)
    assert_same([torch.cat([first, second]), *flat(state)], [whole, *flat(last)])
    state, outputs = first_state(layer), []
    for x_t in x:
        output, state = layer.step(x_t, state)
        outputs.append(output)
    assert_same([torch.stack(outputs), *flat(state)], [whole, *flat(last)])
    assert layer(x[:0], first_state(layer))[0].shape == whole[:0].shape
    assert_same(flat(layer(x[:0], first_state(layer))[1]), flat(first_state(layer)))


@pytest.mark.parametrize("window", [1, 2])
def test_double_backward(window: int) -> None:
    layer, x = build(window=window), inputs()[:3, :2].clone().requires_grad_()
    mask = torch.tensor([[False, True, False], [False, False, False]])
    assert torch.autograd.gradgradcheck(lambda x: layer(x, padding_mask=mask)[0], x)


def test_window_two_reads_the_older_input_from_the_second_half_of_the_columns() -> None:
    layer, x = build(window=2, output_gate=False), inputs()
    with torch.no_grad():
        layer.weight_ih_l0[:, :N] = 0.0
    one, two = layer(x)[0], layer(torch.cat([x[:-1], x[:1]]))[0]
    assert torch.equal(one, two)  # the last input is not read yet
    assert not torch.equal(one, layer(torch.cat([x[:-2], x[:2]]))[0])


def test_zoneout_keeps_the_state_of_single_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, plain = build(zoneout=0.25), build()
    x = torch.randn(200, 8, N, dtype=torch.float64)
    seen: list[tuple[Tensor, Tensor]] = []
    recurrence = module.linear_recurrence

    def record(f: Tensor, b: Tensor, **rest: Any) -> Any:
        seen.append((f.detach(), b.detach()))
        return recurrence(f, b, **rest)

    monkeypatch.setattr(module, "linear_recurrence", record)
    plain(x)
    layer(x)
    layer.eval()(x)
    (f, b), (kept_f, kept_b), (mean_f, mean_b) = seen
    kept = kept_f == 1
    share = kept.double().mean()
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / kept.numel()) ** 0.5
    assert kept_b[kept].count_nonzero() == 0
    assert_same([kept_f[~kept], kept_b[~kept]], [f[~kept], b[~kept]])
    assert_same([1 - mean_f, mean_b], [0.75 * (1 - f), 0.75 * b])
    assert kept.any(0).all(), "a draw for each step"
    assert not kept.all(0).any()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_first_values_and_refusals() -> None:
    torch.manual_seed(0)
    layer = QRNN(400, 300, window=2, forget_bias=2.0)
    assert layer.weight_ih_l0.shape == (900, 800)
    assert abs(layer.weight_ih_l0.detach().var() * 800 - 1) < 0.02
    assert layer.bias_ih_l0.view(3, 300).eq(torch.tensor([0.0, 2.0, 0.0])[:, None]).all()
    for options, message in (
        ({"window": 3}, "window must be 1 or 2, got 3"),
        ({"zoneout": 1.0}, r"zoneout must be in \[0, 1\), got 1.0"),
        ({"forget_bias": 1.0, "bias": False}, "forget_bias=1.0 needs bias=True"),
    ):
        with pytest.raises(ValueError, match=message):
            QRNN(N, H, **options)
    layer = QRNN(N, H, window=2)
    with pytest.raises(ValueError, match=r"hx must be the pair \(c, last\) with window=2, got Tensor"):
        layer(torch.zeros(T, B, N), torch.zeros(1, B, H))
    with pytest.raises(ValueError, match=r"last input in hx must have shape \(1, 4, 5\), got \(1, 4, 6\)"):
        layer(torch.zeros(T, B, N), (torch.zeros(1, B, H), torch.zeros(1, B, 6)))
