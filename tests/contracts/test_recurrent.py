"""What every recurrent layer promises; a new layer is one row of CASES."""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from karui.nn import GRU, LSTM, SRU


class Case(NamedTuple):
    """A layer and its arguments."""

    layer: type[nn.Module]
    input_size: int
    hidden_size: int
    options: dict[str, Any] = {}  # noqa: RUF012  never changed

    def build(self, **more: Any) -> Any:
        torch.manual_seed(4)
        return self.layer(self.input_size, self.hidden_size, **(self.options | more))


CASES = [
    Case(SRU, 7, 5),
    Case(SRU, 7, 5, {"num_layers": 2, "bidirectional": True}),
    Case(
        SRU, 6, 3, {"bidirectional": True, "activation": "tanh", "highway_bias": -1.0}
    ),  # skip without projection
    Case(SRU, 7, 5, {"num_layers": 2, "has_skip_term": False, "rescale": False}),
    Case(LSTM, 7, 5, {"num_layers": 2, "bidirectional": True}),
    Case(GRU, 7, 5, {"num_layers": 2, "bidirectional": True}),
]
T, B = 9, 3
LENGTHS = torch.tensor([9, 4, 1])

every_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.layer.__name__}-{len(case.options)}"
)


def inputs(case: Case) -> Tensor:
    return torch.randn(T, B, case.input_size, generator=torch.Generator().manual_seed(8))


def states(case: Case) -> Any:
    """Non-zero first states; h and c differ."""
    generator = torch.Generator().manual_seed(9)
    many = case.options.get("num_layers", 1) * (2 if case.options.get("bidirectional") else 1)
    pair = [torch.randn(many, B, case.hidden_size, generator=generator) for _ in range(2)]
    return (pair[0], pair[1]) if case.layer is LSTM else pair[0]


def flat(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


@every_case
def test_shapes_are_those_of_torch_lstm(case: Case) -> None:
    twin = nn.LSTM(
        case.input_size,
        case.hidden_size,
        case.options.get("num_layers", 1),
        bidirectional=case.options.get("bidirectional", False),
    )
    expected, (h_n, _) = twin(inputs(case))
    output, state = case.build()(inputs(case))
    assert output.shape == expected.shape
    assert all(part.shape == h_n.shape for part in flat(state))


@every_case
def test_batch_first_only_swaps_axes(case: Case) -> None:
    plain, swapped = case.build(), case.build(batch_first=True)
    output, state = plain(inputs(case), states(case))
    again, state_again = swapped(inputs(case).transpose(0, 1), states(case))
    assert torch.equal(again.transpose(0, 1), output)
    assert all(torch.equal(a, b) for a, b in zip(flat(state), flat(state_again), strict=True))


@every_case
def test_two_calls_with_carried_state_equal_one(case: Case) -> None:
    if case.options.get("bidirectional"):
        case = case._replace(options={k: v for k, v in case.options.items() if k != "bidirectional"})
    layer, x = case.build(), inputs(case)
    whole, last = layer(x, states(case))
    pieces, state = [], states(case)
    for t in range(T):
        piece, state = layer(x[t : t + 1], state)
        pieces.append(piece)
    assert (torch.cat(pieces) - whole).abs().max() < 1e-6
    assert all((a - b).abs().max() < 1e-6 for a, b in zip(flat(state), flat(last), strict=True))


@every_case
def test_padding_changes_nothing_and_gets_no_gradient(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    alone = [layer(x[:n, b : b + 1]) for b, n in enumerate(LENGTHS.tolist())]
    padding = torch.arange(T)[:, None] >= LENGTHS
    x[padding] = torch.nan if case.layer is SRU else 1e3  # torch's packing copies valid steps only
    x.requires_grad_()
    output, state = layer(x, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        assert (output[:n, b] - alone[b][0][:, 0]).abs().max() < 1e-6
        assert all(
            (s[:, b] - t[:, 0]).abs().max() < 1e-6
            for s, t in zip(flat(state), flat(alone[b][1]), strict=True)
        )
    assert output[padding].count_nonzero() == 0
    output.sum().backward()
    assert x.grad is not None
    assert x.grad[padding].count_nonzero() == 0
    assert x.grad[~padding].count_nonzero() > 0


@every_case
def test_packed_input_equals_lengths(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    order = torch.tensor([1, 0, 2])  # not sorted by length
    x, lengths = x[:, order], LENGTHS[order]
    expected, state = layer(x, lengths=lengths)
    packed = pack_sequence([x[:n, b] for b, n in enumerate(lengths.tolist())], enforce_sorted=False)
    output, state_again = layer(packed)
    padded, found = pad_packed_sequence(output)
    assert torch.equal(found, lengths)
    assert (padded - expected).abs().max() < 1e-6
    assert all((a - b).abs().max() < 1e-6 for a, b in zip(flat(state), flat(state_again), strict=True))


@every_case
def test_reverse_direction_equals_flipping_by_hand(case: Case) -> None:
    if not case.options.get("bidirectional"):
        pytest.skip("one direction")
    one = case.options | {"num_layers": 1}
    layer = case._replace(options=one).build()
    x, H = inputs(case), case.hidden_size
    forward_only = {k: v for k, v in one.items() if k != "bidirectional"}
    single = case.layer(case.input_size, H, **forward_only)
    if case.layer is SRU and case.input_size == 2 * H:
        pytest.skip("the skip of each direction reads another half of the input")
    own = dict(layer.named_parameters())
    with torch.no_grad():
        for name, parameter in single.named_parameters():
            parameter.copy_(own[f"{name}_reverse"])
    flipped, _ = single(x.flip(0))
    assert (layer(x)[0][..., H:] - flipped.flip(0)).abs().max() < 1e-6


@every_case
def test_grad_no_grad_and_eval_agree(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    output = layer(x)[0].detach()
    with torch.no_grad():
        assert torch.equal(layer(x)[0], output)
    assert torch.equal(layer.eval()(x)[0].detach(), output)


@every_case
def test_state_dict_copy_and_repr(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    other = case.layer(case.input_size, case.hidden_size, **case.options)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x)[0], layer(x)[0])
    assert torch.equal(copy.deepcopy(layer)(x)[0], layer(x)[0])
    assert f"{case.input_size}, {case.hidden_size}" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@every_case
def test_other_dtypes_keep_their_dtype_and_agree(case: Case, dtype: torch.dtype) -> None:
    layer, x = case.build(), inputs(case)
    expected = layer(x)[0]
    output = layer.to(dtype)(x.to(dtype))[0]
    assert output.dtype == dtype
    assert (output.float() - expected).abs().max() < (1e-5 if dtype == torch.float64 else 0.1)


@every_case
def test_wrong_sizes_are_refused(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    with pytest.raises(ValueError, match=r"lengths must lie in \[[01], 9\], got 4 to 10"):
        layer(x, lengths=torch.tensor([9, 4, 10]))
    with pytest.raises(ValueError, match=r"lengths must have shape \(3,\)"):
        layer(x, lengths=torch.tensor([9, 4]))


def test_sru_refuses_bad_arguments_by_name() -> None:
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1.5"):
        SRU(3, 4, dropout=1.5)
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        SRU(3, 0)
    with pytest.raises(ValueError, match="activation must be"):
        SRU(3, 4, activation="gelu")
    with pytest.raises(ValueError, match="input must have 3 features"):
        SRU(3, 4)(torch.zeros(2, 2, 5))
    with pytest.raises(ValueError, match=r"hx must have shape \(1, 2, 4\)"):
        SRU(3, 4)(torch.zeros(2, 2, 3), torch.zeros(1, 1, 4))


def test_dropout_masks_are_shared_by_all_steps_and_off_in_eval() -> None:
    layer = SRU(4, 64, 2, dropout=0.5, recurrent_dropout=0.5)
    x = torch.ones(5, 2, 4)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])


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
