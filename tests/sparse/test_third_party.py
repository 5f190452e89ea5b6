"""Models as others write them: torch's layers inside, compiled, on several processes, with tied or unusual weights."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn

from karui.sparse import (
    HardConcrete,
    MagnitudePruning,
    SparseVariationalDropout,
    gate_parameters,
    harden,
    keep_mask,
    penalty,
    project,
    prunable_parameters,
    sparse_layers,
    sparsify,
)

METHODS = [
    HardConcrete(groups=("word", "input", "gate")),
    SparseVariationalDropout(groups=("word", "input", "gate")),
    MagnitudePruning(),
]


class Tagger(nn.Module):
    """A user's model; it reads attributes of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 6)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True)
        self.output = nn.Linear(10, 3)

    def forward(self, ids: Tensor) -> Tensor:
        state = torch.zeros(2 * self.lstm.num_layers, ids.shape[1], self.lstm.hidden_size)
        self.lstm.flatten_parameters()
        return self.output(self.lstm(self.embedding(ids), (state, state))[0].to(self.output.weight.dtype))


IDS = torch.randint(0, 30, (4, 3), generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning"
)  # Dynamo's own, up to torch 2.13
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_model_gives_the_same_numbers(backend: str, method: object) -> None:
    torch._dynamo.reset()
    model = sparsify(Tagger(), method)
    compiled = torch.compile(model, backend=backend)
    torch.manual_seed(3)
    found = compiled(IDS)
    torch.manual_seed(3)
    again = compiled(IDS)
    assert torch.equal(found, again), "a seed gives the same draws"
    # in a graph noise is drawn by torch, outside of it by karui's kernels: other numbers of the same distribution
    assert torch.allclose(compiled(IDS), found) == (method is METHODS[2])
    if method is METHODS[2]:
        assert torch.allclose(found, model(IDS), atol=1e-6)
    found.sum().backward()
    assert model.lstm.base.weight_hh_l0.grad.count_nonzero() > 0
    project(model, keep=200)
    assert torch.allclose(compiled.eval()(IDS), model.eval()(IDS), atol=1e-6)
    assert all(
        a is b for a, b in zip(model.lstm.base._flat_weights, model.lstm.base.parameters(), strict=True)
    )


@pytest.mark.slow  # a compiler of C++ runs, a minute of one core
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch's own backend needs a compiler of C++")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_torchs_own_compiler_gives_the_same_numbers() -> None:
    """Without gradients: how a trained model is used. Random numbers are drawn otherwise there, so none are."""
    torch._dynamo.reset()
    model = sparsify(Tagger(), METHODS[0]).eval()
    project(model, keep=200)
    with torch.no_grad():
        assert torch.allclose(torch.compile(model)(IDS), model(IDS), atol=1e-6)


def train(model: nn.Module, seed: int, *, is_settled: bool = False) -> None:
    parallel = nn.parallel.DistributedDataParallel(model, find_unused_parameters=is_settled)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    torch.manual_seed(seed)
    for _ in range(3):
        ids = torch.randint(0, 30, (4, 3))
        loss = parallel(ids).square().mean()
        if not is_settled:
            loss = loss + penalty(model) / 1000
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_one_process_of_a_group_trains_a_sparse_lstm(method: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = sparsify(Tagger(), method)
    before = parameters_of(model)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        train(model, 10)
        trained = parameters_of(model)
        project(model, keep=prunable_parameters(model) // 2)
        for _, layer in sparse_layers(model):
            layer.settle()
        gates, kept = {id(gate) for gate in gate_parameters(model)}, keep_mask(model)
        settled = parameters_of(model)
        train(model, 20, is_settled=True)
    finally:
        dist.destroy_process_group()
    assert all(not torch.equal(before[name], trained[name]) for name in before)
    moved = {name for name, now in model.named_parameters() if not torch.equal(settled[name], now)}
    assert {"output.base.weight", "lstm.base.weight_hh_l1"} <= moved
    assert not any(id(parameter) in gates for name, parameter in model.named_parameters() if name in moved)
    assert all(torch.equal(kept[name], mask) for name, mask in keep_mask(model).items())
    assert harden(model).lstm(torch.zeros(2, 1, 6))[0].shape == (2, 1, 10)


def worker(rank: int, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = sparsify(Tagger(), METHODS[0])
    train(model, 10 + rank)
    project(model, keep=150)
    torch.save((model.state_dict(), keep_mask(model)), os.path.join(path, f"{rank}.pt"))  # noqa: PTH118
    dist.destroy_process_group()


@pytest.mark.slow  # three imports of torch and its compiler: about 25 s of one core
@pytest.mark.timeout(300)
def test_two_processes_train_one_sparse_model(tmp_path: Path) -> None:
    spawn(worker, (str(tmp_path),), nprocs=2)
    (first, masks), (second, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(masks[name], others[name]) for name in masks)


def test_attributes_are_those_of_the_base() -> None:
    model = sparsify(Tagger(), METHODS[0])
    assert (model.lstm.hidden_size, model.lstm.num_layers, model.embedding.num_embeddings) == (5, 2, 30)
    assert model.output.bias is model.output.base.bias
    assert not hasattr(model.lstm, "nothing")
    model.eval()
    assert torch.equal(model.output.weight, harden(model).output.weight), (
        "a weight by its name is as deployed"
    )
    with pytest.raises(AttributeError, match=r"copy values into base.weight"):
        model.output.weight = nn.Parameter(torch.zeros(3, 10))


def test_tied_and_unusual_weights_are_refused_by_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.output = nn.Embedding(7, 4), nn.Linear(4, 7)
            self.output.weight = self.embedding.weight

    for exclude in ((), ("output",)):
        with pytest.raises(ValueError, match="output.weight and embedding.weight are one parameter: tied"):
            sparsify(Tied(), METHODS[2], exclude=exclude)
    for module, said in (
        (nn.RNN(3, 4), "RNN '0' cannot be made sparse; exclude it"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention '0'"),
        (nn.LazyLinear(3), "LazyLinear '0' has weights that are computed or not there yet"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), "weights that are computed"),
        (nn.Embedding(5, 3, max_norm=1.0), "with max_norm=1.0"),
        (nn.Conv1d(4, 4, 2, groups=2), "needs a convolution with groups=1, got groups=2"),
    ):
        with pytest.raises(ValueError, match=said):
            sparsify(nn.Sequential(module, nn.Linear(3, 3)), HardConcrete(groups=("input",)))
