"""MinGRU: its equations in float64 against a loop, and the paper's log-space form."""

from typing import Any

import pytest
import torch
from torch import Tensor

from karui.nn.min_gru import MinGRU

T, B, N, H = 7, 3, 5, 4  # N features in
PADDING = torch.tensor(
    [[0, 0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 1, 0, 1]], dtype=torch.bool
)


def build(**options: Any) -> MinGRU:
    torch.manual_seed(3)
    return MinGRU(N, H, **options).double()


def inputs() -> Tensor:
    return torch.randn(T, B, N, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def g(a: Tensor) -> Tensor:
    return torch.where(a >= 0, a + 0.5, a.sigmoid())


def loop(layer: MinGRU, x: Tensor, h_0: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    ends = []
    for k in range(layer.num_layers):
        outputs = []
        for d in range(layer.num_directions):
            name = f"_l{k}" + "_reverse" * d
            bias = getattr(layer, f"bias_ih{name}") if layer.bias else 0.0
            columns, last = [], []
            for b in range(B):
                h, column = h_0[len(ends), b], [torch.zeros(H, dtype=x.dtype)] * T
                for t in range(T - 1, -1, -1) if d else range(T):
                    if padding is None or not padding[b, t]:
                        hidden, gate = (getattr(layer, f"weight_ih{name}") @ x[t, b] + bias).chunk(2)
                        z = gate.sigmoid()
                        h = (1 - z) * h + z * g(hidden)
                        column[t] = h
                columns.append(torch.stack(column))
                last.append(h)
            outputs.append(torch.stack(columns, 1))
            ends.append(torch.stack(last))
        x = torch.cat(outputs, 2)
    return x, torch.stack(ends)


@pytest.mark.parametrize("padding", [None, PADDING], ids=["whole", "padded"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "bias": True}])
def test_output_state_and_gradients_equal_the_equations(options: Any, padding: Tensor | None) -> None:
    layer, clean, x = build(**options), inputs().requires_grad_(), inputs()
    h_0 = torch.randn(layer.num_layers * layer.num_directions, B, H, dtype=torch.float64, requires_grad=True)
    if padding is not None:
        x[padding.t()] = torch.nan
    x.requires_grad_()
    weights = torch.randn(T, B, layer.num_directions * H, dtype=torch.float64)
    found, expected = layer(x, h_0, padding_mask=padding), loop(layer, clean, h_0, padding)
    pairs = [*zip(found, expected, strict=True)]
    for (output, h_n), leaf in ((found, x), (expected, clean)):
        loss = (output * weights).sum() + (h_n * weights[0, 0, 0]).sum()
        pairs.append(torch.autograd.grad(loss, [*layer.parameters(), leaf, h_0]))
    [*values, left, right] = pairs
    for a, b in [*values, *zip(left, right, strict=True)]:
        assert a.shape == b.shape
        assert (a - b).abs().max() < 1e-12 * (1 + b.abs().max())


def test_it_is_the_paper_s_log_space_form() -> None:
    """Appendix B.2: log h = a* + logcumsumexp(log_values - a*), for a positive first state."""
    layer, x, h_0 = build(), inputs(), torch.rand(B, H, dtype=torch.float64) + 0.1
    hidden, gate = (x @ layer.weight_ih_l0.t()).chunk(2, 2)
    log_g = torch.where(hidden >= 0, (hidden.relu() + 0.5).log(), -torch.nn.functional.softplus(-hidden))
    values = torch.cat([h_0.log()[None], -torch.nn.functional.softplus(-gate) + log_g])
    a = torch.nn.functional.pad((-torch.nn.functional.softplus(gate)).cumsum(0), (0, 0, 0, 0, 1, 0))
    expected = (a + (values - a).logcumsumexp(0)).exp()[1:]
    assert (layer(x, h_0[None])[0] - expected).abs().max() < 1e-12


def test_double_backward() -> None:
    layer, x = build(bias=True), inputs()[:3, :2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], x)


def test_first_values_and_refusals() -> None:
    torch.manual_seed(0)
    layer = MinGRU(400, 300, bias=True, update_bias=-2.0)
    assert abs(layer.weight_ih_l0.detach().var() * 400 - 1) < 0.02
    assert layer.bias_ih_l0.view(2, 300).eq(torch.tensor([0.0, -2.0])[:, None]).all()
    assert not hasattr(MinGRU(N, H), "bias_ih_l0")
    with pytest.raises(ValueError, match="update_bias=1.0 needs bias=True"):
        MinGRU(N, H, update_bias=1.0)
