import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from karui.optim import LazyAdam, Optimizer, RowAdagrad

ROWS, WIDTH = 11, 3


def table(seed=1, shape=(ROWS, WIDTH), dtype=torch.float64):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype))


def sparse_gradients(steps, *, ids=None, shape=(ROWS, WIDTH), dtype=torch.float64):
    """Gradients whose ids repeat, uncoalesced; `ids` are those of every step, by default drawn."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        named = (
            torch.randint(0, shape[0] - 2, (6,), generator=generator) if ids is None else torch.tensor(ids)
        )
        values = torch.randn(len(named), *shape[1:], generator=generator, dtype=dtype)
        yield torch.sparse_coo_tensor(named[None], values, shape, check_invariants=True)


def close(found, wanted):
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-12 * (1 + wanted.abs().max())


def walk(optimizer, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (ROWS,), (ROWS, 2, WIDTH)])
def test_row_adagrad_is_the_dense_rule_on_touched_rows(shape):
    found, wanted, sums = table(shape=shape), table(shape=shape).detach(), torch.zeros(ROWS).double()
    before = found.detach().clone()
    touched = torch.zeros(ROWS, dtype=torch.bool)
    optimizer = RowAdagrad([found], lr=0.2, eps=1e-10)
    for gradient in sparse_gradients(5, shape=shape):
        found.grad = gradient
        optimizer.step()
        g = gradient.to_dense().view(ROWS, -1)
        sums += g.square().mean(1)
        step = 0.2 * g / (sums.sqrt() + 1e-10)[:, None]
        wanted -= torch.where(g != 0, step, 0.0).view(shape)
        touched |= (g != 0).any(1)
    close(found.detach(), wanted)
    close(optimizer.state[found]["sum"], sums)
    assert not touched.all()
    assert torch.equal(found.detach()[~touched], before[~touched])
    assert list(optimizer.state[found]) == ["sum"]


@pytest.mark.parametrize("make", [RowAdagrad, LazyAdam, lambda p: Optimizer(p, rule="sgd", lr=0.1)])
def test_dense_and_sparse_gradients_of_all_rows_agree(make):
    sparse, dense = table(), table()
    everywhere = [*range(ROWS), 3, 3, 0]
    walk(make([sparse]), sparse, sparse_gradients(4, ids=everywhere))
    walk(make([dense]), dense, [g.to_dense() for g in sparse_gradients(4, ids=everywhere)])
    close(sparse.detach(), dense.detach())
    assert (sparse.detach() - table().detach()).abs().min() > 0


def test_lazy_adam_is_adam_on_rows_touched_in_every_step():
    ids = [4, 1, 4, 9]
    sparse, dense = table(), table()
    lazy = LazyAdam([sparse], lr=0.01, betas=(0.8, 0.97), weight_decay=0.1)
    adam = torch.optim.AdamW([dense], lr=0.01, betas=(0.8, 0.97), weight_decay=0.1)
    walk(lazy, sparse, sparse_gradients(6, ids=ids))
    walk(adam, dense, [g.to_dense() for g in sparse_gradients(6, ids=ids)])
    rows = sorted(set(ids))
    close(sparse.detach()[rows], dense.detach()[rows])
    others = [row for row in range(ROWS) if row not in ids]
    assert torch.equal(sparse.detach()[others], table().detach()[others])
    assert lazy.state[sparse]["step"].tolist() == [6 if row in ids else 0 for row in range(ROWS)]


@pytest.mark.parametrize("rule", ["lazy-adam", "sgd"])
def test_a_row_makes_up_for_the_decay_of_the_steps_it_missed(rule):
    """The gradient is zero, so that nothing but decay moves a row; the rate changes, as a schedule has it."""
    parameter, rates = table(), [0.1, 0.05, 0.2, 0.01]
    optimizer = Optimizer([{"params": [parameter], "rule": rule, "weight_decay": 0.5}])
    start, factor = parameter.detach().clone(), 1.0
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        ids = [0, 2, 2] if step == len(rates) - 1 else [0]
        parameter.grad = torch.sparse_coo_tensor(
            [ids], torch.zeros(len(ids), WIDTH).double(), (ROWS, WIDTH), check_invariants=True
        )
        optimizer.step()
        factor *= 1 - rate * 0.5
    close(parameter.detach()[[0, 2]], factor * start[[0, 2]])
    assert torch.equal(parameter.detach()[1], start[1])


def test_sgd_is_that_of_torch():
    found, wanted = table(), table()
    mine = Optimizer([found], rule="sgd", lr=0.3, weight_decay=0.01)
    torchs = torch.optim.SGD([wanted], lr=0.3, weight_decay=0.01)
    gradients = [g.to_dense() for g in sparse_gradients(5)]
    walk(mine, found, gradients)
    walk(torchs, wanted, gradients)
    close(found.detach(), wanted.detach())


@pytest.mark.parametrize(("rule", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_and_adamw_are_those_of_torch_to_the_bit(rule, kind):
    found, wanted = table(dtype=torch.float32), table(dtype=torch.float32)
    gradients = [g.to_dense() for g in sparse_gradients(5, dtype=torch.float32)]
    walk(Optimizer([found], rule=rule, lr=0.01, weight_decay=0.1), found, gradients)
    walk(kind([wanted], lr=0.01, weight_decay=0.1, fused=True), wanted, gradients)
    assert torch.equal(found, wanted)


def mixed(dtype=torch.float32):
    """A parameter a rule, and an optimizer of all of them."""
    rules = ("adam", "row-adagrad", "lazy-adam", "sgd", "adamw")
    parameters = [table(seed, dtype=dtype) for seed in range(len(rules))]
    groups = [{"params": [p], "rule": rule} for p, rule in zip(parameters, rules, strict=True)]
    groups[2] |= {"weight_decay": 0.1}
    return parameters, Optimizer(groups, lr=0.01, weight_decay=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy"])
def test_state_comes_back_to_the_bit(how, dtype):
    def go(parameters, optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(3):
            for group, parameter in zip(optimizer.param_groups, parameters, strict=True):
                ids = torch.randint(0, ROWS, (1, 5), generator=generator)
                values = torch.randn(5, WIDTH, generator=generator).to(dtype)
                grad = torch.sparse_coo_tensor(ids, values, (ROWS, WIDTH), check_invariants=True)
                parameter.grad = grad.to_dense() if group["rule"] in ("adam", "adamw") else grad
            optimizer.step()

    parameters, optimizer = mixed(dtype)
    go(parameters, optimizer, 1)
    if how == "deepcopy":
        others, resumed = copy.deepcopy((parameters, optimizer))
    else:
        others, resumed = mixed(dtype)
        for mine, theirs in zip(others, parameters, strict=True):
            mine.data.copy_(theirs)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for mine, theirs in zip(others, parameters, strict=True):
        for name, value in optimizer.state[theirs].items():
            assert resumed.state[mine][name].dtype == value.dtype, name
    go(parameters, optimizer, 2)
    go(others, resumed, 2)
    for mine, theirs in zip(others, parameters, strict=True):
        assert torch.equal(mine, theirs)


def test_sums_of_a_16_bit_table_are_kept_in_32_bits():
    parameter = table(dtype=torch.bfloat16)
    optimizer = RowAdagrad([parameter])
    walk(optimizer, parameter, sparse_gradients(2, dtype=torch.bfloat16))
    assert optimizer.state[parameter]["sum"].dtype == torch.float32
    assert parameter.isfinite().all()


def test_averages_of_a_16_bit_table_are_kept_in_32_bits():
    """After steps of one size the second average follows steps of another, as that of a table of 32 bits does."""
    found, wanted = table(dtype=torch.bfloat16), table(dtype=torch.float32)
    for parameter in (found, wanted):
        optimizer = LazyAdam([parameter], betas=(0.9, 0.999))
        for size in [1.0] * 20 + [0.5] * 200:
            values = torch.full((2, WIDTH), size, dtype=parameter.dtype)
            parameter.grad = torch.sparse_coo_tensor([[3, 3]], values, (ROWS, WIDTH), check_invariants=True)
            optimizer.step()
        parameter.second = optimizer.state[parameter]["exp_avg_sq"]
    assert found.second.dtype == torch.float32
    assert (found.second - wanted.second).abs().max() <= 1e-6


def test_lazy_averages_take_no_memory_before_a_row_is_written():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not tell")
    weight = nn.Parameter(torch.zeros(100_000, 250))  # 100 MB, and 200 MB of averages
    optimizer = LazyAdam([weight])
    before = resident()
    weight.grad = torch.sparse_coo_tensor(
        [[5, 70_000]], torch.ones(2, 250), weight.shape, check_invariants=True
    )
    optimizer.step()
    assert resident() - before < 20


def test_a_table_used_twice_with_sparse_gradients_stays_sparse():
    """Both uses of a tied table: the gradient is their sum, and the step is that of the dense table."""
    ids, later = torch.tensor([1, 4, 4]), torch.tensor([4, 6])
    results = []
    for sparse in (True, False):
        weight = table()
        optimizer = RowAdagrad([weight], lr=0.1)
        first = nn.functional.embedding(ids, weight, sparse=sparse).square().sum()
        (first + nn.functional.embedding(later, weight, sparse=sparse).exp().sum()).backward()
        assert weight.grad.is_sparse == sparse
        optimizer.step()
        results.append(weight.detach())
    close(*results)


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match=r"rule must be one of .*, got 'adamax'"):
        Optimizer([table()], rule="adamax")
    with pytest.raises(ValueError, match=r"lr must be >= 0 and finite, got -1"):
        RowAdagrad([table()], lr=-1)
    with pytest.raises(ValueError, match=r"betas must be two numbers in \[0, 1\), got \(0.9, 1.0\)"):
        LazyAdam([table()], betas=(0.9, 1.0))
    parameter = table()
    optimizer = LazyAdam([parameter], lr=10.0, weight_decay=0.1)
    with pytest.raises(ValueError, match=r"lr \* weight_decay must be < 1, got 1.0"):
        walk(optimizer, parameter, sparse_gradients(1))
    parameter.grad = torch.sparse_coo_tensor(
        [[0], [1]], [1.0], (ROWS, WIDTH), dtype=torch.float64, check_invariants=True
    )
    with pytest.raises(ValueError, match="one of rows, got 2 sparse dimensions"):
        RowAdagrad([parameter]).step()
