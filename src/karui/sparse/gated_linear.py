"""A matrix product whose input is scaled column by column, with no second product for the gradient of the scales."""

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.ops.hard_concrete import runs_compiled


def gated_linear(input: Tensor, weight: Tensor, bias: Tensor | None, factor: Tensor) -> Tensor:  # noqa: A002
    """(input * factor) weight^T + bias: input (..., C), weight (R, C), bias (R,), factor (C,) to (..., R).

    With M = grad^T input (R, C): the gradient of the weight is M * factor, that of the factor the column sums of
    M * weight; autograd would multiply grad by the weight for it, as large a product as the forward one, even where
    the input needs no gradient.
    """
    if torch.is_autocast_enabled(input.device.type):
        return F.linear(input * factor, weight, bias)
    return _GatedLinear.apply(input, weight, bias, factor)  # type: ignore[return-value]


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input: Tensor, weight: Tensor, bias: Tensor | None, factor: Tensor) -> Tensor:  # noqa: A002, ANN001
        ctx.save_for_backward(input, weight, factor)
        ctx.has_bias = bias is not None
        return F.linear(input * factor, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        input, weight, factor = ctx.saved_tensors  # noqa: A001
        flat = grad.reshape(-1, grad.shape[-1])
        product = flat.t() @ input.reshape(-1, input.shape[-1])
        of_input = (grad @ weight).mul_(factor) if ctx.needs_input_grad[0] else None
        of_bias = flat.sum(0) if ctx.has_bias else None
        if runs_compiled(factor, weight) and product.is_contiguous() and len(weight):
            from karui.ops.hard_concrete.cpu import multiply_blocks

            of_weight, of_factor = multiply_blocks(product, weight, factor, (len(weight), 1), out=product)
        else:
            of_factor = torch.linalg.vecdot(product, weight, dim=0)
            of_weight = product.mul_(factor)
        return of_input, of_weight, of_bias, of_factor
