"""The compiled scan, registered as the custom operators `karui::simple_recurrence` and its backward."""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.choice import is_traced
from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import addresses, eager_twin
from karui.ops.simple_recurrence import reference

ACTIVATIONS = ("identity", "tanh", "relu")  # in the order of native/kernels/simple_recurrence.hpp
MAX_CHUNKS = 8  # rows of the backward's partial sums, as in native/scan_grid.hpp


def _sizes(u: Tensor, activation: str, scale: float) -> object:
    return _native.ScanSizes(*u.shape, ACTIVATIONS.index(activation), scale, torch.get_num_threads())


def run_forward(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    c_0: Tensor,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    activation: str,
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous inputs of one dtype, float32 or float64; weight_c None is version 1.

    Returns h (T, B, D*H), every state c (T, B, D, H) for the backward (empty unless `save`) and c_n (D, B, H).
    """
    T, B, D, _, H = u.shape
    h, c_n = u.new_empty(T, B, D * H), torch.empty_like(c_0)
    c = u.new_empty((T, B, D, H) if save else (0,))
    arrays = (u, x, weight_c, bias, c_0, dropout_mask, padding_mask, h, c if save else None, c_n)
    _native.scan_forward(_sizes(u, activation, scale), u.dtype == torch.float64, addresses(*arrays))
    return h, c, c_n


# Autograd knows the plain functions through _eager, a compiler knows them as operators: those cost more a call.
forward_op = torch.library.custom_op(
    "karui::simple_recurrence", run_forward, mutates_args=(), device_types="cpu"
)


@forward_op.register_fake
def _(u, x, weight_c, bias, c_0, padding_mask, dropout_mask, activation, scale, save):  # noqa: ANN001, ANN202, ARG001
    T, B, D, _, H = u.shape
    return u.new_empty(T, B, D * H), u.new_empty((T, B, D, H) if save else (0,)), torch.empty_like(c_0)


def _empty_gradients(
    u: Tensor, x: Tensor | None, weight_c: Tensor | None, bias: Tensor, c_0: Tensor
) -> tuple:
    """What the backward fills: gradients of u, x, weight_c, bias, c_0; an input that is None has an empty one."""
    return tuple(u.new_empty(0) if t is None else torch.empty_like(t) for t in (u, x, weight_c, bias, c_0))


def run_backward(
    grad_h: Tensor,
    grad_c_n: Tensor,
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    c_0: Tensor,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    c: Tensor,
    activation: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, x, weight_c (both empty where there is none), bias and c_0."""
    gradients = _empty_gradients(u, x, weight_c, bias, c_0)
    grad_u, grad_x, grad_weight_c, grad_bias, grad_c_0 = gradients
    scratch = u.new_empty(MAX_CHUNKS, u.shape[2], 4, u.shape[4])
    forward = (u, x, weight_c, bias, c_0, dropout_mask, padding_mask, None, c, None)
    arrays = (grad_h, grad_c_n, grad_u, grad_x, grad_weight_c, grad_bias, grad_c_0, scratch)
    _native.scan_backward(
        _sizes(u, activation, scale),
        u.dtype == torch.float64,
        addresses(*forward),
        addresses(*arrays),
    )
    return gradients


backward_op = torch.library.custom_op(
    "karui::simple_recurrence_backward", run_backward, mutates_args=(), device_types="cpu"
)


@backward_op.register_fake
def _(grad_h, grad_c_n, u, x, weight_c, bias, c_0, padding_mask, dropout_mask, c, activation, scale):  # noqa: ANN001, ANN202, ARG001
    return _empty_gradients(u, x, weight_c, bias, c_0)


def _setup(ctx, inputs, output) -> None:  # noqa: ANN001
    *tensors, ctx.activation, ctx.scale, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros for the states would cost as much as the output


def _backward(ctx, grad_h, _grad_c, grad_c_n):  # noqa: ANN001, ANN202
    *tensors, c = ctx.saved_tensors
    u, x, weight_c, bias, c_0, padding_mask, dropout_mask = tensors
    if grad_h is None:
        grad_h = u.new_zeros(u.shape[0], u.shape[1], u.shape[2] * u.shape[4])
    grad_c_n = torch.zeros_like(c_0) if grad_c_n is None else grad_c_n
    if torch.is_grad_enabled():  # gradients of these gradients will be asked for

        def again(u: Tensor, x: Tensor | None, weight_c: Tensor | None, bias: Tensor, c_0: Tensor) -> tuple:
            masks = {"padding_mask": padding_mask, "dropout_mask": dropout_mask}
            words = {
                "variant": "v1" if weight_c is None else "v2",
                "activation": ctx.activation,
                "scale": ctx.scale,
            }
            return reference.simple_recurrence(u, x, weight_c, bias, c_0=c_0, **masks, **words)

        grads = differentiable_gradients(again, (u, x, weight_c, bias, c_0), (grad_h, grad_c_n))
        return *grads, None, None, None, None, None
    run: Any = backward_op if is_traced(u) else run_backward
    grads = run(grad_h.contiguous(), grad_c_n.contiguous(), *tensors, c, ctx.activation, ctx.scale)
    present = [None if t is None else grad for t, grad in zip(tensors[:5], grads, strict=True)]
    return *present, None, None, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup)


_eager = eager_twin(run_forward, _setup, _backward)


def simple_recurrence(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    *,
    c_0: Tensor,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    variant: str,
    activation: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.simple_recurrence`; 16-bit inputs are computed in float32 and come back as they were."""
    weight_c = None if variant == "v1" else weight_c  # which is how the operator knows
    dtype = u.dtype if u.dtype == torch.float64 else torch.float32
    dense: list[Any] = [
        None if t is None else t.to(dtype).contiguous() for t in (u, x, weight_c, bias, c_0, dropout_mask)
    ]
    pads = None if padding_mask is None else padding_mask.contiguous()
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in dense[:5])
    run: Any = forward_op if is_traced(u) else _eager if save else run_forward
    h, _, c_n = run(*dense[:5], pads, dense[5], activation, scale, save)
    return h.to(u.dtype), c_n.to(c_0.dtype)
