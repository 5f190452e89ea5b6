"""Proof of the compiled scan against the reference in fp64: every output, every gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from karui.ops.simple_recurrence import simple_recurrence
from tests.support.kernel_proof import assert_as_exact_as_plain


class Case(NamedTuple):
    """One configuration of the scan."""

    sizes: tuple[int, int, int, int]  # T, B, D, H
    skip: str = "projected"  # "projected", "input" or "none"
    activation: str = "identity"
    variant: str = "v2"
    masked: bool = True
    padded: bool = True


CASES = [
    Case((1, 1, 1, 1)),
    Case((63, 3, 2, 41)),
    Case((63, 3, 1, 41), "input", "relu"),
    Case((17, 5, 2, 7), "none", "tanh"),
    Case((17, 5, 2, 7), "input", "tanh", masked=False),
    Case((128, 8, 1, 64), "input", padded=False),
    Case((128, 8, 2, 16), "projected", "tanh", masked=False, padded=False),
    Case((1, 1, 1, 1), "input", variant="v1"),
    Case((63, 3, 2, 41), "projected", "tanh", variant="v1"),
    Case((17, 5, 2, 7), "input", "relu", variant="v1", masked=False),
    Case((128, 8, 1, 64), "none", variant="v1", padded=False),
    Case((40, 1, 1, 515), "input"),  # columns are shared out, with a tail
]
HALVES = [torch.bfloat16, torch.float16]


def arguments(
    case: Case, dtype: torch.dtype, numbers: torch.dtype = torch.float32
) -> dict[str, Tensor | None]:
    """Fresh leaves; numbers first rounded to `numbers`, the same whatever the dtype."""
    T, B, D, H = case.sizes
    generator = torch.Generator().manual_seed(17)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).mul(0.7).to(numbers).to(dtype).requires_grad_()

    blocks = 4 if case.skip == "projected" else 3
    leaves: dict[str, Tensor | None] = {"u": draw(T, B, D, blocks, H), "x": None, "weight_c": None}
    if case.skip == "input":
        leaves["x"] = draw(T, B, D * H)
    if case.variant == "v2":
        leaves["weight_c"] = draw(D, 2, H)
    return leaves | {"bias": draw(D, 2, H), "c_0": draw(D, B, H)}


def options(case: Case, dtype: torch.dtype, numbers: torch.dtype = torch.float32) -> dict[str, Any]:
    """What takes no gradient: padding (anywhere, one sequence of nothing else), mask, activation, scale."""
    T, B, D, H = case.sizes
    generator = torch.Generator().manual_seed(5)
    padding = torch.rand(T, B, generator=generator) < 0.3
    if B > 1:
        padding[:, 0] = True
    mask = ((torch.rand(B, D * H, generator=generator) > 0.3) / 0.7).to(numbers).to(dtype)
    return {
        "padding_mask": padding if case.padded else None,
        "dropout_mask": mask if case.masked else None,
        "activation": case.activation,
        "variant": case.variant,
        "scale": 1.3,
    }


def call(leaves: dict[str, Any], **extra: Any) -> tuple[Tensor, Tensor]:
    return simple_recurrence(
        leaves["u"], leaves["x"], leaves["weight_c"], leaves["bias"], c_0=leaves["c_0"], **extra
    )


def run(
    case: Case, dtype: torch.dtype, implementation: str, numbers: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Outputs and all gradients of a loss with random weights on the output and on the last state."""
    leaves = arguments(case, dtype, numbers)
    h, c_n = call(leaves, implementation=implementation, **options(case, dtype, numbers))
    generator = torch.Generator().manual_seed(23)
    weights = [torch.randn(t.shape, generator=generator).to(numbers).to(dtype) for t in (h, c_n)]
    torch.autograd.backward([h, c_n], weights)
    found = {"h": h.detach(), "c_n": c_n.detach()}
    return found | {
        f"grad_{name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
        if leaf is not None
    }


@pytest.mark.parametrize("case", CASES)
def test_float32_is_as_exact_as_plain(case: Case) -> None:
    truth, plain = run(case, torch.float64, "reference"), run(case, torch.float32, "reference")
    fused = run(case, torch.float32, "cpp")
    for name, tensor in fused.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])


@pytest.mark.parametrize("case", CASES)
def test_float64_equals_the_reference(case: Case) -> None:
    truth, fused = run(case, torch.float64, "reference"), run(case, torch.float64, "cpp")
    for name, tensor in fused.items():
        assert (tensor - truth[name]).abs().max() <= 1e-12 * (1 + truth[name].abs().max()), name


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("case", CASES[1:5] + CASES[8:10])
def test_16_bits_are_as_exact_as_plain(case: Case, dtype: torch.dtype) -> None:
    truth, plain = run(case, torch.float64, "reference", dtype), run(case, dtype, "reference", dtype)
    fused = run(case, dtype, "cpp", dtype)
    for name, tensor in fused.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])


def test_16_bits_beside_32_as_under_autocast() -> None:
    leaves = arguments(CASES[2], torch.float32)
    low = leaves | {"u": leaves["u"].detach().bfloat16().requires_grad_()}
    for implementation in ("cpp", "reference"):
        h, c_n = call(low, implementation=implementation)
        assert (h.dtype, c_n.dtype) == (torch.bfloat16, torch.float32)
        (h.float().sum() + c_n.sum()).backward()
        assert low["u"].grad.dtype == torch.bfloat16
        assert low["bias"].grad.dtype == torch.float32


@pytest.fixture
def poisoned() -> object:
    """Fill fresh memory with NaN, so that a store that is missing shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("case", [*CASES[1:5], CASES[8], CASES[-1]])
def test_every_cell_is_written(case: Case) -> None:
    assert all(tensor.isfinite().all() for tensor in run(case, torch.float32, "cpp").values())


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_padding_changes_nothing_even_nan(variant: str, implementation: str) -> None:
    case = Case((9, 3, 2, 5), "input", variant=variant)
    leaves, extra = arguments(case, torch.float32), options(case, torch.float32)
    clean = call(leaves, **extra)
    padding = extra["padding_mask"]
    with torch.no_grad():
        leaves["u"][padding], leaves["x"][padding] = torch.nan, torch.nan
    h, c_n = call(leaves, implementation=implementation, **extra)
    assert (h - clean[0]).abs().max() < 1e-6
    assert (c_n - clean[1]).abs().max() < 1e-6
    assert h[padding].count_nonzero() == 0
    (h.square().sum() + c_n.square().sum()).backward()
    assert leaves["u"].grad[padding].count_nonzero() == 0
    assert leaves["x"].grad[padding].count_nonzero() == 0
    assert all(leaf.grad.isfinite().all() for leaf in leaves.values() if leaf is not None)


def test_lengths_are_padding_at_the_end() -> None:
    case = Case((9, 3, 2, 5), masked=False, padded=False)
    leaves, lengths = arguments(case, torch.float32), torch.tensor([9, 0, 4])
    by_mask = call(leaves, padding_mask=torch.arange(9)[:, None] >= lengths)
    for one, other in zip(call(leaves, lengths=lengths), by_mask, strict=True):
        assert torch.equal(one, other)


def test_without_gradients_the_numbers_are_the_same() -> None:
    leaves, extra = arguments(CASES[1], torch.float32), options(CASES[1], torch.float32)
    with_graph = call(leaves, **extra)
    with torch.no_grad():
        without = call(leaves, **extra)
    assert all(torch.equal(a, b) for a, b in zip(with_graph, without, strict=True))


def test_inputs_stay_untouched_and_any_layout_is_read() -> None:
    case = Case((6, 4, 2, 3), masked=False, padded=False)
    leaves = {k: None if v is None else v.detach() for k, v in arguments(case, torch.float32).items()}
    strided = leaves["u"].permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    offset = torch.cat([strided.new_zeros(1), leaves["u"].flatten()])[1:].view_as(strided)
    assert not strided.is_contiguous()
    before = strided.clone()
    leaves["c_0"] = torch.randn(4, 3).expand(2, 4, 3)
    first, *others = (call(leaves | {"u": u}) for u in (leaves["u"], strided, offset))
    assert all(torch.equal(first[0], other[0]) and torch.equal(first[1], other[1]) for other in others)
    assert torch.equal(strided, before)


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("shape", [(0, 2, 1, 3), (4, 0, 1, 3), (0, 2, 2, 3)])
def test_empty_time_or_batch_has_an_answer(shape: tuple[int, int, int, int], implementation: str) -> None:
    found = run(Case(shape, "input"), torch.float32, implementation)
    leaves = arguments(Case(shape, "input"), torch.float32)
    assert found["h"].shape == (shape[0], shape[1], shape[2] * 3)
    assert torch.equal(found["c_n"], leaves["c_0"])
    assert found["grad_bias"].count_nonzero() == 0
    assert found["grad_u"].shape == leaves["u"].shape


def callable_of(case: Case, implementation: str) -> tuple[Callable[..., Any], list[Tensor]]:
    """A function of the leaves that exist, for gradcheck."""
    leaves, extra = arguments(case, torch.float64), options(case, torch.float64)
    names = [name for name, leaf in leaves.items() if leaf is not None]

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        given = dict.fromkeys(leaves) | dict(zip(names, tensors, strict=True))
        return call(given, implementation=implementation, **extra)

    return function, [leaves[name] for name in names]


TINY = [
    Case((3, 2, 2, 1), "input", "tanh"),
    Case((3, 2, 1, 1), "projected"),
    Case((3, 2, 1, 1), "none", "tanh", "v1"),
]


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("case", TINY)
def test_gradcheck_and_double_backward(case: Case, implementation: str) -> None:
    function, leaves = callable_of(case, implementation)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_double_backward_where_one_input_comes_from_another() -> None:
    """u is a product of x: the gradient of x must count its path through u once."""
    x = torch.randn(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    rest = arguments(Case((3, 2, 1, 2), "input"), torch.float64)

    def penalty(implementation: str) -> Tensor:
        leaves = rest | {"u": torch.stack([x, 2 * x, -x], dim=2)[:, :, None], "x": x}
        h, c_n = call(leaves, implementation=implementation)
        (slope,) = torch.autograd.grad(h.square().sum() + c_n.sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    assert (penalty("cpp") - penalty("reference")).abs().max() < 1e-12


@pytest.mark.parametrize(
    "case", [Case((5, 2, 2, 3), "input"), Case((5, 2, 1, 3), variant="v1", masked=False)]
)
@pytest.mark.parametrize("wants_gradient", [True, False])
def test_opcheck(case: Case, wants_gradient: bool) -> None:
    from karui.ops.simple_recurrence import cpu

    leaves, extra = list(arguments(case, torch.float32).values()), options(case, torch.float32)
    leaves = [leaf if leaf is None else leaf.detach().requires_grad_(wants_gradient) for leaf in leaves]
    words = (extra["padding_mask"], extra["dropout_mask"], "relu", 1.3)
    torch.library.opcheck(cpu.forward_op, (*leaves, *words, wants_gradient))
    T, B, D, H = case.sizes
    grads = (torch.randn(T, B, D * H), torch.randn(D, B, H))
    detached = [leaf if leaf is None else leaf.detach() for leaf in leaves]
    torch.library.opcheck(
        cpu.backward_op, (*grads, *detached, *words[:2], torch.randn(T, B, D, H), "tanh", 1.3)
    )


class Scan(torch.nn.Module):
    """The operation between two parameters, for export."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_c, self.bias = (torch.nn.Parameter(torch.full((1, 2, 4), 0.3)) for _ in range(2))

    def forward(self, u: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
        c_0 = u.new_zeros(1, u.shape[1], 4)
        return simple_recurrence(u, None, self.weight_c, self.bias, c_0=c_0, padding_mask=padding_mask)


def test_compiles_to_one_graph_and_exports() -> None:
    u, padding = torch.randn(5, 2, 1, 3, 4), torch.rand(5, 2) < 0.3
    scan = Scan()
    wanted = scan(u, padding)
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    found = compiled(u, padding)
    found[0].sum().backward()
    exported = torch.export.export(scan, (u, padding)).module()
    for each in (found, exported(u, padding)):
        assert all(torch.equal(a, b) for a, b in zip(each, wanted, strict=True))
    assert scan.bias.grad is not None


def test_trains_to_the_same_curve_as_the_reference() -> None:
    curves = []
    for implementation in ("cpp", "reference"):
        leaves = arguments(Case((12, 4, 1, 6), "input"), torch.float32)
        trained = [leaves["weight_c"], leaves["bias"], leaves["c_0"]]
        optimiser = torch.optim.SGD(trained, lr=10.0)
        losses = []
        for _ in range(20):
            h, _ = call(leaves, implementation=implementation)
            loss = (h - 0.5 * leaves["x"].detach()).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        curves.append(torch.stack(losses))
    assert curves[0][-1] < 0.9 * curves[0][0]
    assert (curves[0] - curves[1]).abs().max() < 1e-5


def test_runs_twice_to_the_same_bits_whatever_the_threads() -> None:
    case = Case((63, 5, 2, 41))
    first = run(case, torch.float32, "cpp")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        second = run(case, torch.float32, "cpp")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_time_is_linear_in_length() -> None:
    """The reference keeps one node a step, so its graph grows with T and not with T squared."""
    nodes = []
    for T in (8, 16, 32):
        leaves = arguments(Case((T, 1, 1, 2)), torch.float32)
        h, _ = call(leaves, implementation="reference")
        seen, todo = set(), [h.grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo.extend(parent for parent, _ in node.next_functions)
        nodes.append(len(seen))
    assert nodes[2] - nodes[1] == 2 * (nodes[1] - nodes[0])


def test_what_does_not_fit_is_refused_by_name() -> None:
    leaves = {k: v for k, v in arguments(Case((3, 2, 1, 4)), torch.float32).items() if v is not None}
    leaves["x"] = None
    for change, extra, message in [
        ({"bias": leaves["bias"][:, :1]}, {}, r"bias must have shape \(1, 2, 4\)"),
        ({"u": leaves["u"][0]}, {}, r"u must be \(T, B, D in 1..2, G in 3..4, H\), got \(2, 1, 4, 4\)"),
        ({"x": leaves["u"][..., 0, 0]}, {}, "x must be None"),
        (
            {"bias": leaves["bias"].double()},
            {},
            "bias must have the dtype of u, torch.float32, got torch.float64",
        ),
        ({}, {"implementation": "cuda"}, "implementation must be None or one of .* got 'cuda'"),
        ({}, {"activation": "gelu"}, "activation must be one of .* got 'gelu'"),
        ({}, {"variant": "v3"}, "variant must be one of .* got 'v3'"),
        ({}, {"variant": "v1"}, "weight_c must be None with variant 'v1'"),
        ({"weight_c": None}, {}, "weight_c must be None with variant 'v1' and a tensor with 'v2'"),
        ({}, {"padding_mask": torch.zeros(2, 3).bool()}, r"padding_mask must be bool of shape \(3, 2\)"),
        ({}, {"padding_mask": torch.zeros(3, 2)}, "padding_mask must be bool of shape .* got torch.float32"),
        ({}, {"dropout_mask": torch.ones(4)}, r"dropout_mask must have shape \(2, 4\), got \(4,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(leaves | change, **extra)
    elsewhere = {k: v if v is None else v.detach().to("meta") for k, v in leaves.items()}
    with pytest.raises(
        ValueError, match="'cpp' needs a floating-point CPU tensor, got torch.float32 on meta"
    ):
        call(elsewhere, implementation="cpp")
