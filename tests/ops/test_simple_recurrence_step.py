"""Proof of the compiled step: product and scan of a few sequences in one call."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from karui.ops.simple_recurrence import simple_recurrence
from karui.ops.simple_recurrence.step import MAX_BATCH, can_step, simple_recurrence_step
from tests.support.kernel_proof import assert_as_exact_as_plain

KINDS = [*itertools.product(["none", "input", "projected"], ["v1", "v2"], ["identity", "tanh", "relu"])]
SIZES = [(1, 1), (5, 7), (16, 33), (129, 65), (512, 100)]  # I, H
NAMES = ("x", "skip", "weight_ih", "weight_c", "bias", "c_0")


def arguments(I: int, H: int, B: int, skip: str, variant: str) -> dict[str, Tensor | None]:  # noqa: E741
    """The tensors of one step in float32."""
    generator = torch.Generator().manual_seed(I + H + B)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    rows = (4 if skip == "projected" else 3) * H
    drawn = draw(B, I), draw(B, H), draw(rows, I, scale=I**-0.5), draw(2 * H), draw(2 * H), draw(B, H)
    found: dict[str, Tensor | None] = dict(zip(NAMES, drawn, strict=True))
    if skip != "input":
        found["skip"] = None
    if variant == "v1":
        found["weight_c"] = None
    return found


def cast(given: dict[str, Tensor | None], dtype: torch.dtype) -> dict[str, Tensor | None]:
    return {name: None if t is None else t.to(dtype) for name, t in given.items()}


def fused(given: dict, activation: str) -> tuple[Tensor, Tensor]:
    words = {"c_0": given["c_0"], "activation": activation, "scale": 1.7}
    return simple_recurrence_step(*(given[name] for name in NAMES[:5]), **words)


def by_reference(given: dict, activation: str) -> tuple[Tensor, Tensor]:
    """A product and the plain scan of one step."""
    (B, H), skip, weight_c = given["c_0"].shape, given["skip"], given["weight_c"]
    h, c = simple_recurrence(
        F.linear(given["x"], given["weight_ih"]).view(1, B, 1, len(given["weight_ih"]) // H, H),
        None if skip is None else skip[None],
        None if weight_c is None else weight_c.view(1, 2, H),
        given["bias"].view(1, 2, H),
        c_0=given["c_0"][None],
        variant="v1" if weight_c is None else "v2",
        activation=activation,
        scale=1.7,
        implementation="reference",
    )
    return h[0], c[0]


def prove(given: dict[str, Tensor | None], activation: str) -> None:
    truth = by_reference(cast(given, torch.float64), activation)
    plain = by_reference(given, activation)
    double = fused(cast(given, torch.float64), activation)
    for name, *tensors in zip(("h", "c"), fused(given, activation), plain, truth, strict=True):
        assert_as_exact_as_plain(name, *tensors)
    for name, found, expected in zip(("h", "c"), double, truth, strict=True):
        assert found.dtype == torch.float64
        assert ((found - expected).abs() <= 1e-13 * (1 + expected.abs())).all(), name


@pytest.mark.parametrize(("skip", "variant", "activation"), KINDS)
def test_every_kind_is_as_exact_as_plain(skip: str, variant: str, activation: str) -> None:
    prove(arguments(37, 21, 3, skip, variant), activation)


@pytest.mark.parametrize("batch", range(10))
@pytest.mark.parametrize(("I", "H"), SIZES)
def test_every_size_is_as_exact_as_plain(I: int, H: int, batch: int) -> None:  # noqa: E741
    prove(arguments(I, H, batch, "input", "v2"), "tanh")


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_neither_threads_nor_a_second_run_change_a_bit(batch: int) -> None:
    given = arguments(512, 300, batch, "projected", "v2")
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            found.append(torch.cat(fused(given, "identity")))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_strided_tensors_are_read_as_they_stand() -> None:
    given = arguments(9, 5, 2, "input", "v2")
    strided = {n: None if t is None else torch.stack([t, t], -1)[..., 0] for n, t in given.items()}
    strided["c_0"] = given["c_0"].t().contiguous().t()
    for a, b in zip(fused(strided, "relu"), fused(given, "relu"), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("weight_ih", torch.zeros(15, 8)),
        ("weight_ih", torch.zeros(14, 9)),
        ("weight_ih", torch.zeros(10, 9)),
        ("bias", torch.zeros(9)),
        ("weight_c", torch.zeros(10, dtype=torch.float64)),
        ("skip", torch.zeros(2, 4)),
        ("c_0", torch.zeros(3, 5)),
        ("bias", torch.zeros(10, device="meta")),
    ],
)
def test_what_does_not_fit_is_refused(name: str, wrong: Tensor) -> None:
    given = arguments(9, 5, 2, "input", "v2") | {name: wrong}
    with pytest.raises(ValueError, match=name if len(wrong) != 10 or wrong.dim() == 1 else "sizes must be"):
        fused(given, "identity")


def test_what_it_takes() -> None:
    x = torch.zeros(MAX_BATCH, 3)
    assert can_step(x, None)
    assert can_step(x.double(), "cpp")
    assert not can_step(x, "reference")
    assert not can_step(x.half(), None)
    assert not can_step(torch.zeros(MAX_BATCH + 1, 3), None)
    assert not can_step(x.to("meta"), None)
    with torch.autocast("cpu"):
        assert not can_step(x, None)
