"""Proof of the compiled sums and updates of rows, by the recipe for kernels."""

import pytest
import torch
from torch import Tensor

from karui.ops.row_update import cpu, lazy_adam_, reference, row_adagrad_, sum_rows
from tests.support.kernel_proof import assert_as_exact_as_plain

SIZES = [(1, 1, 1), (63, 41, 3), (200, 7, 41), (500, 300, 64)]  # M gradient rows, V rows of the table, H


def numbers(sizes, dtype=torch.float32) -> dict[str, Tensor]:
    M, V, H = sizes
    generator = torch.Generator().manual_seed(5)
    return {
        "weight": torch.randn(V, H, generator=generator).to(dtype),
        "sum_of_squares": torch.rand(V, generator=generator).to(dtype),
        "ids": torch.randint(0, V, (M,), generator=generator),
        "values": torch.randn(M, H, generator=generator).to(dtype),
    }


def updated(inputs: dict[str, Tensor], implementation: str, dtype=torch.float32) -> dict[str, Tensor]:
    own = {name: t.to(dtype if t.is_floating_point() else t.dtype).clone() for name, t in inputs.items()}
    row_adagrad_(**own, lr=0.3, eps=1e-10, implementation=implementation)
    for name in ("ids", "values"):
        assert own[name].equal(inputs[name].to(own[name].dtype)) or inputs[name].isnan().any(), name
    return {name: own[name] for name in ("weight", "sum_of_squares")}


@pytest.mark.parametrize("sizes", SIZES)
def test_row_adagrad_is_as_exact_as_plain(sizes) -> None:
    inputs = numbers(sizes)
    plain, truth = (updated(inputs, "reference", dtype) for dtype in (torch.float32, torch.float64))
    fused, again = updated(inputs, "cpp"), updated(inputs, "cpp")
    for name, tensor in fused.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])
        assert torch.equal(tensor, again[name]), f"{name}: another run, other bits"
        untouched = torch.ones(sizes[1], dtype=torch.bool)
        untouched[inputs["ids"]] = False
        assert torch.equal(tensor[untouched], inputs[name][untouched])
    double = updated(inputs, "cpp", torch.float64)
    for name, tensor in double.items():
        assert (tensor - truth[name]).abs().max() < 1e-13


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_are_those_of_the_reference_to_the_bit(sizes, dtype) -> None:
    """Repeated rows are added in the order in which they come, in both."""
    inputs = numbers(sizes, dtype)
    ids, values = inputs["ids"], inputs["values"]
    wanted = reference.sum_rows(ids, values)
    cuts = [len(ids) // 3, 0, len(ids) - len(ids) // 3]
    for given in (values, values.split(cuts), values.T.contiguous().T):
        for found, want in zip(sum_rows(ids, given, implementation="cpp"), wanted, strict=True):
            assert torch.equal(found, want)
    for one in (values[:, 0], values[:, :, None].expand(-1, -1, 2)):  # vectors, and rows of two axes
        for found, want in zip(sum_rows(ids, one), reference.sum_rows(ids, one), strict=True):
            assert torch.equal(found, want)


def test_the_number_of_threads_and_sorted_ids_change_no_bit() -> None:
    inputs = numbers(SIZES[-1])
    wanted, threads = updated(inputs, "cpp"), torch.get_num_threads()
    ids, total = sum_rows(inputs["ids"], inputs["values"])
    try:
        torch.set_num_threads(3)
        for found in (updated(inputs, "cpp"), updated(inputs | {"ids": ids, "values": total}, "cpp")):
            for name, tensor in found.items():
                assert torch.equal(tensor, wanted[name]), name
    finally:
        torch.set_num_threads(threads)


def test_nothing_beside_the_rows_is_written_and_all_of_the_sums_are() -> None:
    inputs = numbers((63, 41, 3))
    guarded = {name: torch.full((43, *t.shape[1:]), 7.0) for name, t in inputs.items() if len(t) == 41}
    for name, tensor in guarded.items():
        tensor[1:-1] = inputs[name]
    own = inputs | {name: tensor[1:-1] for name, tensor in guarded.items()}
    row_adagrad_(**own, lr=0.3, implementation="cpp")
    free = {name: t.clone() for name, t in inputs.items()}
    row_adagrad_(**free, lr=0.3, implementation="cpp")
    for name, tensor in guarded.items():
        assert (tensor[[0, -1]] == 7).all()
        assert torch.equal(tensor[1:-1], free[name])
    try:
        torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
        assert sum_rows(inputs["ids"], inputs["values"])[1].isfinite().all()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("implementation", ["reference", "cpp"])
def test_no_rows_and_nan(implementation) -> None:
    inputs = numbers((4, 5, 3))
    empty = inputs | {"ids": inputs["ids"][:0], "values": inputs["values"][:0]}
    for name, tensor in updated(empty, implementation).items():
        assert torch.equal(tensor, inputs[name])
    ids, total = sum_rows(empty["ids"], empty["values"], implementation=implementation)
    assert (ids.shape, total.shape) == ((0,), (0, 3))
    inputs["values"][2, 1] = torch.nan
    found = updated(inputs, implementation)["weight"]
    assert found[inputs["ids"][2]].isnan().any()
    others = [row for row in range(5) if row != inputs["ids"][2]]
    assert found[others].isfinite().all()


def test_16_bit_tables_sum_in_32() -> None:
    inputs = numbers((63, 41, 3), torch.bfloat16)
    inputs["sum_of_squares"] = inputs["sum_of_squares"].float()
    own = {name: t.clone() for name, t in inputs.items()}
    row_adagrad_(**own, lr=0.3)
    wide = {name: t.double() if t.is_floating_point() else t.clone() for name, t in inputs.items()}
    row_adagrad_(**wide, lr=0.3)
    plain = wide["weight"].bfloat16()
    assert_as_exact_as_plain("weight", own["weight"], plain, wide["weight"])
    assert_as_exact_as_plain(
        "sum_of_squares", own["sum_of_squares"], wide["sum_of_squares"].float(), wide["sum_of_squares"]
    )


def test_lazy_adam_sums_repeated_rows_first() -> None:
    inputs = numbers((63, 41, 3), torch.float64)
    results = []
    for run, words in ((lazy_adam_, {}), (reference.lazy_adam_, {"betas": (0.9, 0.999), "eps": 1e-8})):
        weight, averages = inputs["weight"].clone(), tuple(torch.zeros(41, 3).double() for _ in range(2))
        touches = torch.zeros(41, dtype=torch.int32)
        for _ in range(3):
            run(weight, averages, touches, inputs["ids"], inputs["values"], lr=0.1, **words)
        results.append([weight, *averages, touches])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_operators_agree_with_their_fakes() -> None:
    inputs = numbers((20, 9, 4))
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(cpu.row_adagrad_op, (*inputs.values(), 0.1, 1e-10), test_utils=utilities)
    torch.library.opcheck(cpu.sum_rows_op, (inputs["ids"], inputs["values"]), test_utils=utilities)
    compiled = torch.compile(row_adagrad_, backend="aot_eager", fullgraph=True)
    found = {name: t.clone() for name, t in inputs.items()}
    compiled(**found, lr=0.3)
    assert torch.equal(found["weight"], updated(inputs, "cpp")["weight"])


def test_what_does_not_fit_is_named() -> None:
    inputs = numbers((4, 5, 3))
    with pytest.raises(ValueError, match=r"ids must be in \[0, 5\), got 5"):
        row_adagrad_(**inputs | {"ids": torch.tensor([0, 5, 1, 5])}, lr=0.1)
    with pytest.raises(ValueError, match=r"ids must be in \[0, 5\), got -1"):
        row_adagrad_(**inputs | {"ids": torch.tensor([0, -1, 1, 4])}, lr=0.1)
    with pytest.raises(ValueError, match=r"weight must be \(V, H\) and values \(M, H\)"):
        row_adagrad_(**inputs | {"values": inputs["values"][:, :2]}, lr=0.1)
    with pytest.raises(ValueError, match=r"sum_of_squares must be \(V,\), got \(4,\)"):
        row_adagrad_(**inputs | {"sum_of_squares": torch.zeros(4)}, lr=0.1)
    with pytest.raises(ValueError, match=r"ids must be \(M,\) of int64, got \(4,\) of torch.float32"):
        sum_rows(torch.zeros(4), inputs["values"])
    with pytest.raises(ValueError, match=r"M = 4, got \[\(3, 3\)\]"):
        sum_rows(inputs["ids"], inputs["values"][:3])
    with pytest.raises(ValueError, match="got 'cuda'"):
        sum_rows(inputs["ids"], inputs["values"], implementation="cuda")
    with pytest.raises(ValueError, match="'cpp' needs a float32 or float64 CPU tensor, got torch.bfloat16"):
        sum_rows(inputs["ids"], inputs["values"].bfloat16(), implementation="cpp")
