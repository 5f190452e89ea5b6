"""Proof of the compiled linear recurrence against the reference in fp64: every output, every gradient."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from karui.ops.linear_recurrence import linear_recurrence
from tests.support.kernel_proof import assert_as_exact_as_plain

# (T, B, D, H), whether there is padding
CASES = [
    ((1, 1, 1, 1), True),
    ((63, 3, 2, 41), True),
    ((17, 5, 2, 7), False),
    ((128, 8, 1, 64), True),
    ((40, 1, 1, 515), False),  # columns are shared out, with a tail
]
Case = tuple[tuple[int, int, int, int], bool]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def arguments(case: Case, dtype: torch.dtype, numbers: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Fresh leaves f (both signs, some beyond 1), b, c_0; first rounded to `numbers`, the same whatever the dtype."""
    T, B, D, H = case[0]
    generator = torch.Generator().manual_seed(17)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).mul(0.7).to(numbers).to(dtype).requires_grad_()

    return {"f": draw(T, B, D, H), "b": draw(T, B, D, H), "c_0": draw(D, B, H)}


def padding(case: Case) -> Tensor | None:
    """Holes anywhere; the first of several sequences is nothing else."""
    T, B, _, _ = case[0]
    mask = torch.rand(T, B, generator=torch.Generator().manual_seed(5)) < 0.3
    if B > 1:
        mask[:, 0] = True
    return mask if case[1] else None


def call(
    leaves: dict[str, Tensor], mask: Tensor | None, implementation: str | None = None
) -> tuple[Tensor, Tensor]:
    return linear_recurrence(
        leaves["f"], leaves["b"], c_0=leaves["c_0"], padding_mask=mask, implementation=implementation
    )


def run(
    case: Case, dtype: torch.dtype, implementation: str, numbers: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Outputs and all gradients of a loss with random weights on the output and on the last state."""
    leaves = arguments(case, dtype, numbers)
    c, c_n = call(leaves, padding(case), implementation)
    generator = torch.Generator().manual_seed(23)
    weights = [torch.randn(t.shape, generator=generator).to(numbers).to(dtype) for t in (c, c_n)]
    torch.autograd.backward([c, c_n], weights)
    found = {"c": c.detach(), "c_n": c_n.detach()}
    for name, leaf in leaves.items():
        found[f"grad_{name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_is_as_exact_as_plain(case: Case, dtype: torch.dtype) -> None:
    truth, plain = run(case, torch.float64, "reference", dtype), run(case, dtype, "reference", dtype)
    fused = run(case, dtype, "cpp", dtype)
    for name, tensor in fused.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])


@every_case
def test_float64_equals_the_reference(case: Case) -> None:
    truth, fused = run(case, torch.float64, "reference"), run(case, torch.float64, "cpp")
    for name, tensor in fused.items():
        assert (tensor - truth[name]).abs().max() <= 1e-12 * (1 + truth[name].abs().max()), name


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
def test_the_numbers_of_a_hand(implementation: str) -> None:
    f = torch.tensor([[2.0, 2.0], [3.0, 3.0], [-1.0, -1.0]]).view(3, 1, 2, 1)
    b = torch.tensor([[1.0, 1.0], [0.0, 0.0], [5.0, 5.0]]).view(3, 1, 2, 1)
    c, c_n = linear_recurrence(
        f, b, c_0=torch.tensor([10.0, 20.0]).view(2, 1, 1), implementation=implementation
    )
    assert c[:, 0, 0, 0].tolist() == [21.0, 63.0, -58.0]
    assert c[:, 0, 1, 0].tolist() == [-89.0, -45.0, -15.0]  # last step first
    assert c_n.flatten().tolist() == [-58.0, -89.0]


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill fresh memory with NaN, so that a store that is missing shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@every_case
def test_every_cell_is_written(case: Case) -> None:
    assert all(tensor.isfinite().all() for tensor in run(case, torch.float32, "cpp").values())


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
def test_padding_carries_the_state_even_over_nan(implementation: str) -> None:
    case = ((9, 3, 2, 5), True)
    leaves, mask = arguments(case, torch.float32), padding(case)
    clean = call(leaves, mask)
    with torch.no_grad():
        leaves["f"][mask], leaves["b"][mask] = torch.nan, torch.nan
    c, c_n = call(leaves, mask, implementation)
    assert (c - clean[0]).abs().max() < 1e-6
    assert (c_n - clean[1]).abs().max() < 1e-6
    for t in range(1, 9):
        assert torch.equal(c[t, mask[t], 0], c[t - 1, mask[t], 0])
    (c.square().sum() + c_n.square().sum()).backward()
    for name in ("f", "b"):
        assert leaves[name].grad[mask].count_nonzero() == 0
        assert leaves[name].grad.isfinite().all()


def test_without_gradients_the_numbers_are_the_same() -> None:
    leaves, mask = arguments(CASES[1], torch.float32), padding(CASES[1])
    with_graph = call(leaves, mask)
    with torch.no_grad():
        without = call(leaves, mask)
    assert all(torch.equal(a, b) for a, b in zip(with_graph, without, strict=True))


def test_inputs_stay_untouched_and_any_layout_is_read() -> None:
    leaves = {k: v.detach() for k, v in arguments(((6, 4, 2, 3), False), torch.float32).items()}
    strided = leaves["f"].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    offset = torch.cat([strided.new_zeros(1), leaves["f"].flatten()])[1:].view_as(strided)
    assert not strided.is_contiguous()
    before = strided.clone()
    leaves |= {"c_0": torch.randn(4, 3).expand(2, 4, 3), "b": torch.randn(2, 3).expand(6, 4, 2, 3)}
    first, *others = (call(leaves | {"f": f}, None) for f in (leaves["f"], strided, offset))
    assert all(torch.equal(first[0], other[0]) and torch.equal(first[1], other[1]) for other in others)
    assert torch.equal(strided, before)


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("shape", [(0, 2, 1, 3), (4, 0, 2, 3)])
def test_empty_time_or_batch_has_an_answer(shape: tuple[int, int, int, int], implementation: str) -> None:
    found = run((shape, False), torch.float32, implementation)
    assert found["c"].shape == shape
    assert torch.equal(found["c_n"], arguments((shape, False), torch.float32)["c_0"])
    assert found["grad_c_0"].shape == found["c_n"].shape


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
def test_gradcheck_and_double_backward(implementation: str) -> None:
    case = ((3, 2, 2, 2), True)
    leaves, mask = arguments(case, torch.float64), padding(case)

    def function(f: Tensor, b: Tensor, c_0: Tensor) -> tuple[Tensor, Tensor]:
        return call({"f": f, "b": b, "c_0": c_0}, mask, implementation)

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(function, tuple(leaves.values()))


@pytest.mark.parametrize("wants_gradient", [True, False])
def test_opcheck(wants_gradient: bool) -> None:
    from karui.ops.linear_recurrence import cpu

    case = ((3, 2, 2, 3), wants_gradient)
    f, b, c_0 = (
        leaf.detach().requires_grad_(wants_gradient) for leaf in arguments(case, torch.float32).values()
    )
    torch.library.opcheck(cpu.forward_op, (f, b, c_0, padding(case)))
    c = torch.randn(f.shape)
    grads = (torch.randn(f.shape), torch.randn(c_0.shape))
    torch.library.opcheck(cpu.backward_op, (*grads, f.detach(), c_0.detach(), padding(case), c))


def test_compiles_to_one_graph_and_exports() -> None:
    case = ((5, 2, 1, 4), True)
    leaves, mask = arguments(case, torch.float32), padding(case)

    class Scan(torch.nn.Module):
        def forward(self, f: Tensor, b: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return linear_recurrence(f, b, c_0=f.new_zeros(1, f.shape[1], 4), padding_mask=mask)

    scan, inputs = Scan(), (leaves["f"], leaves["b"], mask)
    wanted = scan(*inputs)
    found = torch.compile(scan, fullgraph=True, backend="aot_eager")(*inputs)
    found[0].sum().backward()
    exported = torch.export.export(scan, inputs).module()
    for each in (found, exported(*inputs)):
        assert all(torch.equal(a, b) for a, b in zip(each, wanted, strict=True))
    assert leaves["b"].grad is not None


def test_runs_twice_to_the_same_bits_whatever_the_threads() -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(run(((63, 5, 2, 41), True), torch.float32, "cpp"))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(tensor, other[name]) for name, tensor in found[0].items() for other in found)


def test_trains_to_the_same_curve_as_the_reference() -> None:
    curves = []
    for implementation in ("cpp", "reference"):
        leaves = arguments(((12, 4, 1, 6), False), torch.float32)
        wanted = leaves["b"].detach().cumsum(0) * 0.1
        optimiser = torch.optim.SGD(list(leaves.values()), lr=5.0)
        losses = []
        for _ in range(20):
            loss = (call(leaves, None, implementation)[0] - wanted).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        curves.append(torch.stack(losses))
    assert curves[0][-1] < 0.5 * curves[0][0]
    assert (curves[0] - curves[1]).abs().max() < 1e-5


def test_what_does_not_fit_is_refused_by_name() -> None:
    leaves = arguments(((3, 2, 1, 4), False), torch.float32)
    for change, message in [
        ({"f": leaves["f"][0]}, r"f must be \(T, B, D in 1..2, H\), got \(2, 1, 4\)"),
        ({"b": leaves["b"][:2]}, r"b must have shape \(3, 2, 1, 4\) .* got \(2, 2, 1, 4\)"),
        ({"c_0": leaves["c_0"][:, :1]}, r"c_0 must have shape \(1, 2, 4\) .* got \(1, 1, 4\)"),
        ({"b": leaves["b"].double()}, "b must have the dtype of f, torch.float32, got torch.float64"),
        ({"padding_mask": torch.zeros(2, 3).bool()}, r"padding_mask must be bool of shape \(3, 2\)"),
        ({"implementation": "cuda"}, "implementation must be None or one of .* got 'cuda'"),
    ]:
        arguments_given: dict[str, Any] = leaves | change
        with pytest.raises(ValueError, match=message):
            linear_recurrence(**arguments_given)
