"""Proof of the compiled walk through a tree, of its gradients and of the search for the best leaves."""

import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from karui.ops.tree_path import build_huffman, leaf_paths, reference, search_tree, tree_path
from tests.support.kernel_proof import assert_as_exact_as_plain

SIZES = [(1, 1, 2), (7, 5, 3), (63, 41, 20), (40, 64, 300), (3, 17, 2)]  # N, H, V


def random_steps(N: int, V: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(V)
    counts = torch.randint(0, 1000, (V,), generator=generator)
    parent, depth, _, _ = build_huffman(counts)
    leaves = torch.randint(V, (N,), generator=generator)
    return dict(zip(("nodes", "codes", "offsets"), leaf_paths(parent, depth, leaves), strict=True))


def values(N: int, H: int, V: int, dtype: torch.dtype, rounded: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(11)
    shapes = ((N, H), (V - 1, H), (V - 1,))
    numbers = [torch.randn(shape, generator=generator).to(rounded) for shape in shapes]
    return [x.to(dtype).requires_grad_() for x in numbers]


def run(
    sizes: tuple[int, int, int], dtype: torch.dtype, how: str, *, sparse: bool = False, has_bias: bool = True
) -> dict[str, Tensor]:
    N, H, V = sizes
    hidden, weight, bias = values(N, H, V, dtype, torch.float32)
    steps = random_steps(N, V)
    log_prob = tree_path(
        hidden, weight, bias if has_bias else None, **steps, sparse=sparse, implementation=how
    )
    ramp = torch.linspace(-1.0, 2.0, N).to(dtype)
    (log_prob * ramp).sum().backward()
    found = {"log_prob": log_prob.detach(), "grad_hidden": hidden.grad, "grad_weight": weight.grad.to_dense()}
    return found | ({"grad_bias": bias.grad.to_dense()} if has_bias else {})


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fresh memory is filled with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_compiled_is_as_exact_as_plain(sizes, has_bias, sparse) -> None:
    words = {"sparse": sparse, "has_bias": has_bias}
    truth = run(sizes, torch.float64, "reference", **words)
    plain, fused = (run(sizes, torch.float32, how, **words) for how in ("reference", "cpp"))
    double = run(sizes, torch.float64, "cpp", **words)
    assert fused.keys() == truth.keys()
    for name, tensor in fused.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])
        assert (double[name] - truth[name]).abs().max() <= 1e-13 * (1 + truth[name].abs().max())


def test_scores_of_any_size_and_nan_are_kept() -> None:
    steps = {
        "nodes": torch.zeros(2, dtype=torch.int32),
        "codes": torch.tensor([0, 1], dtype=torch.uint8),
        "offsets": torch.arange(3),
    }
    for how in ("reference", "cpp"):
        for score in (1000.0, -1000.0):
            hidden = torch.full((2, 1), score, requires_grad=True)
            log_prob = tree_path(hidden, torch.ones(1, 1), None, **steps, implementation=how)
            assert log_prob.tolist() == ([0.0, -1000.0] if score > 0 else [-1000.0, 0.0])
            log_prob.sum().backward()
            assert hidden.grad.isfinite().all()
        log_prob = tree_path(
            torch.full((2, 1), torch.nan), torch.ones(1, 1), None, **steps, implementation=how
        )
        assert log_prob.isnan().all()


def test_gradients_by_differences_and_gradients_of_gradients() -> None:
    hidden, weight, bias = values(5, 3, 6, torch.float64, torch.float32)
    steps = random_steps(5, 6)
    for how in ("reference", "cpp"):
        call = functools.partial(tree_path, **steps, implementation=how)
        assert torch.autograd.gradcheck(call, (hidden, weight, bias))
    assert torch.autograd.gradgradcheck(
        lambda *x: tree_path(*x, **steps, implementation="cpp"), (hidden, weight, bias)
    )


def test_layout_threads_and_modes_change_nothing() -> None:
    hidden, weight, bias = values(63, 41, 20, torch.float32, torch.float32)
    steps = random_steps(63, 20)
    before = [x.detach().clone() for x in (hidden, weight, bias)]
    first = tree_path(hidden, weight, bias, **steps)
    gradients = torch.autograd.grad(first.sum(), (hidden, weight, bias))
    wide = torch.full((63, 84), 7.0)
    wide[:, 1:83:2] = hidden.detach()
    again = tree_path(wide[:, 1:83:2].requires_grad_(), weight.t().contiguous().t(), bias, **steps)
    assert torch.equal(first, again)
    with torch.no_grad():
        assert torch.equal(tree_path(hidden, weight, bias, **steps), first)
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        other = tree_path(hidden, weight, bias, **steps)
        for a, b in zip(gradients, torch.autograd.grad(other.sum(), (hidden, weight, bias)), strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(usual)
    for x, y in zip((hidden, weight, bias), before, strict=True):
        assert torch.equal(x, y)


def test_sparse_gradients_hold_the_nodes_met_once() -> None:
    hidden, weight, bias = values(4, 5, 300, torch.float32, torch.float32)
    steps = random_steps(4, 300)
    tree_path(hidden, weight, bias, **steps, sparse=True).sum().backward()
    for gradient in (weight.grad, bias.grad):
        assert gradient._indices()[0].tolist() == sorted(set(steps["nodes"].tolist()))


def test_no_rows_and_no_steps_have_an_answer() -> None:
    hidden, weight, bias = values(3, 4, 2, torch.float32, torch.float32)
    nothing = {"nodes": torch.zeros(0, dtype=torch.int32), "codes": torch.zeros(0, dtype=torch.uint8)}
    for how in ("reference", "cpp"):
        log_prob = tree_path(
            hidden, weight, bias, **nothing, offsets=torch.zeros(4, dtype=torch.int64), implementation=how
        )
        assert log_prob.tolist() == [0.0, 0.0, 0.0]
        log_prob.sum().backward()
        assert weight.grad.count_nonzero() == hidden.grad.count_nonzero() == 0
        empty = tree_path(
            hidden[:0], weight, bias, **nothing, offsets=torch.zeros(1, dtype=torch.int64), implementation=how
        )
        assert empty.shape == (0,)


@pytest.mark.parametrize("V", [2, 3, 20, 300])
def test_search_finds_what_a_full_sort_finds(V) -> None:
    counts = torch.randint(0, 50, (V,), generator=torch.Generator().manual_seed(V))
    parent, depth, _, _ = build_huffman(counts)
    hidden, weight, bias = values(9, 7, V, torch.float64, torch.float32)
    branches = torch.empty(2 * (V - 1), dtype=torch.int32)
    order = torch.arange(V, dtype=torch.int32)
    branches[parent[1:].long()] = torch.cat([order[1:-1], -1 - order])
    every = leaf_paths(parent, depth, order.long().repeat(9))
    steps = dict(zip(("nodes", "codes", "offsets"), every, strict=True))
    for b in (bias, None):
        log_prob = tree_path(hidden.repeat_interleave(V, 0), weight, b, **steps).view(9, V)
        best, ids = log_prob.sort(1, descending=True)
        for k in {1, min(V, 10), V}:
            found, leaves = search_tree(hidden, weight, b, branches.view(-1, 2), k)
            assert torch.equal(found, best[:, :k])
            assert torch.equal(log_prob.gather(1, leaves), best[:, :k])
            assert V > 3 or torch.equal(leaves, ids[:, :k])
    hidden = hidden.detach().clone()
    hidden[4, 2] = torch.nan
    found, leaves = search_tree(hidden, weight, bias, branches.view(-1, 2), 2)
    assert found[4].isnan().all()
    assert leaves[4].tolist() == [0, 1]
    assert found[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()


def test_paths_are_those_of_the_reference() -> None:
    counts = torch.randint(0, 50, (100,), generator=torch.Generator().manual_seed(0))
    parent, depth, _, _ = build_huffman(counts)
    for leaves in (torch.randint(100, (40,)), torch.arange(100)[::3], torch.zeros(0, dtype=torch.int64)):
        for a, b in zip(
            leaf_paths(parent, depth, leaves), reference.leaf_paths(parent, depth, leaves), strict=True
        ):
            assert torch.equal(a, b)
            assert a.dtype == b.dtype


def test_what_does_not_fit_is_refused_by_name() -> None:
    hidden, weight, bias = values(3, 4, 6, torch.float32, torch.float32)
    steps = random_steps(3, 6)
    for words, message in (
        ((hidden, weight[:, 1:], bias), r"weight and bias must be \(M, 4\) and \(M,\), got \(5, 3\)"),
        ((hidden, weight, bias[1:]), r"got \(5, 4\) and \(4,\)"),
        ((hidden[1:], weight, bias), r"offsets, nodes and codes must be \(3,\)"),
        ((hidden, weight.double(), bias), "must have the dtype of hidden, torch.float32, got torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            tree_path(*words, **steps)
    with pytest.raises(ValueError, match="must be int32, uint8, int64, got torch.int64"):
        tree_path(hidden, weight, bias, **steps | {"nodes": steps["nodes"].long()})
    with pytest.raises(ValueError, match="implementation must be None or .* got 'cuda'"):
        tree_path(hidden, weight, bias, **steps, implementation="cuda")
    with pytest.raises(ValueError, match="needs a float32 or float64 CPU tensor, got torch.bfloat16"):
        tree_path(*(x.bfloat16() for x in (hidden, weight, bias)), **steps, implementation="cpp")
    with pytest.raises(ValueError, match=r"k in 1..6\b.*k = 7"):
        search_tree(hidden, weight, bias, torch.zeros(5, 2, dtype=torch.int32), 7)
    for counts, message in (
        (torch.ones(3), "counts must be 1-D int64"),
        (torch.zeros(0, dtype=torch.int64), "between 1 and .* got 0"),
        (torch.tensor([3, -1]), "counts must be >= 0 .* got a minimum of -1"),
        (torch.tensor([2**62, 1]), "a sum below 2\\^62"),
    ):
        with pytest.raises(ValueError, match=message):
            build_huffman(counts)
