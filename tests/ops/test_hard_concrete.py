"""Proof of the compiled gates against the reference with the same uniform numbers, and of their law."""

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor

from karui.ops import hard_concrete as op
from karui.ops.hard_concrete import cpu, reference
from karui.ops.hard_concrete.counted import Pass
from karui.ops.noise import reference as noise

PUBLISHED = op.Law(2 / 3, -0.1, 1.1, -10.0, math.log(100.0))
ANNEALED = PUBLISHED._replace(beta=0.4)
SHAPES = [
    ((1,), None),
    ((33,), None),
    ((5, 7), None),
    ((40, 65), None),
    ((35, 70), (16, 1)),
    ((20, 11), (8, 4)),
]


def inputs(shape: tuple[int, ...], block: tuple[int, int] | None) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    units = shape if block is None else tuple(-(-s // b) for s, b in zip(shape, block, strict=True))
    log_alpha = torch.randn(units, generator=generator, dtype=torch.float64).mul(2.0).clamp(-4.0, 4.0)
    return weight, log_alpha, torch.randn(shape, generator=generator, dtype=torch.float64)


def sizes_of(units: Tensor) -> Tensor:
    return 1.0 + torch.arange(units.numel(), dtype=torch.float64).view(units.shape) % 3


def expected(
    law: op.Law, shape: tuple, block: tuple | None, seed: int, sizes: Tensor | float
) -> list[Tensor]:
    """Value, count, and the gradients of sum(direction * value) + 0.7 count."""
    weight, log_alpha, direction = inputs(shape, block)
    weight.requires_grad_()
    log_alpha.requires_grad_()
    u = noise.uniform_of_halves(seed, log_alpha.numel()).view(log_alpha.shape)
    gate = reference.gates(log_alpha, u, law)
    out = weight * (gate if block is None else reference.spread(gate, shape, block))
    count = (sizes * reference.open_probability(log_alpha, law)).sum()
    ((direction * out).sum() + 0.7 * count).backward()
    return [out.detach(), count.detach(), weight.grad, log_alpha.grad]


def compiled(
    law: op.Law, shape: tuple, block: tuple | None, seed: int, sizes: Tensor | float, dtype: torch.dtype
) -> list[Tensor]:
    weight, log_alpha, direction = (t.to(dtype) for t in inputs(shape, block))
    weight.requires_grad_()
    log_alpha.requires_grad_()
    given = cpu.Sizes(1.0, sizes.to(dtype)) if isinstance(sizes, Tensor) else cpu.Sizes(sizes)
    out, count = cpu.draw(log_alpha, weight, cpu.drawing(law, given, block), seed, Pass())
    ((direction * out).sum() + 0.7 * count).backward()
    return [out.detach(), count.detach(), weight.grad, log_alpha.grad]


@pytest.mark.parametrize("law", [PUBLISHED, ANNEALED])
@pytest.mark.parametrize(("shape", "block"), SHAPES)
@pytest.mark.parametrize("by_unit", [False, True])
def test_value_count_and_gradients(
    law: op.Law, shape: tuple[int, ...], block: tuple[int, int] | None, by_unit: bool
) -> None:
    sizes = sizes_of(inputs(shape, block)[1]) if by_unit else 4.0
    truth = expected(law, shape, block, 11, sizes)
    for dtype, tolerance in ((torch.float32, 4e-6), (torch.float64, 1e-12)):
        for found, right in zip(compiled(law, shape, block, 11, sizes, dtype), truth, strict=True):
            assert found.dtype == dtype
            assert (found - right).abs().max() <= tolerance * (1.0 + right.abs().max())


def test_gates_alone_are_those_that_multiply() -> None:
    weight, log_alpha, _ = (t.float() for t in inputs((40, 65), None))
    alone, _ = cpu.draw(log_alpha, None, cpu.drawing(PUBLISHED, cpu.Sizes(1.0), None), 5, Pass())
    times, _ = cpu.draw(log_alpha, weight, cpu.drawing(PUBLISHED, cpu.Sizes(1.0), None), 5, Pass())
    assert torch.equal(times, weight * alone)


@pytest.mark.parametrize("log_alpha", [-3.0, -1.0, 0.0, 2.0])
@pytest.mark.parametrize("law", [PUBLISHED, ANNEALED])
def test_draws_follow_the_law(log_alpha: float, law: op.Law) -> None:
    """Shares of exact zeros and ones, and the mean, against closed forms; 4 standard errors."""
    n = 100_000
    torch.manual_seed(0)
    z = op.draw(torch.full((n,), log_alpha), law, implementation="cpp").double()
    zero = 1.0 - torch.sigmoid(torch.tensor(log_alpha - law.shift)).item()
    one = torch.sigmoid(
        torch.tensor(log_alpha - law.beta * math.log((1 - law.gamma) / (law.zeta - 1)))
    ).item()
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    above = torch.sigmoid(log_alpha - law.beta * torch.log((t - law.gamma) / (law.zeta - t)))
    for found, right in (((z == 0).double(), zero), ((z == 1).double(), one)):
        assert abs(found.mean() - right) <= 4 * (right * (1 - right) / n) ** 0.5
    assert abs(z.mean() - above.mean()) <= 4 * z.std() / n**0.5
    assert z.min() >= 0
    assert z.max() <= 1


@pytest.mark.parametrize("log_alpha", [-10.0, -7.0, -1.0, 0.0, 4.6])
def test_numbers_of_16_bits_open_gates_as_often_as_they_should(log_alpha: float) -> None:
    u = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16  # all there are
    given = torch.full_like(u, log_alpha)
    found = (reference.gates(given, u, PUBLISHED) > 0).double().mean()
    right = torch.sigmoid(torch.tensor(log_alpha - PUBLISHED.shift, dtype=torch.float64))
    assert abs(found - right) <= 2**-17
    assert abs(found - right) <= 0.035 * right


def test_log_alpha_comes_within_its_bounds() -> None:
    log_alpha = torch.tensor([-50.0, 0.5, 50.0])
    op.draw(log_alpha, PUBLISHED)
    assert torch.equal(log_alpha, torch.tensor([-10.0, 0.5, math.log(100.0)]))


def test_threads_change_no_bit() -> None:
    before = torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(
            compiled(PUBLISHED, (70, 65), None, 2, 1.0, torch.float32)
            + compiled(PUBLISHED, (70, 65), (16, 1), 2, 1.0, torch.float32)
        )
    torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


def test_count_alone_is_the_count_of_a_draw() -> None:
    log_alpha = inputs((40, 65), None)[1].requires_grad_()
    sizes = sizes_of(log_alpha.detach())
    for given in (3.0, sizes):
        count = op.count_open(log_alpha, PUBLISHED, given, implementation="cpp")
        plain = op.count_open(log_alpha, PUBLISHED, given, implementation="reference")
        assert abs(count - plain) <= 1e-12 * plain
        [found] = torch.autograd.grad(count, log_alpha)
        [right] = torch.autograd.grad(plain, log_alpha)
        assert (found - right).abs().max() <= 1e-12
    assert torch.autograd.gradcheck(lambda a: op.count_open(a, PUBLISHED, 2.0), (log_alpha[:3, :3],))


def test_gradcheck_of_a_draw() -> None:
    weight, log_alpha, _ = inputs((4, 5), None)
    weight.requires_grad_()
    log_alpha.requires_grad_()
    for block, units in (
        (None, log_alpha),
        ((2, 3), log_alpha[:2, :2].detach().contiguous().requires_grad_()),
    ):

        def draw(w: Tensor, a: Tensor, block: tuple[int, int] | None = block) -> tuple[Tensor, Tensor]:
            return cpu.draw(a, w, cpu.drawing(PUBLISHED, cpu.Sizes(2.0), block), 4, Pass())

        assert torch.autograd.gradcheck(draw, (weight, units))


def test_a_second_derivative_is_refused() -> None:
    log_alpha = torch.zeros(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(op.count_open(log_alpha, PUBLISHED), log_alpha, create_graph=True)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="log_alpha must have shape"):
        op.draw(torch.zeros(3), PUBLISHED, weight=torch.zeros(4))
    with pytest.raises(ValueError, match="blocks need a matrix"):
        op.draw(torch.zeros(3), PUBLISHED, weight=torch.zeros(4), block=(2, 2))
    with pytest.raises(ValueError, match="implementation must be None or one of"):
        op.draw(torch.zeros(3), PUBLISHED, implementation="cuda")


def test_a_gate_that_has_drawn_can_be_copied_and_its_count_is_used_once() -> None:
    from karui.sparse.division import Elements
    from karui.sparse.hard_concrete import HardConcrete, HardConcreteGate

    division = Elements((6, 5))
    gate = HardConcreteGate(division, method=HardConcrete(), drop_rate=0.3)
    weight = torch.randn(6, 5, requires_grad=True)
    drawn = gate.scale(weight, division)
    first = gate.expected_elements(division)
    assert first is gate.expected_elements(division)
    copy.deepcopy(gate)
    pickle.loads(pickle.dumps(gate))
    (drawn.sum() + first).backward()
    second = gate.expected_elements(division)
    assert second is not first  # its graph is gone
    second.backward()
    gate.scale(weight, division)
    with torch.no_grad():
        gate.log_alpha += 1.0
    assert gate.expected_elements(division) > first + 0.5
