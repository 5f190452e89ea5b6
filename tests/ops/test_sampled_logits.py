"""Proof of the compiled pass over the scores of noise words, by the recipe for kernels."""

import pytest
import torch
from torch import Tensor

from karui.ops.sampled_logits import TERMS, cpu, sampled_logits
from tests.support.kernel_proof import assert_as_exact_as_plain

SIZES = [(1, 1, 1), (63, 41, 3), (17, 7, 5), (65, 128, 64)]  # N, K, H


def numbers(sizes, term, *, hits=True, scale=1.0, dtype=torch.float32) -> dict:
    """Inputs in which some noise words are targets; ids are few, so that hits and repeats are many."""
    N, K, H = sizes
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    found = {"hidden": draw(N, H), "rows": draw(K, H), "offset": draw(K), "first": draw(N)}
    if term == "softplus":
        found["first"] = None
    if hits:
        ids = {
            name: torch.randint(0, 9, (size,), generator=generator)
            for name, size in (("target", N), ("noise", K))
        }
        found |= ids
    return found


def run(inputs: dict, term: str, implementation: str, dtype: torch.dtype) -> dict[str, Tensor]:
    leaves = {
        name: None if t is None else t.detach().to(dtype if t.is_floating_point() else t.dtype)
        for name, t in inputs.items()
    }
    for leaf in leaves.values():
        if leaf is not None and leaf.is_floating_point():
            leaf.requires_grad_()
    value = sampled_logits(**leaves, term=term, implementation=implementation)
    weights = torch.randn(len(value), generator=torch.Generator().manual_seed(23)).to(dtype)
    value.backward(weights)
    found = {"value": value.detach()}
    return found | {f"grad_{n}": t.grad for n, t in leaves.items() if t is not None and t.requires_grad}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("hits", [True, False])
def test_as_exact_as_plain(sizes, term, hits) -> None:
    inputs = numbers(sizes, term, hits=hits)
    before = {name: None if t is None else t.clone() for name, t in inputs.items()}
    plain, truth = (run(inputs, term, "reference", dtype) for dtype in (torch.float32, torch.float64))
    fused, again = (run(inputs, term, "cpp", torch.float32) for _ in range(2))
    assert fused.keys() == plain.keys()
    for name, tensor in fused.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])
        assert torch.equal(tensor, again[name]), f"{name}: another run, other bits"
    for name, tensor in inputs.items():
        assert (tensor is None and before[name] is None) or torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("term", TERMS)
def test_large_scores_stay_finite(term) -> None:
    inputs = numbers((9, 33, 4), term, scale=30.0)
    plain, truth = (run(inputs, term, "reference", d) for d in (torch.float32, torch.float64))
    fused = run(inputs, term, "cpp", torch.float32)
    # One noise word may take all the mass: there the last bits of a share decide, in any form.
    for name, tensor in fused.items():
        assert tensor.isfinite().all(), name
        if term != "blackout":
            assert_as_exact_as_plain(name, tensor, plain[name], truth[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_computed_in_32(dtype) -> None:
    inputs = numbers((17, 9, 5), "logsumexp")
    inputs |= {name: inputs[name].to(dtype) for name in ("hidden", "rows")}
    found = sampled_logits(**inputs)
    truth = sampled_logits(**{n: t.double() if t.is_floating_point() else t for n, t in inputs.items()})
    wide = {n: t.float() if t.is_floating_point() else t for n, t in inputs.items()}
    assert_as_exact_as_plain("value", found, sampled_logits(**wide, implementation="reference"), truth)


@pytest.mark.parametrize("term", TERMS)
def test_layouts_threads_and_modes_change_nothing(term) -> None:
    inputs = numbers((33, 20, 6), term)
    usual = run(inputs, term, "cpp", torch.float32)
    plain, truth = (run(inputs, term, "reference", dtype) for dtype in (torch.float32, torch.float64))
    spread = {name: None if t is None else torch.stack([t, t], dim=-1)[..., 0] for name, t in inputs.items()}
    assert not spread["hidden"].is_contiguous()
    for name, tensor in run(spread, term, "cpp", torch.float32).items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])
    with torch.no_grad():
        assert torch.equal(sampled_logits(**inputs, term=term), usual["value"])
    scores = torch.randn(33, 20, generator=torch.Generator().manual_seed(1))
    hits = inputs["target"], inputs["noise"]
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            slopes = scores.clone()
            found = cpu.noise_terms_(slopes, inputs["offset"], inputs["first"], hits, TERMS.index(term))
            results.append([slopes, *[t for t in found if t is not None]])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_every_number_is_written() -> None:
    try:
        torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
        assert torch.empty(3).isnan().all()
        for term in TERMS:
            for name, tensor in run(numbers((9, 8, 5), term), term, "cpp", torch.float32).items():
                assert tensor.isfinite().all(), name
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("implementation", ["reference", "cpp"])
def test_gradcheck(term, implementation) -> None:
    inputs = numbers((4, 5, 3), term, dtype=torch.float64)
    names = [name for name, t in inputs.items() if t is not None and t.is_floating_point()]

    def value(*tensors: Tensor) -> Tensor:
        given = inputs | dict(zip(names, tensors, strict=True))
        return sampled_logits(**given, term=term, implementation=implementation)

    assert torch.autograd.gradcheck(value, [inputs[name].requires_grad_() for name in names])


@pytest.mark.parametrize("term", range(3))
def test_operator_agrees_with_its_fake(term) -> None:
    inputs = numbers((6, 5, 4), TERMS[term])
    for requires_grad in (False, True):
        tensors = [
            t if t is None or not t.is_floating_point() else t.clone().requires_grad_(requires_grad)
            for t in inputs.values()
        ]
        torch.library.opcheck(cpu.forward_op, (*tensors, term))


def test_a_compiled_graph_gives_the_same_numbers() -> None:
    inputs = numbers((6, 5, 4), "blackout")
    compiled = torch.compile(sampled_logits, backend="aot_eager", fullgraph=True)
    found = compiled(**inputs, term="blackout")
    assert torch.equal(found, sampled_logits(**inputs, term="blackout"))


def test_no_positions_nan_and_a_second_derivative() -> None:
    inputs = numbers((3, 4, 2), "logsumexp", hits=False)
    empty = inputs | {"hidden": inputs["hidden"][:0], "first": inputs["first"][:0]}
    assert sampled_logits(**empty).shape == (0,)
    for term in TERMS:
        poisoned = inputs | {"hidden": inputs["hidden"].clone()}
        if term == "softplus":
            poisoned["first"] = None
        poisoned["hidden"][1, 0] = torch.nan
        assert sampled_logits(**poisoned, term=term).isnan().tolist() == [False, True, False]
    inputs["hidden"].requires_grad_()
    with pytest.raises(RuntimeError, match="differentiable once: choose implementation='reference'"):
        torch.autograd.grad(sampled_logits(**inputs).sum(), inputs["hidden"], create_graph=True)


def test_words_and_shapes_that_do_not_fit_are_named() -> None:
    inputs = numbers((3, 4, 2), "logsumexp")
    with pytest.raises(ValueError, match=r"term must be one of .*, got 'max'"):
        sampled_logits(**inputs, term="max")
    with pytest.raises(ValueError, match="term 'softplus' takes no first"):
        sampled_logits(**inputs, term="softplus")
    with pytest.raises(ValueError, match="term 'blackout' needs first"):
        sampled_logits(**inputs | {"first": None}, term="blackout")
    with pytest.raises(ValueError, match="with first only"):
        sampled_logits(**inputs | {"first": None})
    with pytest.raises(ValueError, match="give target and noise, or neither"):
        sampled_logits(**inputs | {"noise": None})
    with pytest.raises(ValueError, match=r"offset must be \(4,\) of torch.float32, got \(3,\)"):
        sampled_logits(**inputs | {"offset": inputs["first"]})
    with pytest.raises(ValueError, match=r"rows \(K, H\), K >= 1, got \(3, 2\) and \(0, 2\)"):
        sampled_logits(**inputs | {"rows": inputs["rows"][:0]})
