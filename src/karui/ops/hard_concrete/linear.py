"""A matrix product with a drawn weight: gates, their product with the weight and the dense product in one node.

With G = grad^T input (R, C), the gradient by the drawn weight, that of the weight is G z and that of the gates the sums
of G W over their units: G is this node's own, so both are taken in its place, and nothing between the parts of a step
goes through autograd. With a gate an element, neither G nor the drawn weight is ever a whole array: the compiled form
draws, multiplies and differentiates strip by strip.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from karui import _native
from karui.ops.eager import addresses
from karui.ops.hard_concrete import cpu
from karui.ops.noise import draw_seed


class DrawnElements(torch.autograd.Function):
    """(output, count) of `karui.ops.hard_concrete.linear_with_count` for a gate an element."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        log_alpha: Tensor,
        how: cpu.Drawing,
        state: cpu.Pass,
    ) -> tuple[Tensor, Tensor]:
        """Draw and multiply."""
        input = input.contiguous()  # noqa: A001
        R, C = weight.shape
        sizes = (input.numel() // C, C, R)
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
        if grad is None:
            found, _ = cpu.gradients(None, weight, gate, log_alpha, how, scale=scale)
            return None, None, None, found, None, None
        grad = grad.contiguous()
        of_input = torch.empty_like(input) if ctx.needs_input_grad[0] else None
        of_weight, of_log_alpha = torch.empty_like(weight), torch.empty_like(log_alpha)
        by_unit = how.sizes.by_unit is not None and scale != 0.0
        _, threads, is_double = cpu.kind(log_alpha)
        of_bias = grad.new_empty(sizes[2]) if has_bias else None
        arrays = addresses(grad, input, weight, gate, log_alpha, of_input, of_weight, of_log_alpha, of_bias)
        each = 0.0 if by_unit else scale * how.sizes.each
        _native.drawn_linear_backward(threads, is_double, sizes, how.numbers, each, arrays)
        if by_unit:
            of_log_alpha += cpu.open_gradient_(
                torch.empty_like(log_alpha), log_alpha, how.law, how.sizes, scale
            )
        return of_input, of_weight, of_bias, of_log_alpha, None, None


class DrawnLinear(torch.autograd.Function):
    """(output, count) of `karui.ops.hard_concrete.linear_with_count` for a gate a block or column."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        log_alpha: Tensor,
        how: cpu.Drawing,
        scales_input: bool,
        state: cpu.Pass,
    ) -> tuple[Tensor, Tensor]:
        """Draw, and multiply twice."""
        gate, drawn, count = cpu.draw_into(log_alpha, None if scales_input else weight, how, draw_seed())
        output = F.linear(input * gate, weight, bias) if drawn is None else F.linear(input, drawn, bias)
        ctx.save_for_backward(input, weight, log_alpha, gate, drawn if ctx.needs_input_grad[0] else None)
        ctx.how, ctx.has_bias, ctx.scales_input, ctx.state = how, bias is not None, scales_input, state
        ctx.set_materialize_grads(False)
        return output, torch.scalar_tensor(count, dtype=log_alpha.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_count: Tensor | None) -> tuple[Tensor | None, ...]:
        """All gradients; that of the weight is written over the product that it comes from."""
        cpu.refuse_second_derivative()
        ctx.state.is_open = False
        input, weight, log_alpha, gate, drawn = ctx.saved_tensors  # noqa: A001
        product = of_input = of_bias = None
        if grad is not None:
            flat = grad.reshape(-1, grad.shape[-1])
            product = torch.mm(flat.t(), input.reshape(-1, input.shape[-1]))
            of_bias = flat.sum(0) if ctx.has_bias else None
            if ctx.needs_input_grad[0]:
                of_input = (grad @ weight).mul_(gate) if ctx.scales_input else grad @ drawn
        of_log_alpha, of_weight = cpu.gradients(
            product, weight, gate, log_alpha, ctx.how, scale=cpu.value_of(grad_count), out=product
        )
        return of_input, of_weight, of_bias, of_log_alpha, None, None, None
