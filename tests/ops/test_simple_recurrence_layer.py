"""Proof of the layer's fused path: product and scan chunk by chunk against both apart and against the reference."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from karui.ops.simple_recurrence import fused, simple_recurrence, simple_recurrence_layer
from tests.support.kernel_proof import assert_as_exact_as_plain


class Case(NamedTuple):
    """One configuration of a layer."""

    sizes: tuple[int, int, int, int]  # T, B, I, H
    skip: str = "input"  # "input": x itself, "other", "none" or "projected"
    activation: str = "identity"
    variant: str = "v2"
    masked: bool = False
    padded: bool = False


CASES = [
    Case((1, 1, 1, 1)),
    Case((23, 3, 7, 7), padded=True, masked=True),
    Case((23, 3, 5, 7), "other", "tanh", masked=True),
    Case((37, 1, 5, 9), "projected", "relu", padded=True),
    Case((37, 4, 9, 9), "none", "tanh", padded=True),
    Case((23, 3, 7, 7), variant="v1", activation="tanh", masked=True, padded=True),
    Case((37, 5, 4, 7), "projected", variant="v1"),
]
LARGE = [  # large enough for several threads
    Case((71, 32, 96, 96), padded=True),
    Case((71, 32, 96, 96), "other", "tanh", masked=True),
    Case((67, 33, 65, 96), "projected"),
    Case((203, 3, 96, 96), masked=True),  # too few sequences for groups that go through the backward apart
    Case((35, 17, 193, 224), "projected", "relu"),  # too large a weight for that
]
ODD = (1, 7, 13, 17, 33)  # rows, features and units of a product
FEWEST = 13
EMPTY = [Case((0, 3, 5, 5)), Case((4, 0, 5, 5)), Case((4, 0, 3, 5), "projected")]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut these small layers as large ones are cut."""
    monkeypatch.setattr(fused, "CHUNK_ROWS", 16)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """torch.set_num_threads, undone afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def leaves_of(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    T, B, width, H = case.sizes
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int, factor: float = 0.7) -> Tensor:
        return torch.randn(*shape, generator=generator).mul(factor).to(dtype).requires_grad_()

    blocks = 4 if case.skip == "projected" else 3
    leaves = {"x": draw(T, B, width), "weight": draw(blocks * H, width, factor=width**-0.5)}
    if case.skip == "other":
        leaves["skip"] = draw(T, B, H)
    if case.variant == "v2":
        leaves["weight_c"] = draw(1, 2, H)
    return leaves | {"bias": draw(1, 2, H), "c_0": draw(1, B, H)}


def options_of(case: Case, dtype: torch.dtype) -> dict[str, Any]:
    T, B, _, H = case.sizes
    generator = torch.Generator().manual_seed(5)
    padding = torch.rand(T, B, generator=generator) < 0.3
    mask = (torch.rand(B, H, generator=generator) > 0.3).to(dtype) / 0.7
    return {
        "padding_mask": padding if case.padded else None,
        "dropout_mask": mask if case.masked else None,
        "activation": case.activation,
        "variant": case.variant,
        "scale": 1.3,
    }


def call(case: Case, leaves: dict[str, Tensor], **extra: Any) -> tuple[Tensor, Tensor]:
    skip = leaves["x"] if case.skip == "input" else leaves.get("skip")
    options = {"c_0": leaves["c_0"]} | options_of(case, leaves["x"].dtype) | extra
    return simple_recurrence_layer(
        leaves["x"],
        leaves["weight"],
        skip,
        leaves.get("weight_c"),
        leaves["bias"],
        **options,
    )


def apart(case: Case, leaves: dict[str, Tensor], **extra: Any) -> tuple[Tensor, Tensor]:
    """The product by torch, the scan by its compiled kernel."""
    T, B, _, H = case.sizes
    u = F.linear(leaves["x"], leaves["weight"]).view(T, B, 1, leaves["weight"].shape[0] // H, H)
    skip = leaves["x"] if case.skip == "input" else leaves.get("skip")
    options = options_of(case, leaves["x"].dtype) | extra
    return simple_recurrence(u, skip, leaves.get("weight_c"), leaves["bias"], c_0=leaves["c_0"], **options)


def gradients(case: Case, dtype: torch.dtype, run: Any, **extra: Any) -> dict[str, Tensor]:
    """Outputs and all gradients of a loss with random weights on both outputs."""
    leaves = leaves_of(case, dtype)
    h, c_n = run(case, leaves, **extra)
    generator = torch.Generator().manual_seed(11)
    weights = [torch.randn(t.shape, generator=generator).to(dtype) for t in (h, c_n)]
    torch.autograd.backward([h, c_n], weights)
    found = {"h": h.detach(), "c_n": c_n.detach()}
    return found | {
        f"grad_{name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }


@pytest.mark.parametrize("case", [*CASES, *LARGE, *EMPTY])
def test_float32_is_as_exact_as_plain(case: Case) -> None:
    truth = gradients(case, torch.float64, apart, implementation="reference")
    plain = gradients(case, torch.float32, apart, implementation="reference")
    for run in (call, apart):
        for name, tensor in gradients(case, torch.float32, run, implementation="cpp").items():
            assert_as_exact_as_plain(name, tensor, plain[name], truth[name])


@pytest.mark.parametrize("case", [*CASES, LARGE[0]])
def test_float64_equals_the_reference(case: Case) -> None:
    truth = gradients(case, torch.float64, apart, implementation="reference")
    for name, tensor in gradients(case, torch.float64, call).items():
        assert (tensor - truth[name]).abs().max() <= 1e-12 * (1 + truth[name].abs().max()), name


def test_it_is_the_fused_path() -> None:
    leaves = leaves_of(LARGE[0], torch.float32)
    assert call(LARGE[0], leaves)[0].grad_fn.name() == "_LayerBackward"  # type: ignore[union-attr]
    assert call(LARGE[0], leaves, implementation="reference")[0].grad_fn.name() != "_LayerBackward"  # type: ignore[union-attr]


@pytest.mark.parametrize("width", ODD)
@pytest.mark.parametrize("H", ODD)
def test_products_of_odd_sizes(width: int, H: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of rows, columns and terms around the tiles and panels of each instruction set."""
    monkeypatch.setattr(fused, "CHUNK_ROWS", 0)
    for rows in ODD:
        case = Case((1, rows, width, H), "none", "relu", variant="v1")
        truth = gradients(case, torch.float64, apart, implementation="reference")
        for name, tensor in gradients(case, torch.float64, call).items():
            assert (tensor - truth[name]).abs().max() <= 1e-12 * (1 + truth[name].abs().max()), (rows, name)
        if min(rows, H) < FEWEST:
            continue  # of a handful of numbers, plain ones may be exact by chance
        plain = gradients(case, torch.float32, apart, implementation="reference")
        for name, tensor in gradients(case, torch.float32, call).items():
            assert_as_exact_as_plain(f"{rows} rows, {name}", tensor, plain[name], truth[name])


@pytest.mark.parametrize("chunk_rows", [1, 40, 0])
@pytest.mark.parametrize("case", LARGE)
def test_neither_threads_nor_a_second_run_nor_gradients_change_a_bit(
    case: Case, chunk_rows: int, monkeypatch: pytest.MonkeyPatch, set_threads: Callable[[int], None]
) -> None:
    monkeypatch.setattr(fused, "CHUNK_ROWS", chunk_rows)
    set_threads(1)
    alone = gradients(case, torch.float32, call)
    with torch.no_grad():
        h, c_n = call(case, leaves_of(case, torch.float32))
    assert torch.equal(h, alone["h"])
    assert torch.equal(c_n, alone["c_n"])
    for number in (1, 2, 3, 7):
        set_threads(number)
        for name, tensor in gradients(case, torch.float32, call).items():
            assert torch.equal(tensor, alone[name]), (number, name)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill fresh memory with NaN, so that a store that is missing shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("case", [*CASES[1:], *LARGE])
def test_every_cell_is_written(case: Case) -> None:
    assert all(tensor.isfinite().all() for tensor in gradients(case, torch.float32, call).values())


@pytest.mark.parametrize("case", [CASES[1], LARGE[0]])
def test_what_stands_in_padding_changes_nothing(case: Case) -> None:
    leaves, padding = leaves_of(case, torch.float32), options_of(case, torch.float32)["padding_mask"]
    clean = call(case, leaves)
    with torch.no_grad():
        leaves["x"][padding] = 0.0
        zeros = call(case, leaves)
    assert all(torch.equal(a, b) for a, b in zip(clean, zeros, strict=True))
    assert clean[0][padding].count_nonzero() == 0


@pytest.mark.parametrize("frozen", ["x", "weight", "skip"])
@pytest.mark.parametrize("case", [CASES[1], CASES[2], LARGE[0], LARGE[1]])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(case: Case, frozen: str) -> None:
    free = gradients(case, torch.float32, call)
    leaves = leaves_of(case, torch.float32)
    if frozen not in leaves:
        pytest.skip("no such input")
    leaves[frozen].requires_grad_(False)
    h, c_n = call(case, leaves)
    generator = torch.Generator().manual_seed(11)
    torch.autograd.backward([h, c_n], [torch.randn(t.shape, generator=generator) for t in (h, c_n)])
    assert leaves.pop(frozen).grad is None
    assert all(
        torch.equal(leaf.grad, free[f"grad_{name}"]) for name, leaf in leaves.items() if leaf.grad is not None
    )
    assert leaves["bias"].grad is not None


@pytest.mark.parametrize("case", [Case((5, 1, 2, 2)), Case((4, 1, 1, 2), "projected", "tanh", variant="v1")])
def test_gradcheck_and_double_backward(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "CHUNK_ROWS", 2)
    leaves = leaves_of(case, torch.float64)

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return call(case, dict(zip(leaves, tensors, strict=True)))

    assert torch.autograd.gradcheck(function, list(leaves.values()))
    assert torch.autograd.gradgradcheck(function, list(leaves.values()))


def test_any_layout_is_read_and_one_output_may_be_left_unused() -> None:
    case = LARGE[0]
    leaves = leaves_of(case, torch.float32)
    strided = leaves | {
        "x": leaves["x"].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    }
    for which in (0, 1):
        wanted, found = (
            torch.autograd.grad(call(case, one)[which].sum(), one["x"])[0] for one in (leaves, strided)
        )
        assert torch.equal(wanted, found)


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("case", [CASES[1], CASES[5], LARGE[0], LARGE[2]])
def test_no_first_state_is_zeros_and_gates_may_lie_flat(case: Case, implementation: str) -> None:
    leaves = leaves_of(case, torch.float32)
    zeros = leaves | {"c_0": torch.zeros_like(leaves["c_0"])}
    found = call(case, leaves, c_0=None, implementation=implementation)
    wanted = call(case, zeros, implementation=implementation)
    flat = {
        name: leaf.detach().flatten().requires_grad_()
        for name, leaf in leaves.items()
        if name in ("weight_c", "bias")
    }
    flattened = call(case, leaves | flat, c_0=None, implementation=implementation)
    shared = [leaf for name, leaf in leaves.items() if name not in ("c_0", *flat)]
    shaped = [leaves[name] for name in flat]
    wanted_grads = torch.autograd.grad(sum(t.sin().sum() for t in wanted), [*shared, *shaped])
    found_grads = torch.autograd.grad(sum(t.sin().sum() for t in found), [*shared, *shaped])
    flat_grads = torch.autograd.grad(sum(t.sin().sum() for t in flattened), [*shared, *flat.values()])
    for a, b, c in zip(
        (*wanted, *wanted_grads), (*found, *found_grads), (*flattened, *flat_grads), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a.flatten(), c.flatten())


def test_both_directions_and_16_bits_go_apart() -> None:
    T, B, width, H = 6, 3, 5, 4
    x, weight = torch.randn(T, B, width), torch.randn(2 * 3 * H, width)
    weight_c, bias, c_0 = torch.randn(2, 2, H), torch.randn(2, 2, H), torch.randn(2, B, H)
    h, c_n = simple_recurrence_layer(x, weight, None, weight_c, bias, c_0=c_0)
    u = F.linear(x, weight).view(T, B, 2, 3, H)
    wanted = simple_recurrence(u, None, weight_c, bias, c_0=c_0)
    assert torch.equal(h, wanted[0])
    assert torch.equal(c_n, wanted[1])
    low = simple_recurrence_layer(
        x.bfloat16(), weight[: 3 * H].bfloat16(), None, weight_c[:1].bfloat16(), bias[:1].bfloat16(),
        c_0=c_0[:1].bfloat16(),
    )  # fmt: skip
    assert low[0].dtype == torch.bfloat16


def test_compiles_to_one_graph_of_the_same_numbers() -> None:
    case = CASES[1]
    leaves = leaves_of(case, torch.float32)
    leaves.pop("c_0")

    def layer(x: Tensor, **others: Tensor) -> Tensor:
        c_0 = x.new_zeros(1, x.shape[1], others["bias"].shape[2])
        return simple_recurrence_layer(x, others.pop("weight"), x, **others, c_0=c_0)[0]

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert (compiled(**leaves) - layer(**leaves)).abs().max() < 1e-5


def test_what_does_not_fit_is_refused_by_name() -> None:
    case = CASES[2]
    leaves = leaves_of(case, torch.float32)
    for change, extra, message in [
        ({"weight": leaves["weight"][:, :4]}, {}, r"x must be \(T, B, I\) and weight \(D\*G\*H=21, I\)"),
        ({"weight": leaves["weight"][:14]}, {}, r"u must be .*, got \(23, 3, 1, 2, 7\)"),
        ({"x": leaves["x"][0]}, {}, r"x must be \(T, B, I\)|u must be"),
        ({"skip": leaves["skip"][1:]}, {}, r"x must have shape \(23, 3, 7\)"),
        ({"bias": leaves["bias"].double()}, {}, "bias must have the dtype of u, torch.float32"),
        ({}, {"activation": "gelu"}, "activation must be one of"),
        ({}, {"variant": "v1"}, "weight_c must be None with variant 'v1'"),
        ({}, {"padding_mask": torch.zeros(2, 2).bool()}, r"padding_mask must be bool of shape \(23, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(case, leaves | change, **extra)
