"""What every recurrent layer promises; a new layer is one row of CASES."""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from karui.nn import GRU, LSTM, QRNN, SRU, MinGRU, StatisticalRecurrentUnit
from karui.nn.convert import from_torch, to_torch
from karui.nn.srupp import SRUpp
from karui.nn.stacked import StackedRecurrence


class Case(NamedTuple):
    """A layer and its arguments."""

    layer: type[nn.Module]
    input_size: int
    hidden_size: int
    options: dict[str, Any] = {}  # noqa: RUF012  never changed

    def build(self, **more: Any) -> Any:
        torch.manual_seed(4)
        return self.layer(self.input_size, self.hidden_size, **(self.options | more))

    @property
    def own(self) -> bool:
        """Computed by karui's ops, not by torch's kernels."""
        return issubclass(self.layer, StackedRecurrence)

    def __str__(self) -> str:
        return "-".join([self.layer.__name__, *(f"{k}={v}" for k, v in self.options.items())])


STATISTICS = {
    "num_stats": 6,
    "recur_size": 3,
    "activation": "tanh",
}  # relu starts at its kink, without derivative
CASES = [
    Case(SRU, 7, 5),
    Case(SRU, 7, 5, {"num_layers": 2, "bidirectional": True, "rescale": 1.3}),
    Case(SRU, 6, 3, {"bidirectional": True, "activation": "tanh", "highway_bias": -1.0}),  # skip as it is
    Case(SRU, 7, 5, {"num_layers": 2, "has_skip_term": False, "activation": "relu", "bias": False}),
    Case(SRU, 5, 5, {"variant": "v1", "activation": "tanh", "layer_norm": "post"}),
    Case(SRU, 7, 4, {"num_layers": 2, "bidirectional": True, "input_rank": 3, "layer_norm": "pre"}),
    Case(SRU, 7, 5, {"num_layers": 2, "bidirectional": True, "proj_size": 2, "layer_norm": "post"}),
    Case(SRUpp, 7, 4, {"num_layers": 2, "attention_size": 4, "num_heads": 2, "memory_len": 9}),
    Case(StatisticalRecurrentUnit, 7, 5, STATISTICS | {"num_layers": 2, "bidirectional": True}),
    Case(StatisticalRecurrentUnit, 7, 5, STATISTICS | {"recur_size": 0, "learn_alphas": True}),
    Case(QRNN, 7, 5, {"num_layers": 2, "bidirectional": True}),
    Case(QRNN, 7, 5, {"num_layers": 2, "window": 2, "output_gate": False, "layer_norm": "post"}),
    Case(MinGRU, 7, 5, {"num_layers": 2, "bidirectional": True}),
    Case(LSTM, 7, 5, {"num_layers": 2, "bidirectional": True}),
    Case(LSTM, 7, 5, {"num_layers": 2, "layer_norm": "pre"}),
    Case(GRU, 7, 5, {"num_layers": 2, "bidirectional": True}),
    Case(GRU, 7, 5, {"num_layers": 2, "bidirectional": True, "layer_norm": "post"}),
]
T, B = 9, 3
LENGTHS = torch.tensor([9, 4, 1])
# Padding on the left, on both sides, and between; True = padding.
ANYWHERE = torch.tensor(
    [[True] * 3 + [False] * 6, [True] * 2 + [False] * 4 + [True] * 3, [False, True, False] * 3]
)

every_case = pytest.mark.parametrize("case", CASES, ids=str)
own_case = pytest.mark.parametrize("case", [case for case in CASES if case.own], ids=str)
torch_case = pytest.mark.parametrize(
    "case", [case for case in CASES if not case.own and "layer_norm" not in case.options], ids=str
)
two_directions = pytest.mark.parametrize(
    "case", [case for case in CASES if case.options.get("bidirectional")], ids=str
)


def inputs(case: Case) -> Tensor:
    return torch.randn(T, B, case.input_size, generator=torch.Generator().manual_seed(8))


def flat(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def states(layer: nn.Module, case: Case) -> Any:
    """First states: positive numbers, each its own; where a layer keeps a memory, an empty one."""
    generator = torch.Generator().manual_seed(9)
    like = layer(inputs(case).to(next(layer.parameters()).dtype))[1]
    empty = any(part.dtype == torch.bool for part in flat(like))
    parts = [
        torch.ones_like(part)
        if part.dtype == torch.bool
        else torch.rand(part.shape, generator=generator).to(part) * (not empty or part.dim() == 3)
        for part in flat(like)
    ]
    return first_of(parts, like)


def first_of(parts: list[Tensor], like: Any) -> Any:
    """States in the form that the layer takes."""
    return tuple(parts) if isinstance(like, tuple) else parts[0]


def equal(found: Any, expected: Any, allowed: float = 2e-6) -> None:
    for a, b in zip(flat(found), flat(expected), strict=True):
        assert a.shape == b.shape
        scale = max(1.0, b.double().abs().max().item()) if b.numel() else 1.0
        assert a.numel() == 0 or (a.double() - b.double()).abs().max() <= allowed * scale


def one_direction(case: Case) -> Case:
    return case._replace(options={k: v for k, v in case.options.items() if k != "bidirectional"})


@every_case
def test_shapes_are_those_of_torch_lstm(case: Case) -> None:
    layer = case.build()
    words = ("num_layers", "bidirectional", "proj_size")
    twin = nn.LSTM(case.input_size, case.hidden_size, **{k: v for k, v in case.options.items() if k in words})
    twin = twin.double()  # torch warns of a slow projection in float32
    expected, (_, c_n) = twin(inputs(case).double())
    output, state = layer(inputs(case))
    assert output.shape == expected.shape
    assert flat(state)[0].shape[:2] == c_n.shape[:2]


@every_case
def test_batch_first_only_swaps_axes(case: Case) -> None:
    plain, swapped = case.build(), case.build(batch_first=True)
    output, state = plain(inputs(case), states(plain, case))
    again, state_again = swapped(inputs(case).transpose(0, 1), states(plain, case))
    equal(again.transpose(0, 1), output, 0.0)
    equal(state_again, state, 0.0)


@every_case
def test_one_sequence_needs_no_batch_axis(case: Case) -> None:
    layer, x = case.build(), inputs(case)[:, :1]
    first = states(layer, case)
    output, state = layer(x, first_of([part[:, :1] for part in flat(first)], first))
    alone, last = layer(x[:, 0], first_of([part[:, 0] for part in flat(first)], first))
    equal(alone, output[:, 0])
    equal(last, tuple(part[:, 0] for part in flat(state)))


@every_case
def test_two_calls_and_single_steps_equal_one_call(case: Case) -> None:
    case = one_direction(case)
    layer, x = case.build().eval(), inputs(case)
    first = states(layer, case)
    whole, last = layer(x, first)
    head, state = layer(x[:4], first)
    tail, state = layer(x[4:], state)
    equal(torch.cat([head, tail]), whole)
    equal(state, last)
    state, steps = first, []
    for t in range(T):
        output, state = layer.step(x[t], state)
        steps.append(output)
    equal(torch.stack(steps), whole)
    equal(state, last)


@pytest.mark.parametrize("form", ["lengths", "padding_mask"])
@every_case
def test_padding_changes_nothing_and_gets_no_gradient(case: Case, form: str) -> None:
    layer, x = case.build(), inputs(case)
    padding = torch.arange(T) >= LENGTHS[:, None] if form == "lengths" else ANYWHERE  # (B, T)
    first = states(layer, case)
    alone = []
    for b in range(B):
        own = first_of([part[:, b : b + 1] for part in flat(first)], first)
        alone.append(layer(x[~padding[b], b : b + 1], own))
    x[padding.t()] = torch.nan
    x.requires_grad_()
    output, state = layer(x, first, **{form: LENGTHS if form == "lengths" else padding})
    for b, (expected, last) in enumerate(alone):
        equal(output[~padding[b], b], expected[:, 0])
        equal(tuple(part[:, b] for part in flat(state)), tuple(part[:, 0] for part in flat(last)))
    assert output[padding.t()].count_nonzero() == 0
    parameters = list(layer.parameters())
    grad_x, *grads = torch.autograd.grad(output.square().sum(), [x, *parameters])
    assert grad_x[padding.t()].count_nonzero() == 0
    assert grad_x[~padding.t()].count_nonzero() > 0
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2]], ids=["sorted", "unsorted"])
@every_case
def test_packed_input_equals_lengths(case: Case, order: list[int]) -> None:
    layer, x, lengths = case.build(), inputs(case)[:, order], LENGTHS[order]
    first = states(layer, case)
    expected, state = layer(x, first, lengths=lengths)
    pieces = [x[:n, b] for b, n in enumerate(lengths.tolist())]
    output, state_again = layer(pack_sequence(pieces, enforce_sorted=order == [0, 1, 2]), first)
    padded, found = pad_packed_sequence(output)
    assert torch.equal(found, lengths)
    equal(padded, expected)
    equal(state_again, state)


@two_directions
def test_reverse_direction_equals_flipping_by_hand(case: Case) -> None:
    if issubclass(case.layer, SRU) and case.input_size == 2 * case.hidden_size:
        case = case._replace(input_size=7)  # else the skip of each direction reads another half of the input
    case = case._replace(
        options={k: v for k, v in case.options.items() if k not in ("num_layers", "layer_norm")}
    )
    layer, single, x = case.build(), one_direction(case).build(), inputs(case)
    own = dict(layer.named_parameters())
    with torch.no_grad():
        for name, parameter in single.named_parameters():
            parameter.copy_(own.get(f"{name}_reverse", own[name]))
    flipped, last = single(x.flip(0))
    output, state = layer(x)
    equal(output[..., flipped.shape[2] :], flipped.flip(0))
    equal(tuple(part[1:] for part in flat(state)), tuple(flat(last)))


@every_case
def test_grad_no_grad_and_eval_agree_and_runs_repeat(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    output = layer(x)[0].detach()
    assert torch.equal(layer(x)[0], output)
    with torch.no_grad():  # torch's LSTM on a CPU has another kernel there, which rounds differently
        equal(layer(x)[0], output, allowed=0.0 if case.own else 1e-7)
    assert torch.equal(layer.eval()(x)[0], output)
    wide = torch.randn(B, T, 2 * case.input_size)[..., ::2].transpose(0, 1)  # not contiguous
    before = wide.clone()
    assert torch.equal(layer(wide)[0], layer(wide.contiguous())[0])
    assert torch.equal(wide, before)


@torch_case
def test_torch_layers_come_and_go(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    theirs = to_torch(layer)
    equal(theirs(x)[0], layer(x)[0], 0.0)
    equal(from_torch(theirs)(x)[0], layer(x)[0], 0.0)


@every_case
def test_state_dict_copy_and_repr(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    other = case.layer(case.input_size, case.hidden_size, **case.options)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x)[0], layer(x)[0])
    assert torch.equal(copy.deepcopy(layer)(x)[0], layer(x)[0])
    assert f"{case.input_size}, {case.hidden_size}" in repr(layer)


@pytest.mark.parametrize(
    "case", {case.layer: case for case in CASES if case.own}.values(), ids=str
)  # one each
def test_compiles_as_one_graph(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    output, state = compiled(x, lengths=LENGTHS)
    expected, last = layer(x, lengths=LENGTHS)
    equal(output, expected)
    equal(state, last)
    parameters = list(layer.parameters())
    grads = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    equal(grads, torch.autograd.grad(expected.sum(), parameters, allow_unused=True), 1e-5)


@pytest.mark.parametrize(
    "case", {case.layer: case for case in CASES if case.own}.values(), ids=str
)  # one each
def test_exports_for_any_batch_and_length(case: Case) -> None:
    layer, x = case.build().eval(), inputs(case)
    axes = {0: torch.export.Dim("T", min=2, max=64), 1: torch.export.Dim("B", min=2, max=64)}
    program = torch.export.export(layer, (x,), dynamic_shapes=(axes,))
    other = torch.randn(12, 5, case.input_size)
    equal(program.module()(other)[0], layer(other)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@every_case
def test_other_dtypes_keep_their_dtype_and_agree(case: Case, dtype: torch.dtype) -> None:
    layer, x = case.build(), inputs(case)
    expected = layer(x)[0]
    output, state = layer.to(dtype)(x.to(dtype))
    assert output.dtype == dtype
    assert all(part.dtype in (dtype, torch.bool) for part in flat(state))
    assert (output.double() - expected).abs().max() < (1e-5 if dtype == torch.float64 else 0.1)
    output.sum().backward()
    assert all(
        p.grad is None or (p.grad.isfinite().all() and p.grad.dtype == dtype) for p in layer.parameters()
    )


@every_case
def test_autocast_answers_in_its_dtype_and_keeps_gradients_whole(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    expected = layer(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = layer(x)
    assert output.dtype == torch.bfloat16
    assert (output.float() - expected).abs().max() < 0.1
    output.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in layer.parameters())


@own_case
def test_second_derivatives(case: Case) -> None:
    if case.layer is SRUpp:
        case = case._replace(options=case.options | {"implementation": "reference"})
    layer, x = case.build().double(), inputs(case)[:2].double().requires_grad_()
    padding = torch.tensor([[False, False], [False, True], [True, False]])
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        output, state = torch.func.functional_call(layer, given, (x,), {"padding_mask": padding})
        return torch.cat([output.flatten(), flat(state)[0].flatten()])

    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (9, 0), (0, 0)])
@every_case
def test_no_steps_and_no_sequences(case: Case, steps: int, batch: int) -> None:
    layer = case.build()
    first = states(layer, case)
    first = first_of([part[:, :batch] for part in flat(first)], first)
    output, state = layer(inputs(case)[:steps, :batch], first)
    assert output.shape[:2] == (steps, batch)
    assert [part.shape for part in flat(state)] == [part.shape for part in flat(first)]
    if not steps:
        equal(state, first, 0.0)
    (output.sum() + flat(state)[0].sum()).backward()


@every_case
def test_an_empty_sequence_keeps_its_state(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    first = states(layer, case)
    output, state = layer(x, first, lengths=torch.tensor([9, 0, 5]))
    assert output[:, 1].count_nonzero() == 0
    equal(tuple(part[:, 1] for part in flat(state)), tuple(part[:, 1] for part in flat(first)), 0.0)


@pytest.mark.parametrize("word", ["dropout", "recurrent_dropout"])
@every_case
def test_dropout_acts_in_training_alone(case: Case, word: str) -> None:
    case = case._replace(options=case.options | {"num_layers": 2})
    plain, dropping, x = case.build(), case.build(**{word: 0.5}), inputs(case)
    dropping.load_state_dict(plain.state_dict())
    torch.manual_seed(1)
    output = dropping(x)[0]
    assert not torch.equal(dropping(x)[0], output)
    torch.manual_seed(1)
    assert torch.equal(dropping(x)[0], output)
    assert torch.equal(dropping.eval()(x)[0], plain(x)[0])
    with torch.no_grad():
        assert not torch.equal(dropping.train()(x)[0], plain(x)[0])  # grad mode is no switch


@every_case
def test_wrong_sizes_are_refused(case: Case) -> None:
    layer, x = case.build(), inputs(case)
    first = states(layer, case)
    with pytest.raises(ValueError, match=r"lengths must lie in \[0, 9\], got 4 to 10"):
        layer(x, lengths=torch.tensor([9, 4, 10]))
    with pytest.raises(ValueError, match=r"lengths must have shape \(3,\)"):
        layer(x, lengths=torch.tensor([9, 4]))
    with pytest.raises(ValueError, match=r"padding_mask .*\(3, 9\)"):
        layer(x, padding_mask=torch.zeros(9, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="give lengths or padding_mask, not both"):
        layer(x, lengths=LENGTHS, padding_mask=ANYWHERE)
    with pytest.raises(ValueError, match="input must have 7 features|must have . features"):
        layer(x[..., 1:])
    with pytest.raises(ValueError, match="must have shape"):
        layer(x, first_of([part[:, 1:] for part in flat(first)], first))
    with pytest.raises(
        ValueError, match="input must have the dtype of the weights, torch.float32, got torch.float64"
    ):
        layer(x.double())
    with pytest.raises(ValueError, match="dropout must be in \\[0, 1\\)"):
        case.build(recurrent_dropout=1.5)
    with pytest.raises(ValueError, match="layer_norm must be None, 'pre' or 'post'"):
        case.build(layer_norm="both")


@own_case
def test_a_named_implementation_runs_or_raises(case: Case) -> None:
    x = inputs(case)
    equal(case.build(implementation="reference")(x)[0], case.build()(x)[0])
    with pytest.raises(ValueError, match="implementation must be None or one of"):
        case.build(implementation="cuda")(x)
