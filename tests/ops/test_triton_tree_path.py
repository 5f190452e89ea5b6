"""Proof of the GPU kernels of `tree_path`: in Triton's interpreter without a GPU, and on one where there is one."""

import os
import subprocess
import sys

import pytest
import torch

from karui.ops.tree_path import leaf_paths, reference, tree_path
from karui.output.hierarchical import HierarchicalSoftmax
from tests.support.kernel_proof import assert_as_exact_as_plain
from tests.support.triton_proof import ROOT
from tests.support.triton_tree import Call

pytest.importorskip("triton", reason="Triton is for Linux")
pytestmark = pytest.mark.timeout(300)
F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64

# Sizes are N, H, V. With few classes and many rows the nodes near the root are summed in pieces.
CALLS = {
    "1": Call((1, 1, 2), F32),
    "as shipped": Call((5, 7, 30), F32, small=False),
    "odd sizes": Call((17, 21, 5), F32),
    "sparse": Call((13, 9, 20), F32, sparse=True),
    "no bias": Call((11, 7, 3), F32, has_bias=False),
    "sparse, no bias": Call((3, 3, 300), F32, sparse=True, has_bias=False),
    "bf16": Call((13, 9, 5), BF16),
    "bf16 sparse": Call((7, 5, 5), BF16, sparse=True),
    "f16": Call((5, 5, 4), F16),
    "f64": Call((5, 5, 4), F64),
    "compiled": Call((3, 3, 4), F32, compiled=True),
    "compiled sparse": Call((3, 3, 4), F32, compiled=True, sparse=True),
}


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    torch.save(list(CALLS.values()), folder / "calls.pt")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.triton_tree", folder / "calls.pt", folder / "results.pt"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CALLS, torch.load(folder / "results.pt", weights_only=False), strict=True))


def prove(call: Call, found: dict[str, torch.Tensor], device: str = "cpu") -> None:
    plain, truth = call.run("reference", device=device), call.run("reference", F64, device)
    found = dict(found)
    if call.sparse:
        assert found.pop("ids").tolist() == sorted(set(call.steps()["nodes"].tolist()))
    assert found.keys() == plain.keys()
    for name, tensor in found.items():
        if call.dtype == F64:
            assert (tensor - truth[name]).abs().max() <= 1e-13 * (1 + truth[name].abs().max())
        else:
            assert_as_exact_as_plain(name, tensor, plain[name], truth[name])


@pytest.mark.parametrize("name", CALLS)
def test_as_exact_as_plain(name: str, fused) -> None:
    prove(CALLS[name], fused[name])


def test_naming_triton_without_a_gpu_is_refused() -> None:
    steps = Call((2, 3, 4), F32).steps()
    with pytest.raises(ValueError, match="needs a CUDA tensor, got one on cpu"):
        tree_path(torch.zeros(2, 3), torch.zeros(3, 3), None, **steps, implementation="triton")


GPU_SIZES = [(1, 1, 2), (63, 41, 20), (1000, 100, 300), (4096, 512, 3), (2048, 512, 50_000), (3, 4099, 9)]


@pytest.mark.gpu
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64])
@pytest.mark.parametrize("sizes", GPU_SIZES)
def test_on_a_gpu(sizes, dtype, sparse) -> None:
    call = Call(sizes, dtype, sparse=sparse)
    first, second = (call.run("triton", device="cuda") for _ in range(2))
    prove(call, first, "cuda")
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{name}: another run, other bits"


@pytest.mark.gpu
def test_paths_on_a_gpu() -> None:
    parent, depth, leaves = (x.cuda() for x in Call((5000, 1, 50_000), F32).tree())
    for found, expected in zip(
        leaf_paths(parent, depth, leaves), reference.leaf_paths(parent, depth, leaves), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("sparse", [False, True])
def test_the_layer_on_a_gpu_and_compiled(sparse: bool) -> None:
    counts = torch.randint(0, 1000, (300,), generator=torch.Generator().manual_seed(0))
    layer = HierarchicalSoftmax(64, counts, sparse=sparse).cuda()
    hidden, target = torch.randn(100, 64, device="cuda"), torch.randint(300, (100,), device="cuda")

    def gradients(run) -> list[torch.Tensor]:
        layer.zero_grad()
        loss = run(hidden, target)
        loss.backward()
        return [loss.detach(), layer.weight.grad.to_dense(), layer.bias.grad.to_dense()]

    eager, compiled = gradients(layer), gradients(torch.compile(layer))
    layer.double()
    hidden = hidden.double()
    truth = gradients(layer)
    for name, *tensors in zip(("loss", "weight", "bias"), compiled, eager, truth, strict=True):
        assert_as_exact_as_plain(name, *tensors)
