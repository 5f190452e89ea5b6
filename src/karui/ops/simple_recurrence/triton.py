"""The scan on a GPU: launches of triton_kernels.py, and their custom operators for torch.compile and export.

T time, B batch, D directions, G gate blocks, H hidden size. A call outside a compiled graph goes through a plain
autograd function: the dispatcher of a custom operator costs more than the kernel at the sizes of most models.
"""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import eager_twin
from karui.ops.simple_recurrence import reference
from karui.ops.simple_recurrence.triton_kernels import backward_kernel, forward_kernel
from karui.ops.triton_launch import COMPILE_OPTIONS, on_device_of

ACTIVATIONS = ("identity", "tanh", "relu")
AHEAD = 8  # steps whose reads are under way: about 8 x 90 cycles of arithmetic, the latency of HBM
BLOCK = 32  # columns of a program: one warp, one column a thread, so that few columns still reach every multiprocessor


def _launch(u: Tensor, *, variant: str, activation: str, scale: float) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and compile-time arguments for an input of this shape and dtype."""
    _, B, D, G, H = u.shape
    constants = {
        "D": D,
        "G": G,
        "H": H,
        "SCALE": scale,
        "V1": variant == "v1",
        "ACTIVATION": ACTIVATIONS.index(activation),
        "BLOCK": BLOCK,
        "AHEAD": AHEAD,
        "ACC": tl.float64 if u.dtype == torch.float64 else tl.float32,
        "num_warps": 1,
    }
    return (-(-B * D * H // BLOCK),), constants | COMPILE_OPTIONS


def _outputs(u: Tensor, c_0: Tensor, *, keep_states: bool) -> tuple[Tensor, Tensor, Tensor]:
    T, B, D, _, H = u.shape
    return u.new_empty(T, B, D * H), u.new_empty((T, B, D, H) if keep_states else 0), torch.empty_like(c_0)


def _forward(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    c_0: Tensor,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    variant: str,
    activation: str,
    scale: float,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous inputs; returns h (T, B, D*H), the states c (T, B, D, H) or nothing, and c_n (D, B, H)."""
    h, c, c_n = _outputs(u, c_0, keep_states=keep_states)
    if u.numel() == 0:
        return h, c, c_n.copy_(c_0)
    grid, constants = _launch(u, variant=variant, activation=activation, scale=scale)
    padding = None if padding_mask is None else padding_mask.view(torch.uint8)
    with on_device_of(u):
        forward_kernel[grid](
            (u, x, padding), (weight_c, bias), c_0, dropout_mask, h, c if keep_states else None, c_n,
            u.shape[0], u.shape[1], **constants,
        )  # fmt: skip
    return h, c, c_n


def _gradients(
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
    variant: str,
    activation: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, x (empty when there is none), bias and weight_c stacked (1 or 2, D, 2, H), and c_0."""
    T, B, D, _, H = u.shape
    grad_u, grad_c_0 = torch.empty_like(u), torch.empty_like(c_0)
    grad_x = u.new_empty(0) if x is None else torch.empty_like(x)
    kinds = 1 if variant == "v1" else 2
    if u.numel() == 0:
        return grad_u, grad_x, bias.new_zeros(kinds, D, 2, H), grad_c_0.copy_(grad_c_n)
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    sums = u.new_empty(B, kinds, D, 2, H, dtype=wide)
    grid, constants = _launch(u, variant=variant, activation=activation, scale=scale)
    padding = None if padding_mask is None else padding_mask.view(torch.uint8)
    with on_device_of(u):
        backward_kernel[grid](
            (u, x, padding), (weight_c, bias), c_0, dropout_mask, c, grad_h, grad_c_n,
            grad_u, None if x is None else grad_x, sums, grad_c_0, T, B, **constants,
        )  # fmt: skip
    return grad_u, grad_x, sums.sum(0).to(bias.dtype), grad_c_0


forward_op = torch.library.custom_op("karui::simple_recurrence_triton", _forward, mutates_args=())
backward_op = torch.library.custom_op("karui::simple_recurrence_triton_backward", _gradients, mutates_args=())


@forward_op.register_fake
def _(u, x, weight_c, bias, c_0, padding_mask, dropout_mask, variant, activation, scale, keep_states):  # noqa: ANN001, ANN202, ARG001
    return _outputs(u, c_0, keep_states=keep_states)


@backward_op.register_fake
def _(grad_h, grad_c_n, u, x, weight_c, bias, c_0, padding_mask, dropout_mask, c, variant, activation, scale):  # noqa: ANN001, ANN202, ARG001
    _, _, D, _, H = u.shape
    grad_x = u.new_empty(0) if x is None else torch.empty_like(x)
    kinds = 1 if variant == "v1" else 2
    return torch.empty_like(u), grad_x, bias.new_empty(kinds, D, 2, H), torch.empty_like(c_0)


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.variant, ctx.activation, ctx.scale, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros for the states would cost as much as the output


def _backward(ctx, grad_h, _grad_c, grad_c_n):  # noqa: ANN001, ANN202
    *inputs, c = ctx.saved_tensors
    u, x, weight_c, bias, c_0, padding_mask, dropout_mask = inputs
    T, B, D, _, H = u.shape
    grad_h = u.new_zeros(T, B, D * H) if grad_h is None else grad_h.contiguous()
    grad_c_n = torch.zeros_like(c_0) if grad_c_n is None else grad_c_n.contiguous()
    settings = ctx.variant, ctx.activation, ctx.scale
    if torch.is_grad_enabled():  # gradients of these gradients will be asked for

        def again(*inputs: Any) -> tuple[Tensor, Tensor]:
            masks = {"padding_mask": padding_mask, "dropout_mask": dropout_mask}
            words = dict(zip(("variant", "activation", "scale"), settings, strict=True))
            return reference.simple_recurrence(*inputs[:4], c_0=inputs[4], **masks, **words)

        return *differentiable_gradients(again, inputs[:5], (grad_h, grad_c_n)), *[None] * 6
    run = backward_op if torch.compiler.is_compiling() else _gradients
    grad_u, grad_x, grad_gates, grad_c_0 = run(
        grad_h, grad_c_n, u, x, weight_c, bias, c_0, padding_mask, dropout_mask, c, *settings
    )
    grad_weight_c = None if ctx.variant == "v1" else grad_gates[1]
    return grad_u, None if x is None else grad_x, grad_weight_c, grad_gates[0], grad_c_0, *[None] * 6


forward_op.register_autograd(_backward, setup_context=_setup)


_eager = eager_twin(_forward, _setup, _backward)


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
    """Shapes as in `karui.ops.simple_recurrence`; CUDA tensors, or any under Triton's interpreter."""
    weight_c = None if variant == "v1" else weight_c
    dense = [
        None if t is None else t.contiguous() for t in (u, x, weight_c, bias, c_0, padding_mask, dropout_mask)
    ]
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in dense)
    run: Any = forward_op
    if not torch.compiler.is_compiling():
        run = _eager if differentiable else _forward
    h, _, c_n = run(*dense, variant, activation, scale, differentiable)
    return h, c_n
