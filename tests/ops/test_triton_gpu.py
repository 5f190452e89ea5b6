"""Proof of the GPU kernels on a GPU: rounding, masks at full size, compiled graphs, gradients of gradients."""

import pytest
import torch
from torch import Tensor

from karui.ops.linear_recurrence import linear_recurrence
from karui.ops.simple_recurrence import simple_recurrence
from karui.ops.statistical_recurrence import statistical_recurrence
from tests.support.kernel_proof import assert_as_exact_as_plain

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [(1, 1, 1), (63, 3, 41), (17, 5, 7), (128, 8, 64), (256, 32, 512)]


def compare(function, positional: dict, named: dict, options: dict, dtype: torch.dtype) -> None:
    """Outputs and gradients of the kernel against the reference in the same dtype and in fp64, all on the GPU."""

    def run(implementation: str, kind: torch.dtype) -> dict[str, Tensor]:
        def cast(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or not tensor.is_floating_point():
                return None if tensor is None else tensor.cuda()
            return tensor.to("cuda", dtype).to(kind)

        leaves = {name: cast(tensor) for name, tensor in (positional | named).items()}
        for leaf in leaves.values():
            if leaf is not None:
                leaf.requires_grad_()
        extra = {k: cast(v) if isinstance(v, Tensor) else v for k, v in options.items()}
        outputs = function(
            *[leaves[name] for name in positional],
            **{name: leaves[name] for name in named},
            **extra,
            implementation=implementation,
        )
        generator = torch.Generator().manual_seed(23)
        sum((o * cast(torch.randn(o.shape, generator=generator))).sum() for o in outputs).backward()
        found = {"output": outputs[0].detach(), "last_state": outputs[1].detach()}
        return found | {f"grad_{name}": leaf.grad for name, leaf in leaves.items() if leaf is not None}

    plain, truth = run("reference", dtype), run("reference", torch.float64)
    first, second = run("triton", dtype), run("triton", dtype)
    for name, tensor in first.items():
        assert_as_exact_as_plain(name, tensor, plain[name], truth[name])
        assert torch.equal(tensor, second[name]), f"{name}: another run, other bits"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("sizes", SIZES)
def test_simple(sizes, variant, dtype) -> None:
    T, B, H = sizes
    D = 2 if H < 100 else 1
    positional = {
        "u": torch.randn(T, B, D, 3, H) * 0.7,
        "x": torch.randn(T, B, D * H),
        "weight_c": None if variant == "v1" else torch.randn(D, 2, H),
        "bias": torch.randn(D, 2, H),
    }
    options = {"padding_mask": torch.rand(T, B) > 0.8, "dropout_mask": (torch.rand(B, D * H) > 0.3) / 0.75}
    options |= {"variant": variant, "activation": "tanh", "scale": 1.3}
    compare(simple_recurrence, positional, {"c_0": torch.randn(D, B, H)}, options, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [*SIZES, (2048, 2, 64)])  # the last one is cut in chunks
def test_linear(sizes, dtype) -> None:
    T, B, H = sizes
    positional = {"f": torch.sigmoid(torch.randn(T, B, 2, H) + 1), "b": torch.randn(T, B, 2, H)}
    options = {"padding_mask": torch.rand(T, B) > 0.8}
    compare(linear_recurrence, positional, {"c_0": torch.randn(2, B, H)}, options, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (17, 5, 7, 3), (64, 40, 200, 60)])
def test_statistical(sizes, dtype) -> None:
    T, B, P, R = sizes
    A = 5
    positional = {
        "projected": torch.randn(T, B, P),
        "weight_r": torch.randn(R, A * P) / (A * P) ** 0.5,
        "bias_r": torch.randn(R),
        "weight_phi": torch.randn(P, R) / R**0.5,
    }
    named = {"alphas": torch.tensor([0.0, 0.25, 0.5, 0.9, 0.99]), "mu_0": torch.randn(B, A * P)}
    compare(statistical_recurrence, positional, named, {"padding_mask": torch.rand(T, B) > 0.8}, dtype)


def test_a_compiled_graph_gives_the_same_numbers() -> None:
    f = torch.sigmoid(torch.randn(64, 4, 1, 32, device="cuda")).requires_grad_()
    c_0 = torch.zeros(1, 4, 32, device="cuda")

    def loss(f: Tensor) -> Tensor:
        return linear_recurrence(f, f, c_0=c_0)[0].square().sum()

    expected = torch.autograd.grad(loss(f), f)[0]
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(f), f)[0]
    assert_as_exact_as_plain("grad_f", found, expected, expected.double())


def test_gradients_of_gradients() -> None:
    f = torch.rand(3, 2, 1, 3, device="cuda", dtype=torch.float64, requires_grad=True)
    c_0 = torch.zeros(1, 2, 3, device="cuda", dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda f: linear_recurrence(f, f, c_0=c_0)[0], f)
