"""A matrix product with a drawn weight: gates, their product with the weight and the dense product in one node.

With G = grad^T input (R, C), the gradient by the drawn weight, that of the weight is G z and that of the gates the sums
of G W over their units. Neither G nor the drawn weight is ever a whole array: the compiled form draws, multiplies and
differentiates strip by strip, and nothing between the parts of a step goes through autograd.
"""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.eager import addresses
from karui.ops.hard_concrete import cpu
from karui.ops.hard_concrete.cpu import Pass
from karui.ops.noise import draw_seed


class DrawnLinear(torch.autograd.Function):
    """(output, count) of `karui.ops.hard_concrete.linear_with_count`, which says what this takes."""

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
        """Draw and multiply."""
        input = input.contiguous()  # noqa: A001
        R, C = weight.shape
        sizes = (input.numel() // C, C, R, *(how.block or (1, 1)), log_alpha.numel())
        gate, output = torch.empty_like(log_alpha), input.new_empty((*input.shape[:-1], R))
        _, threads, is_double = cpu.kind(log_alpha)
        arrays = addresses(input, weight, bias, log_alpha, gate, output)
        count = _native.drawn_linear_forward(threads, is_double, sizes, draw_seed(), how.numbers, arrays)
        count = cpu.expected(count, log_alpha, how)
        ctx.save_for_backward(input, weight, log_alpha, gate)
        ctx.about = how, state, sizes, bias is not None
        ctx.set_materialize_grads(False)
        return output, torch.scalar_tensor(count, dtype=log_alpha.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_count: Tensor | None) -> tuple[Tensor | None, ...]:
        """All gradients."""
        cpu.refuse_second_derivative()
        input, weight, log_alpha, gate = ctx.saved_tensors  # noqa: A001
        how, state, sizes, has_bias = ctx.about
        state.is_open = False
        scale = cpu.value_of(grad_count)
        of_log_alpha = torch.empty_like(log_alpha)
        if grad is None:
            cpu.open_gradient_(of_log_alpha, log_alpha, how.law, how.sizes, scale)
            return None, None, None, of_log_alpha, None, None
        grad = grad.contiguous()
        of_input = torch.empty_like(input) if ctx.needs_input_grad[0] else None
        of_weight, of_bias = torch.empty_like(weight), grad.new_empty(sizes[2]) if has_bias else None
        _, threads, is_double = cpu.kind(log_alpha)
        arrays = addresses(grad, input, weight, gate, log_alpha, of_input, of_weight, of_log_alpha, of_bias)
        _native.drawn_linear_backward(threads, is_double, sizes, how.numbers, cpu.each(how, scale), arrays)
        cpu.add_by_unit_(of_log_alpha, log_alpha, how, scale)
        return of_input, of_weight, of_bias, of_log_alpha, None, None


# torch's own `apply` first looks for the wrappers of torch.func, whose tensors have no memory for the compiled form.
apply = super(torch.autograd.Function, DrawnLinear).apply  # pyright: ignore[reportAttributeAccessIssue]
