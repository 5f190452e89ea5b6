"""Edges of the GPU kernels, run by tests/ops/test_triton_recurrence.py in a process with Triton's interpreter on."""

import torch
from torch import Tensor

from karui.ops.linear_recurrence import linear_recurrence
from karui.ops.linear_recurrence import triton as linear_kernels
from karui.ops.simple_recurrence import simple_recurrence
from karui.ops.simple_recurrence import triton as simple_kernels
from karui.ops.statistical_recurrence import statistical_recurrence
from karui.ops.statistical_recurrence import triton as statistical_kernels

ALPHAS = torch.tensor([0.0, 0.5])


def simple(u: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    _, B, D, _, H = u.shape
    gates, c_0 = torch.full((D, 2, H), 0.3), torch.ones(D, B, H)
    return simple_recurrence(
        u, None, gates, gates, c_0=c_0, padding_mask=padding_mask, implementation="triton"
    )


def linear(f: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    _, B, D, H = f.shape
    return linear_recurrence(
        f, f, c_0=torch.ones(D, B, H), padding_mask=padding_mask, implementation="triton"
    )


def statistical(projected: Tensor, padding_mask: Tensor | None = None, how: str = "triton") -> tuple:
    _, B, P = projected.shape
    weights = torch.full((2, 2 * P), 0.2), torch.zeros(2), torch.full((P, 2), 0.1)
    masks = {"padding_mask": padding_mask, "activation": "tanh", "implementation": how}
    return statistical_recurrence(projected, *weights, alphas=ALPHAS, mu_0=torch.ones(B, 2 * P), **masks)


SHAPES = {simple: (1, 3, 4), linear: (1, 4), statistical: (3,)}  # behind T and B


def empty_time_and_empty_batch_have_an_answer() -> None:
    for function, rest in SHAPES.items():
        for T, B in ((0, 2), (3, 0)):
            output, last = function(torch.randn(T, B, *rest))
            assert output.shape[:2] == (T, B), function
            assert (last == 1).all(), function


def nan_in_padding_changes_nothing() -> None:
    padding = torch.zeros(4, 2, dtype=torch.bool)
    padding[2:, 1] = True
    for function, rest in SHAPES.items():
        leaf = torch.randn(4, 2, *rest)
        leaf[padding] = torch.nan
        leaf.requires_grad_()
        output, last = function(leaf, padding)
        (output.sum() + last.sum()).backward()
        assert output.isfinite().all(), function
        assert last.isfinite().all(), function
        assert leaf.grad.isfinite().all(), function
        assert (leaf.grad[padding] == 0).all(), function


def gradients_of_gradients() -> None:
    u = torch.randn(2, 1, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    gates, c_0 = torch.randn(1, 2, 2, dtype=torch.float64), torch.ones(1, 1, 2, dtype=torch.float64)

    def scan(u: Tensor) -> Tensor:
        return simple_recurrence(u, None, gates, gates, c_0=c_0, activation="tanh", implementation="triton")[
            0
        ]

    assert torch.autograd.gradgradcheck(scan, u)
    f = torch.rand(2, 1, 1, 2, dtype=torch.float64, requires_grad=True)
    walk = linear_recurrence
    assert torch.autograd.gradgradcheck(lambda f: walk(f, f, c_0=c_0, implementation="triton")[0], f)
    projected = torch.randn(3, 2, 3, requires_grad=True)
    found = []
    for how in ("triton", "reference"):
        slope = torch.autograd.grad(
            statistical(projected, how=how)[0].square().sum(), projected, create_graph=True
        )
        found.append(torch.autograd.grad(slope[0].square().sum(), projected)[0])
    assert (found[0] - found[1]).abs().max() < 1e-4


def operators_agree_with_their_fakes() -> None:
    utilities = ("test_schema", "test_faketensor", "test_autograd_registration")
    u, gates = torch.randn(3, 2, 2, 4, 5, requires_grad=True), torch.randn(2, 2, 5, requires_grad=True)
    arguments = (u, None, gates, gates.detach(), torch.ones(2, 2, 5), None, None, "v2", "tanh", 1.25, True)
    torch.library.opcheck(simple_kernels.forward_op, arguments, test_utils=utilities)
    f = torch.rand(3, 2, 1, 4, requires_grad=True)
    arguments = (f, f.detach(), torch.zeros(1, 2, 4), None)
    torch.library.opcheck(linear_kernels.forward_op, arguments, test_utils=utilities)
    weights = torch.randn(2, 6, requires_grad=True), torch.randn(2), torch.randn(3, 2)
    arguments = (torch.randn(2, 2, 3), *weights, ALPHAS, torch.zeros(2, 6), None, 2, False, True)
    torch.library.opcheck(statistical_kernels.forward_op, arguments, test_utils=utilities)


if __name__ == "__main__":
    simple_kernels.AHEAD = linear_kernels.AHEAD = statistical_kernels.AHEAD = (
        2  # the interpreter pays by the call
    )
    empty_time_and_empty_batch_have_an_answer()
    nan_in_padding_changes_nothing()
    gradients_of_gradients()
    operators_agree_with_their_fakes()
