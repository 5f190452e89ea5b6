"""Proof of the compiled scan against the reference in fp64: every output, every gradient."""

from typing import NamedTuple

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
    masked: bool = True
    lengths: bool = True


CASES = [
    Case((1, 1, 1, 1)),
    Case((63, 3, 2, 41)),
    Case((63, 3, 1, 41), "input"),
    Case((17, 5, 2, 7), "none", "tanh"),
    Case((17, 5, 2, 7), "input", "tanh", masked=False),
    Case((128, 8, 1, 64), "input", lengths=False),
    Case((128, 8, 2, 16), "projected", "tanh", masked=False, lengths=False),
]


def arguments(case: Case, dtype: torch.dtype) -> dict[str, Tensor | None]:
    """Fresh leaves; the same rounded float32 numbers whatever the dtype."""
    T, B, D, H = case.sizes
    generator = torch.Generator().manual_seed(17)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).mul(0.7).to(dtype).requires_grad_()

    blocks = 4 if case.skip == "projected" else 3
    leaves: dict[str, Tensor | None] = {"u": draw(T, B, D, blocks, H), "x": None}
    if case.skip == "input":
        leaves["x"] = draw(T, B, D * H)
    return leaves | {"weight_c": draw(D, 2, H), "bias": draw(D, 2, H), "c_0": draw(D, B, H)}


def options(case: Case, dtype: torch.dtype) -> dict[str, object]:
    """What takes no gradient: lengths (one of them 0), mask, activation, scale."""
    T, B, D, H = case.sizes
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    lengths[0] = 0 if B > 1 else lengths[0]
    mask = (torch.rand(B, D * H, generator=generator) > 0.3).to(dtype) / 0.7
    return {
        "lengths": lengths if case.lengths else None,
        "dropout_mask": mask if case.masked else None,
        "activation": case.activation,
        "scale": 1.3,
    }


def run(case: Case, dtype: torch.dtype, implementation: str) -> dict[str, Tensor]:
    """Outputs and all gradients of a loss with random weights on the output and on the last state."""
    leaves = arguments(case, dtype)
    h, c_n = simple_recurrence(
        *list(leaves.values())[:4], c_0=leaves["c_0"], implementation=implementation, **options(case, dtype)
    )
    generator = torch.Generator().manual_seed(23)
    loss = sum((t * torch.randn(t.shape, generator=generator).to(dtype)).sum() for t in (h, c_n))
    loss.backward()
    found = {"h": h.detach(), "c_n": c_n.detach()}
    return found | {f"grad_{name}": leaf.grad for name, leaf in leaves.items() if leaf is not None}


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


@pytest.fixture
def poisoned() -> object:
    """Fill fresh memory with NaN, so that a store that is missing shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("case", CASES[1:5])
def test_every_cell_is_written(case: Case) -> None:
    assert all(tensor.isfinite().all() for tensor in run(case, torch.float32, "cpp").values())


def test_padding_changes_nothing_even_nan() -> None:
    case = Case((9, 3, 2, 5), "input")
    leaves, extra = arguments(case, torch.float32), options(case, torch.float32)
    clean = simple_recurrence(*list(leaves.values())[:4], c_0=leaves["c_0"], **extra)
    with torch.no_grad():
        for b, length in enumerate(extra["lengths"].tolist()):
            leaves["u"][length:, b] = torch.nan
            leaves["x"][length:, b] = torch.nan
    for implementation in ("cpp", "reference"):
        h, c_n = simple_recurrence(
            *list(leaves.values())[:4], c_0=leaves["c_0"], implementation=implementation, **extra
        )
        assert (h - clean[0]).abs().max() < 1e-6
        assert (c_n - clean[1]).abs().max() < 1e-6
        assert h[extra["lengths"].max() :].count_nonzero() == 0


def test_inputs_stay_untouched_and_any_layout_is_read() -> None:
    case = Case((6, 4, 2, 3), lengths=False)
    leaves = {k: v.detach() for k, v in arguments(case, torch.float32).items() if v is not None}
    strided = leaves["u"].permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    assert not strided.is_contiguous()
    before = strided.clone()
    calls = [
        simple_recurrence(u, None, leaves["weight_c"], leaves["bias"], c_0=leaves["c_0"].expand(2, 4, 3))
        for u in (leaves["u"], strided)
    ]
    assert torch.equal(calls[0][0], calls[1][0])
    assert torch.equal(strided, before)


@pytest.mark.parametrize("shape", [(0, 2, 1, 3), (4, 0, 1, 3)])
def test_empty_time_or_batch_has_an_answer(shape: tuple[int, int, int, int]) -> None:
    case = Case(shape, masked=False, lengths=False)
    leaves = arguments(case, torch.float32)
    for implementation in ("cpp", "reference"):
        h, c_n = simple_recurrence(
            *list(leaves.values())[:4], c_0=leaves["c_0"], implementation=implementation
        )
        assert h.shape == (shape[0], shape[1], 3)
        assert torch.equal(c_n, leaves["c_0"])


def test_gradcheck_and_double_backward() -> None:
    case = Case((4, 2, 2, 3), "input", "tanh", lengths=False)
    leaves = [leaf for leaf in arguments(case, torch.float64).values() if leaf is not None]

    def call(implementation: str):
        return lambda u, x, w, b, c: simple_recurrence(
            u, x, w, b, c_0=c, activation="tanh", scale=1.3, implementation=implementation
        )

    assert torch.autograd.gradcheck(call("cpp"), leaves)
    assert torch.autograd.gradcheck(call("reference"), leaves)
    assert torch.autograd.gradgradcheck(call("reference"), leaves)


@pytest.mark.parametrize("skip", ["input", "projected"])
def test_opcheck(skip: str) -> None:
    from karui.ops.simple_recurrence import cpu

    case = Case((5, 2, 2, 3), skip)
    leaves = list(arguments(case, torch.float32).values())
    torch.library.opcheck(cpu.forward_op, (*leaves, None, None, False, 1.3))


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
        leaves = arguments(Case((T, 1, 1, 2), masked=False, lengths=False), torch.float32)
        h, _ = simple_recurrence(*list(leaves.values())[:4], c_0=leaves["c_0"], implementation="reference")
        seen, todo = set(), [h.grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo.extend(parent for parent, _ in node.next_functions)
        nodes.append(len(seen))
    assert nodes[2] - nodes[1] == 2 * (nodes[1] - nodes[0])


def test_what_does_not_fit_is_refused_by_name() -> None:
    leaves = arguments(Case((3, 2, 1, 4)), torch.float32)
    u, _, weight_c, bias, c_0 = leaves.values()
    with pytest.raises(ValueError, match=r"bias must have shape \(1, 2, 4\)"):
        simple_recurrence(u, None, weight_c, bias[:, :1], c_0=c_0)
    with pytest.raises(ValueError, match="x must be None"):
        simple_recurrence(u, u[..., 0, 0], weight_c, bias, c_0=c_0)
    with pytest.raises(ValueError, match="implementation must be .* got 'triton'"):
        simple_recurrence(u, None, weight_c, bias, c_0=c_0, implementation="triton")
    with pytest.raises(ValueError, match="activation must be 'identity' or 'tanh', got 'relu'"):
        simple_recurrence(u, None, weight_c, bias, c_0=c_0, activation="relu")
    with pytest.raises(ValueError, match="needs a float32 or float64 CPU tensor, got torch.bfloat16"):
        low = [t.bfloat16() for t in (u, weight_c, bias, c_0)]
        simple_recurrence(low[0], None, low[1], low[2], c_0=low[3], implementation="cpp")
