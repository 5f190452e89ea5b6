"""The compiled recurrence, registered as the custom operators `karui::linear_recurrence` and its backward."""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.choice import is_traced
from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import addresses, eager_twin
from karui.ops.linear_recurrence import reference


def _sizes(f: Tensor) -> object:
    return _native.LinearSizes(*f.shape, torch.get_num_threads())


def run_forward(f: Tensor, b: Tensor, c_0: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Contiguous inputs of one dtype, float32 or float64; returns c (T, B, D, H) and c_n (D, B, H)."""
    c, c_n = torch.empty_like(f), torch.empty_like(c_0)
    arrays = addresses(f, b, c_0, padding_mask, c, c_n)
    _native.linear_forward(_sizes(f), f.dtype == torch.float64, arrays)
    return c, c_n


# Autograd knows the plain functions through _eager, a compiler knows them as operators: those cost more a call.
forward_op = torch.library.custom_op(
    "karui::linear_recurrence", run_forward, mutates_args=(), device_types="cpu"
)


@forward_op.register_fake
def _(f, b, c_0, padding_mask):  # noqa: ANN001, ANN202, ARG001
    return torch.empty_like(f), torch.empty_like(c_0)


def run_backward(
    grad_c: Tensor, grad_c_n: Tensor, f: Tensor, c_0: Tensor, padding_mask: Tensor | None, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of f, b and c_0."""
    grad_f, grad_b, grad_c_0 = torch.empty_like(f), torch.empty_like(f), torch.empty_like(c_0)
    arrays = addresses(f, c_0, padding_mask, c, grad_c, grad_c_n, grad_f, grad_b, grad_c_0)
    _native.linear_backward(_sizes(f), f.dtype == torch.float64, arrays)
    return grad_f, grad_b, grad_c_0


backward_op = torch.library.custom_op(
    "karui::linear_recurrence_backward", run_backward, mutates_args=(), device_types="cpu"
)


@backward_op.register_fake
def _(grad_c, grad_c_n, f, c_0, padding_mask, c):  # noqa: ANN001, ANN202, ARG001
    return torch.empty_like(f), torch.empty_like(f), torch.empty_like(c_0)


def _setup(ctx, inputs, output) -> None:  # noqa: ANN001
    ctx.save_for_backward(*inputs, output[0])
    ctx.set_materialize_grads(False)  # most losses read one of the two outputs


def _backward(ctx, grad_c, grad_c_n):  # noqa: ANN001, ANN202
    f, b, c_0, padding_mask, c = ctx.saved_tensors
    grad_c = torch.zeros_like(f) if grad_c is None else grad_c
    grad_c_n = torch.zeros_like(c_0) if grad_c_n is None else grad_c_n
    if torch.is_grad_enabled():  # gradients of these gradients will be asked for

        def again(f: Tensor, b: Tensor, c_0: Tensor) -> tuple[Tensor, Tensor]:
            return reference.linear_recurrence(f, b, c_0=c_0, padding_mask=padding_mask)

        return *differentiable_gradients(again, (f, b, c_0), (grad_c, grad_c_n)), None
    run: Any = backward_op if is_traced(f) else run_backward
    return *run(grad_c.contiguous(), grad_c_n.contiguous(), f, c_0, padding_mask, c), None


forward_op.register_autograd(_backward, setup_context=_setup)


_eager = eager_twin(run_forward, _setup, _backward)


def linear_recurrence(
    f: Tensor, b: Tensor, *, c_0: Tensor, padding_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.linear_recurrence`; 16-bit inputs are computed in float32 and come back as they were."""
    dtype = f.dtype if f.dtype == torch.float64 else torch.float32
    dense = [t.to(dtype).contiguous() for t in (f, b, c_0)]
    pads = None if padding_mask is None else padding_mask.contiguous()
    save = torch.is_grad_enabled() and any(t.requires_grad for t in dense)
    run: Any = forward_op if is_traced(f) else _eager if save else run_forward
    c, c_n = run(*dense, pads)
    return c.to(f.dtype), c_n.to(c_0.dtype)
