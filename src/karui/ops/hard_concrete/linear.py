"""A matrix product with a drawn weight: gates, their product with the weight and the dense product in one node.

With G = grad^T input (R, C), the gradient by the drawn weight, that of the weight is G z and that of the gates the sums
of G W over their units. Neither G nor the drawn weight is ever a whole array: the compiled form draws, multiplies and
differentiates strip by strip, and nothing between the parts of a step goes through autograd.
"""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.choice import is_traced
from karui.ops.eager import addresses
from karui.ops.hard_concrete import cpu, runs_compiled
from karui.ops.hard_concrete.counted import Counted, Pass
from karui.ops.noise import draw_seed

PANEL = 32
"""Columns of the input are rounded up to these for its panels, which the backward pass gets in place of it."""


class DrawnLinear:
    """input (..., C) times a draw of the weight (R, C), plus bias (R,): what a layer does at every step."""

    def __init__(self, how: cpu.Drawing) -> None:
        self.how = how

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        log_alpha: Tensor,
    ) -> Counted | None:
        """Product and count, one node of the graph for both.

        None where the compiled form does not run, a compiler looks on, an autocast asks for a product of 16 bits, or
        input, weight and bias are none of a layer. Raises ValueError where log_alpha has not one number a block.
        """
        if not _is_of_one_layer(input, weight, bias, log_alpha):
            return None
        state = Pass()
        drawn, count = _apply(input, weight, bias, log_alpha, self.how, state)
        return Counted(drawn, count, state)


def _is_of_one_layer(input: Tensor, weight: Tensor, bias: Tensor | None, log_alpha: Tensor) -> bool:  # noqa: A002
    """Whether the compiled product takes these: every layer asks at every step."""
    own = (weight,) if bias is None else (weight, bias)
    if torch.is_autocast_enabled("cpu") or is_traced(input) or not runs_compiled(log_alpha, *own):
        return False
    rows, columns = weight.shape
    shape = input.shape
    return (
        (bias is None or bias.shape == (rows,))
        and input.is_cpu
        and input.dtype == log_alpha.dtype
        and len(shape) > 0
        and shape[-1] == columns
        and 0 not in shape
        and rows > 0
    )


class _DrawnLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        log_alpha: Tensor,
        how: cpu.Drawing,
        state: Pass,
    ) -> tuple[Tensor, Tensor]:
        """Draw and multiply: (output, count)."""
        input = input.contiguous()  # noqa: A001
        R, C = weight.shape
        n, threads, is_double = cpu.kind(log_alpha)
        shape = list(input.shape)
        shape[-1], N = R, input.numel() // C
        sizes = (N, C, R, *(how.block or (1, 1)), n)
        gate, output = torch.empty_like(log_alpha), input.new_empty(shape)
        panels, seed = input.new_empty(N * (C + -C % PANEL)), draw_seed()
        arrays = addresses(input, weight, bias, log_alpha, gate, panels, output)
        count = _native.drawn_linear_forward(threads, is_double, sizes, seed, how.numbers, arrays)
        count = cpu.expected(count, log_alpha, how)
        ctx.save_for_backward(panels, weight, log_alpha, gate)
        ctx.about, ctx.spent = (how, state, sizes, bias is not None, seed), False
        ctx.set_materialize_grads(False)
        return output, torch.scalar_tensor(count, dtype=log_alpha.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_count: Tensor | None) -> tuple[Tensor | None, ...]:
        """All gradients."""
        cpu.refuse_second_derivative()
        panels, weight, log_alpha, gate = ctx.saved_tensors
        how, state, sizes, has_bias, seed = ctx.about
        state.is_open = False
        scale = cpu.value_of(grad_count)
        if grad is None:
            of_log_alpha = torch.empty_like(log_alpha)
            cpu.open_gradient_(of_log_alpha, log_alpha, how.law, how.sizes, scale)
            return None, None, None, of_log_alpha, None, None
        # The gates become the gradient of log alpha; where the graph is kept, the next pass draws them again.
        if ctx.spent:
            gate, _, _ = cpu.draw_into(log_alpha, None, how, seed)
        ctx.spent = True
        grad = grad.contiguous()
        of_input = grad.new_empty((*grad.shape[:-1], sizes[1])) if ctx.needs_input_grad[0] else None
        of_weight, of_bias = torch.empty_like(weight), grad.new_empty(sizes[2]) if has_bias else None
        _, threads, is_double = cpu.kind(log_alpha)
        arrays = addresses(grad, panels, weight, log_alpha, gate, of_input, of_weight, of_bias)
        _native.drawn_linear_backward(threads, is_double, sizes, how.numbers, cpu.each(how, scale), arrays)
        cpu.add_by_unit_(gate, log_alpha, how, scale)
        return of_input, of_weight, of_bias, gate, None, None


# torch's own `apply` first looks for the wrappers of torch.func, whose tensors have no memory for the compiled form.
_apply = super(torch.autograd.Function, _DrawnLinear).apply  # pyright: ignore[reportAttributeAccessIssue]
