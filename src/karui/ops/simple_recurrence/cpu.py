"""The compiled scan, registered as the custom operators `karui::simple_recurrence` and its backward."""

import torch
from torch import Tensor

from karui import _native


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _sizes(u: Tensor, *, tanh: bool, scale: float) -> object:
    return _native.ScanSizes(*u.shape, tanh, scale, torch.get_num_threads())


@torch.library.custom_op("karui::simple_recurrence", mutates_args=(), device_types="cpu")
def forward_op(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor,
    bias: Tensor,
    c_0: Tensor,
    lengths: Tensor | None,
    dropout_mask: Tensor | None,
    tanh: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous inputs of one dtype; returns h (T, B, D*H), every state c (T, B, D, H) and c_n (D, B, H)."""
    T, B, D, _, H = u.shape
    h, c, c_n = u.new_empty(T, B, D * H), u.new_empty(T, B, D, H), torch.empty_like(c_0)
    arrays = tuple(_address(t) for t in (u, x, weight_c, bias, c_0, dropout_mask, lengths, h, c, c_n))
    _native.scan_forward(_sizes(u, tanh=tanh, scale=scale), u.dtype == torch.float64, arrays)
    return h, c, c_n


@forward_op.register_fake
def _(u, x, weight_c, bias, c_0, lengths, dropout_mask, tanh, scale):  # noqa: ANN001, ANN202, ARG001
    T, B, D, _, H = u.shape
    return u.new_empty(T, B, D * H), u.new_empty(T, B, D, H), torch.empty_like(c_0)


@torch.library.custom_op("karui::simple_recurrence_backward", mutates_args=(), device_types="cpu")
def backward_op(
    grad_h: Tensor,
    grad_c_n: Tensor,
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor,
    bias: Tensor,
    c_0: Tensor,
    lengths: Tensor | None,
    dropout_mask: Tensor | None,
    c: Tensor,
    tanh: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, x (empty when there is none), weight_c, bias and c_0."""
    _, B, D, _, H = u.shape
    grad_u = torch.empty_like(u)
    grad_x = u.new_empty(0) if x is None else torch.empty_like(x)
    grad_weight_c, grad_bias, grad_c_0 = (
        torch.empty_like(weight_c),
        torch.empty_like(bias),
        torch.empty_like(c_0),
    )
    scratch = u.new_empty(B, D, 4, H)
    forward = tuple(_address(t) for t in (u, x, weight_c, bias, c_0, dropout_mask, lengths, None, c, None))
    arrays = (grad_h, grad_c_n, grad_u, grad_x, grad_weight_c, grad_bias, grad_c_0, scratch)
    _native.scan_backward(
        _sizes(u, tanh=tanh, scale=scale),
        u.dtype == torch.float64,
        forward,
        tuple(_address(t) for t in arrays),
    )
    return grad_u, grad_x, grad_weight_c, grad_bias, grad_c_0


@backward_op.register_fake
def _(grad_h, grad_c_n, u, x, weight_c, bias, c_0, lengths, dropout_mask, c, tanh, scale):  # noqa: ANN001, ANN202, ARG001
    grad_x = u.new_empty(0) if x is None else torch.empty_like(x)
    return (
        torch.empty_like(u),
        grad_x,
        torch.empty_like(weight_c),
        torch.empty_like(bias),
        torch.empty_like(c_0),
    )


def _setup(ctx, inputs, output) -> None:  # noqa: ANN001
    u, x, weight_c, bias, c_0, lengths, dropout_mask, ctx.tanh, ctx.scale = inputs
    ctx.save_for_backward(u, x, weight_c, bias, c_0, lengths, dropout_mask, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros for the states would cost as much as the output


def _backward(ctx, grad_h, _grad_c, grad_c_n):  # noqa: ANN001, ANN202
    u, x, weight_c, bias, c_0, lengths, dropout_mask, c = ctx.saved_tensors
    grad_h = (
        u.new_zeros(u.shape[0], u.shape[1], u.shape[2] * u.shape[4])
        if grad_h is None
        else grad_h.contiguous()
    )
    grad_c_n = torch.zeros_like(c_0) if grad_c_n is None else grad_c_n.contiguous()
    grads = backward_op(
        grad_h, grad_c_n, u, x, weight_c, bias, c_0, lengths, dropout_mask, c, ctx.tanh, ctx.scale
    )
    grad_u, grad_x, grad_weight_c, grad_bias, grad_c_0 = grads
    return grad_u, (None if x is None else grad_x), grad_weight_c, grad_bias, grad_c_0, None, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup)


def simple_recurrence(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor,
    bias: Tensor,
    *,
    c_0: Tensor,
    lengths: Tensor | None,
    dropout_mask: Tensor | None,
    tanh: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.simple_recurrence`; float32 or float64 on a CPU."""
    dense = [
        None if t is None else t.contiguous() for t in (u, x, weight_c, bias, c_0, lengths, dropout_mask)
    ]
    h, _, c_n = forward_op(*dense, tanh, scale)
    return h, c_n
