"""Proof of the GPU kernels without a GPU: in Triton's interpreter, against the reference in fp64."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from tests.support.triton_proof import ROOT, Call, prove, run_in_interpreter

pytest.importorskip("triton", reason="Triton is for Linux")
pytestmark = pytest.mark.timeout(300)  # one process computes all calls: some 30 s on one idle core
F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
SMALL = {"AHEAD": 2, "BLOCK": 64}  # fewer, wider programs: the interpreter pays by the call


def drawer(seed: int):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.7) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    return draw


def pads(T: int, B: int) -> Tensor:
    """Padding anywhere, one sequence wholly of it."""
    mask = torch.rand(T, B, generator=torch.Generator().manual_seed(5)) > 0.7
    mask[:, 0] |= B > 1
    return mask


def simple(sizes, skip, variant, activation, dtype, *, masked=True, padded=True, **how) -> Call:
    T, B, D, H = sizes
    draw = drawer(17)
    positional = {
        "u": draw(T, B, D, 4 if skip == "projected" else 3, H),
        "x": draw(T, B, D * H) if skip == "input" else None,
        "weight_c": None if variant == "v1" else draw(D, 2, H),
        "bias": draw(D, 2, H),
    }
    options = {
        "padding_mask": pads(T, B) if padded else None,
        "dropout_mask": (draw(B, D * H) > -0.3).float() / 0.75 if masked else None,
        "variant": variant,
        "activation": activation,
        "scale": 1.3,
    }
    return Call("simple_recurrence", positional, {"c_0": draw(D, B, H)}, options, dtype, **how)


def linear(sizes, dtype, *, padded=True, **how) -> Call:
    T, B, D, H = sizes
    draw = drawer(19)
    positional = {"f": torch.sigmoid(draw(T, B, D, H) + 1), "b": draw(T, B, D, H)}
    options = {"padding_mask": pads(T, B) if padded else None}
    return Call("linear_recurrence", positional, {"c_0": draw(D, B, H)}, options, dtype, **how)


def statistical(sizes, A, activation, dtype, *, padded=True, last_only=False, **how) -> Call:
    T, B, P, R = sizes
    draw = drawer(29)
    positional: dict[str, Tensor | None] = {"projected": draw(T, B, P)}
    names = ("weight_r", "bias_r", "weight_phi")
    weights = (
        (draw(R, A * P, scale=(A * P) ** -0.5), draw(R), draw(P, R, scale=R**-0.5)) if R else (None,) * 3
    )
    named = {"alphas": torch.tensor([0.0, 0.5, 0.99, 0.25, 0.9][:A]), "mu_0": draw(B, A * P)}
    options = {
        "padding_mask": pads(T, B) if padded else None,
        "activation": activation,
        "last_only": last_only,
    }
    positional |= dict(zip(names, weights, strict=True))
    return Call("statistical_recurrence", positional, named, options, dtype, **how)


CALLS = {
    "simple 1": simple((1, 1, 1, 1), "projected", "v2", "identity", F32),
    "simple as shipped": simple((17, 5, 1, 7), "input", "v2", "tanh", F32),
    "simple two blocks": simple((33, 3, 1, 41), "projected", "v2", "identity", F32, launch=SMALL),
    "simple bf16": simple((17, 5, 2, 7), "projected", "v2", "tanh", BF16, launch=SMALL),
    "simple f16": simple((7, 3, 2, 5), "input", "v2", "relu", F16, padded=False, launch=SMALL),
    "simple f64": simple((5, 3, 2, 5), "input", "v2", "tanh", F64, launch=SMALL),
    "simple v1": simple((7, 3, 2, 5), "input", "v1", "tanh", F32, launch=SMALL),
    "simple v1 projected": simple((7, 3, 2, 5), "projected", "v1", "identity", BF16, launch=SMALL),
    "simple v1 no skip": simple((7, 3, 1, 5), "none", "v1", "relu", F32, launch=SMALL),
    "simple v2 no skip": simple((7, 3, 2, 5), "none", "v2", "tanh", F32, masked=False, launch=SMALL),
    "simple v2 relu": simple((7, 3, 2, 5), "projected", "v2", "relu", F32, launch=SMALL),
    "simple compiled": simple((5, 2, 2, 5), "input", "v2", "tanh", F32, compiled=True, launch=SMALL),
    "linear 1": linear((1, 1, 1, 1), F32, padded=False),
    "linear as shipped": linear((17, 5, 2, 7), BF16),
    "linear two blocks": linear((33, 3, 1, 41), F32, launch=SMALL),
    "linear chunks": linear((33, 3, 2, 11), F32, launch=SMALL | {"SHORTEST_CHUNK": 8}),
    "linear chunks bf16": linear((17, 5, 1, 7), BF16, padded=False, launch=SMALL | {"SHORTEST_CHUNK": 4}),
    "linear compiled": linear((6, 2, 2, 5), F32, compiled=True, launch=SMALL),
    "statistical 1": statistical((1, 1, 1, 1), 1, "relu", F32),
    "statistical as shipped": statistical((9, 5, 7, 3), 3, "relu", F32),
    "statistical two tiles": statistical((5, 18, 70, 17), 2, "tanh", F32, padded=False, launch=SMALL),
    "statistical bf16": statistical((9, 5, 7, 3), 2, "elu", BF16, launch=SMALL),
    "statistical last": statistical((9, 5, 7, 3), 2, "relu", F32, last_only=True, launch=SMALL),
    "statistical no feedback": statistical((9, 5, 7, 0), 3, "elu", F32, launch=SMALL),
    "statistical compiled": statistical((4, 3, 5, 3), 2, "relu", F32, compiled=True, launch=SMALL),
}


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    return dict(
        zip(CALLS, run_in_interpreter(list(CALLS.values()), tmp_path_factory.mktemp("triton")), strict=True)
    )


@pytest.mark.parametrize("name", CALLS)
def test_as_exact_as_plain(name: str, fused) -> None:
    prove(CALLS[name], fused[name])


def test_naming_triton_without_a_gpu_is_refused_and_import_is_light() -> None:
    code = (
        "import sys, torch\n"
        "from karui.ops.linear_recurrence import linear_recurrence\n"
        "f = torch.zeros(1, 1, 1, 1)\n"
        "linear_recurrence(f, f, c_0=f[0])\n"
        "assert 'triton' not in sys.modules\n"
        "try: linear_recurrence(f, f, c_0=f[0], implementation='triton')\n"
        "except ValueError as error: print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert "implementation 'triton' needs a CUDA tensor, got one on cpu" in done.stdout


def test_edges_nan_double_backward_and_operators() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.triton_edges"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
