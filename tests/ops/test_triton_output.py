"""Proof of the GPU kernels of output layers without a GPU: in Triton's interpreter, against the reference in fp64."""

import os
import subprocess
import sys

import pytest
import torch

from tests.support.kernel_proof import assert_as_exact_as_plain
from tests.support.triton_output import run
from tests.support.triton_proof import ROOT

pytest.importorskip("triton", reason="Triton is for Linux")
pytestmark = pytest.mark.timeout(300)
F32, BF16, F64 = torch.float32, torch.bfloat16, torch.float64


def sampled(sizes, term, dtype, *, hits=True, scale=1.0):
    N, K, H = sizes
    generator = torch.Generator().manual_seed(5)
    shapes = {"hidden": (N, H), "rows": (K, H), "offset": (K,), "first": (N,)}
    given = {name: torch.randn(*s, generator=generator) * scale for name, s in shapes.items()}
    if term == "softplus":
        given["first"] = None
    if hits:
        given["target"] = torch.randint(0, 9, (N,), generator=generator)
        given["noise"] = torch.randint(0, 9, (K,), generator=generator)
    return "sampled", dtype, given, term


def losses(sizes, term, dtype, *, inside=True):
    N, K, H, V = sizes
    generator = torch.Generator().manual_seed(5)
    shapes = {"hidden": (N, H), "weight": (V, H), "bias": (V,), "of_target": (N,), "of_noise": (2, K)}
    given = {name: torch.randn(*s, generator=generator) for name, s in shapes.items()}
    given["target"] = torch.randint(0, V, (N,), generator=generator)
    given["noise"] = torch.randint(0, V, (2, K), generator=generator)
    return "losses", dtype, given, {"term": term, "includes_target": inside, "drops_hits": inside}


def rows(sizes, dtype):
    M, V, H = sizes
    generator = torch.Generator().manual_seed(5)
    return "rows", dtype, {
        "weight": torch.randn(V, H, generator=generator),
        "sum_of_squares": torch.rand(V, generator=generator),
        "ids": torch.randint(0, V, (M,), generator=generator),
        "values": torch.randn(M, H, generator=generator),
    }  # fmt: skip


CALLS = {
    "logsumexp 1": sampled((1, 1, 1), "logsumexp", F32, hits=False),
    "logsumexp tails": sampled((33, 41, 19), "logsumexp", F32),
    "logsumexp bf16": sampled((33, 20, 8), "logsumexp", BF16),
    "logsumexp large": sampled((9, 33, 4), "logsumexp", F32, hits=False, scale=20.0),
    "softplus tails": sampled((33, 41, 19), "softplus", F32),
    "softplus large": sampled((9, 33, 4), "softplus", F32, hits=False, scale=20.0),
    "blackout tails": sampled((33, 41, 19), "blackout", F32),
    "blackout f64": sampled((5, 7, 3), "blackout", F64),
    "losses sampled": losses((11, 9, 19, 13), "logsumexp", F32),
    "losses blackout": losses((11, 9, 19, 13), "blackout", F32),
    "losses nce": losses((1, 9, 5, 13), "softplus", F32, inside=False),
    "losses bf16": losses((11, 9, 19, 13), "logsumexp", BF16),
    "rows 1": rows((1, 1, 1), F32),
    "rows": rows((63, 41, 3), F32),
    "rows wide": rows((20, 7, 300), F32),
    "rows bf16": rows((63, 41, 19), BF16),
}


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    torch.save(list(CALLS.values()), folder / "calls.pt")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.triton_output", folder / "calls.pt", folder / "results.pt"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CALLS, torch.load(folder / "results.pt", weights_only=False), strict=True))


@pytest.mark.parametrize("name", CALLS)
def test_as_exact_as_plain(name: str, fused) -> None:
    call = CALLS[name]
    plain, truth = run(call, "reference"), run(call, "reference", F64)
    assert fused[name].keys() == plain.keys()
    for tensor, found in fused[name].items():
        if tensor == "ids":
            assert torch.equal(found, plain[tensor])
        elif call[1] == F64:
            assert (found - truth[tensor]).abs().max() < 1e-12
        else:
            assert_as_exact_as_plain(tensor, found, plain[tensor], truth[tensor])
