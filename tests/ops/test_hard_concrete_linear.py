"""Proof of the product with a drawn weight in one node: against the reference with the same uniform numbers."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from karui.ops import hard_concrete as op
from karui.ops.hard_concrete import linear, reference
from karui.ops.noise import reference as noise
from karui.sparse import HardConcrete, anneal, penalty, sparsify
from karui.sparse.gate import Gate

LAW = op.Law(2 / 3, -0.1, 1.1, -10.0, 4.6)
SEED = 11
CASES = {
    "elements": ((7, 35), None),
    "blocks": ((35, 9), (16, 1)),
    "wide blocks": ((11, 21), (8, 4)),
    "odd blocks": ((31, 53), (5, 3)),
    "columns": ((7, 33), (7, 1)),
}


@pytest.fixture
def one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "draw_seed", lambda: SEED)


def inputs(
    shape: tuple[int, int],
    block: tuple[int, int] | None,
    dtype: torch.dtype,
    *,
    leading: tuple[int, ...] = (3, 2),
) -> list[Tensor]:
    """Input, weight, bias, log alpha; the last in one row where the blocks are columns."""
    generator = torch.Generator().manual_seed(5)
    units = shape if block is None else tuple(-(-s // b) for s, b in zip(shape, block, strict=True))
    shapes = ((*leading, shape[1]), shape, shape[:1], units)
    made = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    if block is not None and block[0] == shape[0]:
        made[3] = made[3].view(-1)
    return [t.to(dtype).requires_grad_() for t in made]


def gradients(output: Tensor, count: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(6)
    direction = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    return list(torch.autograd.grad((direction * output).sum() + 0.7 * count, tensors))


def truth_of(given: list[Tensor], block: tuple[int, int] | None, sizes: float | Tensor = 1.0) -> list[Tensor]:
    """Output, count and every gradient of the reference."""
    x, weight, bias, log_alpha = given
    gate = reference.gates(
        log_alpha, noise.uniform_of_halves(SEED, log_alpha.numel()).view_as(log_alpha), LAW
    )
    if block is not None:
        gate = reference.spread(gate.view(-1, gate.shape[-1]), tuple(weight.shape), block)
    output = nn.functional.linear(x, weight * gate, bias)
    count = (sizes * reference.open_probability(log_alpha, LAW)).sum()
    return [output, count, *gradients(output, count, given)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("by_unit", [False, True])
@pytest.mark.usefixtures("one_seed")
def test_values_count_and_every_gradient(case: str, by_unit: bool) -> None:
    shape, block = CASES[case]
    tensors = inputs(shape, block, torch.float64)
    each = 1.0 + torch.arange(tensors[3].numel(), dtype=torch.float64).view_as(tensors[3]) % 3
    sizes = each if by_unit else 4.0
    truth = truth_of(tensors, block, sizes)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        given = inputs(shape, block, dtype)
        found = op.drawn_linear(given[3], LAW, block=block, sizes=sizes)(*given)
        assert found is not None
        for one, right in zip(
            [found.drawn, found.count, *gradients(found.drawn, found.count, given)], truth, strict=True
        ):
            assert one.dtype == dtype
            assert (one - right).abs().max() <= tolerance * (1.0 + right.abs().max())
        assert not found.state.is_open


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("one_seed")
def test_gradcheck(case: str) -> None:
    _, block = CASES[case]
    shape = (4, 6)
    block = None if block is None else (4, 1) if "columns" in case else (3, 2)

    def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        found = op.drawn_linear(tensors[3], LAW, block=block, sizes=2.0)(*tensors)
        assert found is not None
        return found.drawn, found.count

    assert torch.autograd.gradcheck(run, inputs(shape, block, torch.float64, leading=(2,)))


# (rows of the input, (R, C), block): several strips, panels and tiles, or parts of one.
STRIPS = [
    (1, (1, 1), None),
    (29, (70, 1100), None),
    (100, (17, 33), None),
    (15, (32, 513), None),
    (29, (70, 1100), (16, 1)),
    (9, (33, 700), (8, 4)),
    (20, (40, 601), (5, 3)),
    (31, (47, 530), (47, 1)),
]


def error_of_strips(rows: int, shape: tuple[int, int], block: tuple[int, int] | None) -> float:
    """Largest difference of float32 from the reference in float64, relative to 1 + truth."""
    truth = truth_of(inputs(shape, block, torch.float64, leading=(rows,)), block)
    given = inputs(shape, block, torch.float32, leading=(rows,))
    spoilt = [torch.empty(1 << k).fill_(torch.nan) for k in range(4, 20)]  # where the core finds its room
    del spoilt
    torch.use_deterministic_algorithms(True)  # torch's own fresh memory is NaN then
    found = op.drawn_linear(given[3], LAW, block=block)(*given)
    assert found is not None
    values = [found.drawn, found.count, *gradients(found.drawn, found.count, given)]
    torch.use_deterministic_algorithms(False)
    assert not any(one.isnan().any() for one in values)
    return max(
        ((one - right).abs().max() / (1.0 + right.abs().max())).item()
        for one, right in zip(values, truth, strict=True)
    )


@pytest.mark.parametrize("strips", STRIPS)
@pytest.mark.usefixtures("one_seed")
def test_strips_of_any_size_are_those_of_the_reference(strips: tuple) -> None:
    assert error_of_strips(*strips) < 5e-6


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_every_instruction_set_gives_the_same(isa: str) -> None:
    code = (
        "import test_hard_concrete_linear as t; t.linear.draw_seed = lambda: t.SEED; "
        "print(max(t.error_of_strips(*strips) for strips in t.STRIPS))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"KARUI_ISA_MAX": isa, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(told.stdout) < 5e-6


@pytest.mark.parametrize("block", [None, (16, 1), (8, 4), (70, 1)])
@pytest.mark.usefixtures("one_seed")
def test_threads_change_no_bit(block: tuple[int, int] | None) -> None:
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            given = inputs((70, 1100), block, torch.float32, leading=(29,))
            drawn = op.drawn_linear(given[3], LAW, block=block)(*given)
            assert drawn is not None
            found.append([drawn.drawn, drawn.count, *gradients(drawn.drawn, drawn.count, given)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.usefixtures("one_seed")
def test_a_number_that_is_none_stays_one() -> None:
    for which in range(4):
        given = [t.detach().clone() for t in inputs((7, 35), None, torch.float32)]
        given[which].view(-1)[3] = torch.nan
        found = op.drawn_linear(given[3], LAW)(*[t.requires_grad_() for t in given])
        assert found is not None
        assert found.drawn.isnan().any()
        assert found.count.isnan() == (which == 3)


@pytest.mark.parametrize("case", CASES)
def test_a_kept_graph_gives_its_gradients_again(case: str) -> None:
    """The first pass turns the gates into a gradient; nobody may see that."""
    shape, block = CASES[case]
    given = inputs(shape, block, torch.float32)
    found = op.drawn_linear(given[3], LAW, block=block)(*given)
    assert found is not None
    loss = found.drawn.square().sum() + 0.7 * found.count
    first = torch.autograd.grad(loss, given, retain_graph=True)
    copies = [gradient.clone() for gradient in first]
    loss.backward(retain_graph=True)
    loss.backward()
    for gradient, copy, tensor in zip(first, copies, given, strict=True):
        assert torch.equal(gradient, copy)
        assert torch.equal(tensor.grad, copy + copy)


@pytest.mark.usefixtures("one_seed")
def test_a_count_alone_and_an_output_alone_have_their_gradients() -> None:
    tensors = inputs((7, 35), None, torch.float64)
    for leave_out in (0, 1):
        found = op.drawn_linear(tensors[3], LAW)(*tensors)
        assert found is not None
        kept = (found.drawn.sum(), found.count)[1 - leave_out]
        of_weight, of_log_alpha = torch.autograd.grad(kept, [tensors[1], tensors[3]], allow_unused=True)
        assert (of_weight is None or not of_weight.any()) == (leave_out == 0)
        assert of_log_alpha.any()


def test_what_the_compiled_form_does_not_take_is_left_to_others() -> None:
    x, weight, bias, log_alpha = inputs((7, 35), None, torch.float32)
    draw = op.drawn_linear(log_alpha, LAW)
    assert draw(x.double(), weight, bias, log_alpha) is None
    assert draw(x[:0], weight, bias, log_alpha) is None
    assert draw(x, weight, bias.double(), log_alpha) is None
    assert draw(x, weight, bias.repeat(2)[::2], log_alpha) is None
    assert draw(x[..., :34], weight, bias, log_alpha) is None
    assert draw(x, weight, bias[:6], log_alpha) is None
    assert draw(x, weight[:0], bias[:0], log_alpha[:0]) is None
    assert draw(x.bfloat16(), weight.bfloat16(), bias, log_alpha.bfloat16()) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert draw(x, weight, bias, log_alpha) is None


def test_gates_that_do_not_fit_the_weight_are_refused() -> None:
    x, weight, bias, log_alpha = inputs((7, 35), None, torch.float32)
    for block in ((7, 1), (3, 2)):
        with pytest.raises(ValueError, match="gates"):
            op.drawn_linear(log_alpha, LAW, block=block)(x, weight, bias, log_alpha)


@pytest.mark.parametrize("group", ["weight", "16x1", "8x4", "input"])
@pytest.mark.parametrize("rows", [2, 40])
def test_a_sparse_layer_gives_the_same_in_one_node_and_in_several(
    group: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = sparsify(nn.Sequential(nn.Linear(33, 20)), HardConcrete(groups=(group,))).train()
    x = torch.randn(rows, 33, requires_grad=True)
    found = []
    for name in ("one", "several"):
        if name == "several":
            monkeypatch.setattr("karui.sparse.hard_concrete.HardConcreteGate.linear", Gate.linear)
        torch.manual_seed(3)
        output = model(x)
        assert (name == "one") == ("Drawn" in type(output.grad_fn).__name__)
        loss = output.square().sum() + penalty(model)
        found.append([output.detach(), *torch.autograd.grad(loss, [x, *model.parameters()])])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-4 * (1.0 + other.abs().max())


def test_an_annealed_or_converted_layer_draws_by_its_new_law() -> None:
    layer = sparsify(nn.Linear(40, 30), HardConcrete(groups=("8x4",), beta_end=0.2)).train()
    x = torch.randn(64, 40)
    found = []
    for progress, dtype in ((0.0, torch.float32), (1.0, torch.float32), (1.0, torch.float64)):
        anneal(layer, progress)
        layer = layer.to(dtype)
        torch.manual_seed(5)
        output = layer(x.to(dtype))
        assert output.dtype == dtype
        penalty(layer).backward()
        found.append(output.detach())
        pickle.loads(pickle.dumps(layer))
    assert (found[0] - found[1]).abs().max() > 0.01
    assert (found[1] - found[2]).abs().max() < 1e-5
