"""Proof of the compiled walk against the reference in fp64: every output, every gradient."""

import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from karui.ops.statistical_recurrence import statistical_recurrence
from tests.support.kernel_proof import assert_as_exact_as_plain

SHORT, LONG = (0.0, 0.25, 0.5, 0.9, 0.99), (0.0, 0.5, 0.9, 0.99, 0.999)


class Case(NamedTuple):
    """One configuration of the unit."""

    sizes: tuple[int, int, int, int]  # T, B, P, R (0: no feedback)
    alphas: tuple[float, ...] = LONG
    activation: str = "relu"
    padded: bool = True
    last_only: bool = False


CASES = [
    Case((1, 1, 1, 1), (0.5,), padded=False),
    Case((63, 3, 41, 7), LONG),
    Case((63, 3, 41, 33), SHORT, "tanh", last_only=True),
    Case((17, 5, 7, 40), SHORT, "elu", padded=False),
    Case((17, 17, 70, 3), (0.0, 1.0), "elu"),
    Case((128, 8, 64, 16), LONG, padded=False, last_only=True),
    Case((40, 9, 33, 5), (0.99,)),  # "recur": one scale
    Case((40, 4, 33, 0), LONG),  # "multi": no feedback
    Case((40, 4, 33, 0), (0.99,), "tanh", padded=False),  # "iid": neither
]


def arguments(
    case: Case, dtype: torch.dtype, source: torch.dtype = torch.float32
) -> dict[str, Tensor | None]:
    """Fresh leaves; the same numbers, rounded to `source`, whatever the dtype. Weights keep activations near 1."""
    T, B, P, R = case.sizes
    A = len(case.alphas)
    generator = torch.Generator().manual_seed(17)

    def draw(*shape: int, scale: float = 0.7) -> Tensor:
        drawn = torch.randn(*shape, generator=generator) * scale
        return drawn.to(source).to(dtype).requires_grad_()

    feedback: dict[str, Tensor | None] = dict.fromkeys(("weight_r", "bias_r", "weight_phi"))
    if R:
        feedback["weight_r"] = draw(R, A * P, scale=(A * P) ** -0.5)
        feedback["bias_r"] = draw(R, scale=0.3)
        feedback["weight_phi"] = draw(P, R, scale=R**-0.5)
    alphas = torch.tensor(case.alphas).to(source).to(dtype).requires_grad_()
    return {"projected": draw(T, B, P)} | feedback | {"alphas": alphas, "mu_0": draw(B, A * P)}


def mask_of(case: Case) -> Tensor | None:
    """Holes anywhere, and one sequence that is nothing but padding."""
    if not case.padded:
        return None
    T, B, _, _ = case.sizes
    mask = torch.rand(T, B, generator=torch.Generator().manual_seed(5)) < 0.3
    mask[:, -1] = True
    return mask


def call(case: Case, leaves: dict[str, Tensor | None], implementation: str | None) -> tuple[Tensor, Tensor]:
    projected, weight_r, bias_r, weight_phi, alphas, mu_0 = leaves.values()
    return statistical_recurrence(
        projected,
        weight_r,
        bias_r,
        weight_phi,
        alphas=alphas,
        mu_0=mu_0,
        padding_mask=mask_of(case),
        activation=case.activation,
        last_only=case.last_only,
        implementation=implementation,
    )


def run(
    case: Case, dtype: torch.dtype, implementation: str, source: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Outputs and all gradients of a loss with random weights on every step and on the last averages."""
    leaves = arguments(case, dtype, source)
    mu, mu_n = call(case, leaves, implementation)
    generator = torch.Generator().manual_seed(23)
    weights = [torch.randn(t.shape, generator=generator).to(source).to(dtype) for t in (mu, mu_n)]
    loss = (mu * weights[0]).sum() + (mu_n * weights[1]).sum()
    loss.backward()
    found = {"mu": mu.detach(), "mu_n": mu_n.detach()}
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES[1:4])
def test_16_bits_are_as_exact_as_plain(case: Case, dtype: torch.dtype) -> None:
    truth = run(case, torch.float64, "reference", dtype)
    plain, fused = run(case, dtype, "reference", dtype), run(case, dtype, "cpp", dtype)
    for name, tensor in fused.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill fresh memory with NaN, so that a store that is missing shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("case", CASES)
def test_every_cell_is_written(case: Case) -> None:
    assert all(tensor.isfinite().all() for tensor in run(case, torch.float32, "cpp").values())


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[7]])
def test_padding_changes_nothing_even_nan(case: Case) -> None:
    mask = mask_of(case)
    for implementation in ("cpp", "reference"):
        clean, spoilt = arguments(case, torch.float32), arguments(case, torch.float32)
        with torch.no_grad():
            spoilt["projected"][mask] = torch.nan
        results = [call(case, leaves, implementation) for leaves in (clean, spoilt)]
        for leaves, (mu, mu_n) in zip((clean, spoilt), results, strict=True):
            (mu.sum() + mu_n.sum()).backward()
            assert leaves["projected"].grad[mask].count_nonzero() == 0
        assert torch.equal(results[0][0], results[1][0])
        for name, leaf in clean.items():
            assert leaf is None or torch.equal(leaf.grad, spoilt[name].grad), name


def test_right_padding_equals_the_short_sequence() -> None:
    case = Case((9, 2, 6, 3), padded=False)
    leaves = arguments(case, torch.float64)
    projected, weight_r, bias_r, weight_phi, alphas, mu_0 = leaves.values()
    mask = torch.zeros(9, 2, dtype=torch.bool)
    mask[4:, 1] = True
    weights = (weight_r, bias_r, weight_phi)
    long = statistical_recurrence(projected, *weights, alphas=alphas, mu_0=mu_0, padding_mask=mask)
    short = statistical_recurrence(projected[:4], *weights, alphas=alphas, mu_0=mu_0)
    assert torch.equal(long[1][1], short[1][1])
    assert torch.equal(long[0][8, 1], short[1][1])


def test_inputs_stay_untouched_and_any_layout_is_read() -> None:
    case = Case((6, 4, 3, 5), padded=False)
    leaves = {k: v.detach() for k, v in arguments(case, torch.float32).items() if v is not None}
    strided = {k: v.T.contiguous().T if v.dim() == 2 else v for k, v in leaves.items()}
    strided["projected"] = leaves["projected"].permute(2, 1, 0).contiguous().permute(2, 1, 0)
    strided["mu_0"] = leaves["mu_0"][:1].expand(4, 15)
    leaves["mu_0"] = strided["mu_0"].contiguous()
    assert not strided["projected"].is_contiguous()
    before = {k: v.clone() for k, v in strided.items()}
    assert torch.equal(call(case, leaves, "cpp")[0], call(case, strided, "cpp")[0])
    assert all(torch.equal(strided[k], before[k]) for k in strided)


@pytest.mark.parametrize("sizes", [(0, 2, 3, 2), (4, 0, 3, 2), (0, 2, 3, 0)])
@pytest.mark.parametrize("last_only", [False, True])
def test_empty_time_or_batch_has_an_answer(sizes: tuple[int, int, int, int], last_only: bool) -> None:
    case = Case(sizes, padded=False, last_only=last_only)
    for implementation in ("cpp", "reference"):
        leaves = arguments(case, torch.float32)
        mu, mu_n = call(case, leaves, implementation)
        assert mu.shape == (1 if last_only else sizes[0], sizes[1], 15)
        assert torch.equal(mu_n, leaves["mu_0"])
        (mu.sum() + mu_n.sum()).backward()
        assert torch.equal(leaves["mu_0"].grad, torch.full((sizes[1], 15), 1.0 + last_only))
        assert leaves["alphas"].grad is None or leaves["alphas"].grad.count_nonzero() == 0


@pytest.mark.parametrize("activation", ["elu", "tanh"])
@pytest.mark.parametrize("R", [0, 3])
@pytest.mark.parametrize("last_only", [False, True])
def test_gradcheck_and_double_backward(activation: str, R: int, last_only: bool) -> None:
    case = Case((4, 2, 2, R), (0.0, 0.6), activation, last_only=last_only)
    leaves = arguments(case, torch.float64)
    present = [name for name, leaf in leaves.items() if leaf is not None]

    def function(implementation: str):
        return lambda *given: call(case, leaves | dict(zip(present, given, strict=True)), implementation)

    given = [leaves[name] for name in present]
    assert torch.autograd.gradcheck(function("cpp"), given)
    assert torch.autograd.gradcheck(function("reference"), given)
    assert torch.autograd.gradgradcheck(function("cpp"), given)


@pytest.mark.parametrize("case", [Case((5, 2, 3, 2)), Case((5, 2, 3, 0), last_only=True)])
@pytest.mark.parametrize("wanted", [True, False])
def test_opcheck(case: Case, wanted: bool) -> None:
    from karui.ops.statistical_recurrence import cpu

    leaves = [
        leaf if leaf is None else leaf.detach().requires_grad_(wanted)
        for leaf in arguments(case, torch.float32).values()
    ]
    torch.library.opcheck(cpu.forward_op, (*leaves, mask_of(case), 0, case.last_only, wanted))


def test_compiles_to_one_graph() -> None:
    case = Case((5, 2, 3, 2), padded=False)
    plain, compiled = arguments(case, torch.float32), arguments(case, torch.float32)

    def loss(leaves: dict[str, Tensor | None]) -> Tensor:
        mu, mu_n = call(case, leaves, None)
        return mu.square().sum() + mu_n.sum()

    loss(plain).backward()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled).backward()
    assert all(torch.equal(leaf.grad, compiled[name].grad) for name, leaf in plain.items())


def test_runs_twice_to_the_same_bits_and_sequences_whatever_the_threads() -> None:
    case = Case((63, 13, 41, 9))
    first, second = run(case, torch.float32, "cpp"), run(case, torch.float32, "cpp")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads % 3 + 1)
        other = run(case, torch.float32, "cpp")
    finally:
        torch.set_num_threads(threads)
    for name in ("mu", "mu_n", "grad_projected", "grad_alphas"):
        assert torch.equal(first[name], other[name]), name


@pytest.mark.parametrize("case", [CASES[1], CASES[7], CASES[8]])
def test_grad_mode_and_what_wants_a_gradient_change_no_number(case: Case) -> None:
    leaves = arguments(case, torch.float32)
    mu, mu_n = call(case, leaves, None)
    with torch.no_grad():
        again = call(case, leaves, None)
    assert torch.equal(mu, again[0])
    assert torch.equal(mu_n, again[1])
    (mu.sum() + mu_n.sum()).backward()
    for name, leaf in arguments(case, torch.float32).items():
        if leaf is not None:
            alone = {k: None if v is None else v.detach() for k, v in leaves.items()} | {name: leaf}
            sum(part.sum() for part in call(case, alone, None)).backward()
            assert torch.equal(leaf.grad, leaves[name].grad), name


def test_last_only_is_the_last_step_of_all() -> None:
    case = CASES[1]
    leaves = arguments(case, torch.float32)
    every, last = call(case, leaves, None), call(case._replace(last_only=True), leaves, None)
    assert torch.equal(last[0][0], every[0][-1])
    assert torch.equal(last[1], every[1])


@pytest.mark.parametrize("alphas", [SHORT, LONG, (0.99,)])
def test_without_feedback_equals_the_walk_with_feedback_zero(alphas: tuple[float, ...]) -> None:
    """The ablations "multi" and "iid" are the full unit with W_phi = 0."""
    case = Case((31, 3, 9, 4), alphas)
    leaves = arguments(case, torch.float32)
    leaves["weight_phi"] = torch.zeros(9, 4)
    full = call(case, leaves, None)
    bare = call(case, leaves | dict.fromkeys(("weight_r", "bias_r", "weight_phi")), None)
    assert torch.equal(full[0], bare[0])


def test_a_tiny_unit_trains_as_the_reference_does() -> None:
    curves = {}
    for implementation in ("reference", "cpp"):
        leaves = arguments(Case((12, 8, 6, 4), padded=False), torch.float32)
        target = torch.randn(8, 30, generator=torch.Generator().manual_seed(3))
        trained = [leaf for name, leaf in leaves.items() if name != "alphas"]
        optimizer, losses = torch.optim.Adam(trained, lr=0.02), []
        for _ in range(25):
            optimizer.zero_grad()
            loss = (
                (call(Case((12, 8, 6, 4), padded=False), leaves, implementation)[1] - target).square().mean()
            )
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves[implementation] = losses
    pairs = list(zip(curves["reference"], curves["cpp"], strict=True))
    assert all(abs(a - b) <= 1e-4 * a for a, b in pairs)
    assert pairs[-1][1] < 0.8 * pairs[0][1]


def test_what_does_not_fit_is_refused_by_name() -> None:
    case = Case((3, 2, 4, 2), padded=False)
    leaves = arguments(case, torch.float32)

    def refused(
        message: str, case: Case = case, implementation: str | None = None, **changed: Tensor | None
    ) -> None:
        with pytest.raises(ValueError, match=message):
            call(case, leaves | changed, implementation)

    refused(r"projected must be \(T, B, P\), got \(3, 4\)", projected=torch.zeros(3, 4))
    refused(r"alphas must be \(A,\) with A at least 1, got \(0,\)", alphas=torch.zeros(0))
    refused(r"mu_0 must have shape \(2, 20\).*got \(2, 4\)", mu_0=torch.zeros(2, 4))
    refused(r"weight_r must have shape \(2, 20\)", weight_r=torch.zeros(2, 4))
    refused("must be given together or all be None", weight_phi=None)
    refused(
        "bias_r must have the dtype of projected, torch.float32, got torch.float64",
        bias_r=torch.zeros(2).double(),
    )
    refused("activation must be one of .* got 'gelu'", case._replace(activation="gelu"))
    refused("implementation must be None or one of .* got 'cuda'", implementation="cuda")
    with pytest.raises(ValueError, match=r"padding_mask must be bool of shape \(3, 2\), got torch.int64"):
        statistical_recurrence(
            *list(leaves.values())[:4],
            alphas=leaves["alphas"],
            mu_0=leaves["mu_0"],
            padding_mask=torch.zeros(3, 2, dtype=torch.int64),
        )
    elsewhere = {k: None if v is None else v.detach().to("meta") for k, v in leaves.items()}
    with pytest.raises(ValueError, match="needs a CPU tensor .* on meta"):
        call(case, elsewhere, "cpp")


def test_eager_calls_do_not_load_the_compiler() -> None:
    code = (
        "import sys, torch; from karui.nn import StatisticalRecurrentUnit as Layer; "
        "Layer(2, 3)(torch.ones(4, 1, 2))[0].sum().backward(); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
