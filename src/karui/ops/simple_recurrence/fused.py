"""A layer's products and scan together: one native call forward, one backward. CPU, one direction, 32 or 64 bits.

T time, B batch, I input features, G gate blocks, H hidden size.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from karui import _native
from karui.ops import buffers
from karui.ops.choice import FULL_DTYPES, is_traced
from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import addresses
from karui.ops.simple_recurrence import reference
from karui.ops.simple_recurrence.cpu import ACTIVATIONS

CHUNK_ROWS = 0  # time steps times batch; 0: what fits the cache


class Words(NamedTuple):
    """What is no tensor. skip_is_input: x is the skip input as well, and `skip` is None."""

    activation: str
    scale: float
    skip_is_input: bool


def can_run(
    x: Tensor,
    weight: Tensor,
    weight_c: Tensor | None,
    bias: Tensor,
    c_0: Tensor | None,
    implementation: str | None,
) -> bool:
    """Tell whether this file computes the layer; the caller multiplies and scans apart where it does not."""
    return (
        implementation in (None, "cpp")
        and x.dtype in FULL_DTYPES
        and all(t is None or (t.is_cpu and t.dtype == x.dtype) for t in (x, weight, weight_c, bias, c_0))
        and not torch.is_autocast_enabled("cpu")
        and not is_traced(x, weight)
    )


def fits(
    x: Tensor,
    weight: Tensor,
    skip: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    c_0: Tensor | None,
) -> bool:
    """Tell whether sizes are those of one direction; the way apart takes the others, or says by name what is wrong."""
    if x.dim() != 3 or weight.dim() != 2:
        return False
    (T, B, width), H = x.shape, bias.numel() // 2
    blocks = 3 if weight.shape[0] == 3 * H else 4
    return (
        weight.shape == (blocks * H, width)
        and (skip is None or (blocks == 3 and skip.dtype == x.dtype and skip.shape == (T, B, H)))
        and bias.shape in ((2 * H,), (1, 2, H))
        and (weight_c is None or weight_c.shape == bias.shape)
        and (c_0 is None or c_0.shape == (1, B, H))
    )


_sizes = lru_cache(64)(_native.LayerSizes)  # they never change


def run_forward(
    x: Tensor,
    weight: Tensor,
    skip: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    c_0: Tensor | None,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    words: Words,
    *,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Any]:
    """Contiguous inputs of one dtype; x (T, B, I), weight (G*H, I), skip (T, B, H), c_0 None for zeros, the rest as in
    the scan, weight_c and bias also (2*H,).

    Returns h (T, B, H), c_n (1, B, H) and what the backward reads: the kept gates and states, None unless `save`, in
    an order of the native core's own, and the sizes that say how they lie.
    """
    T, B, width = x.shape
    H = bias.numel() // 2
    sizes = _sizes(
        T, B, width, weight.shape[0] // H, H, ACTIVATIONS.index(words.activation), words.scale,
        torch.get_num_threads(), CHUNK_ROWS, x.dtype == torch.float64,
    )  # fmt: skip
    h, c_n = x.new_empty(T, B, H), x.new_empty(1, B, H)
    scratch = buffers.new_empty(x, sizes.forward)
    kept = buffers.new_empty(x, sizes.kept) if save else None
    source = x if words.skip_is_input else skip
    arrays = (x, weight, source, weight_c, bias, c_0, dropout_mask, padding_mask, h, c_n, kept, scratch)
    _native.layer_forward(sizes, addresses(*arrays))
    return h, c_n, kept, sizes


def run_backward(
    grad_h: Tensor,
    grad_c_n: Tensor | None,
    tensors: tuple[Any, ...],
    words: Words,
    sizes: Any,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight, skip, weight_c, bias, c_0; None where not wanted, but for weight_c and bias.

    grad_c_n: None stands for zeros.
    """
    x, weight, skip, weight_c, bias, c_0, padding_mask, dropout_mask, kept = tensors
    gradients = (
        torch.empty_like(x) if wanted[0] else None,
        torch.empty_like(weight) if wanted[1] else None,
        torch.empty_like(skip) if skip is not None and wanted[2] else None,
        None if weight_c is None else torch.empty_like(weight_c),
        torch.empty_like(bias),
        torch.empty_like(c_0) if c_0 is not None and wanted[5] else None,
    )
    source = x if words.skip_is_input else skip
    forward = (x, weight, source, weight_c, bias, c_0, dropout_mask, padding_mask, None, None, kept, None)
    scratch = buffers.new_empty(x, sizes.backward)
    _native.layer_backward(sizes, addresses(*forward), addresses(grad_h, grad_c_n, *gradients, scratch))
    return gradients


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        *tensors, ctx.words = inputs
        h, c_n, kept, ctx.sizes = run_forward(*inputs, save=True)
        ctx.save_for_backward(*tensors, kept)
        ctx.set_materialize_grads(False)  # zeros for the states would cost as much as the output
        return h, c_n

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        tensors, words = ctx.saved_tensors, ctx.words
        x, _, _, _, bias, _, padding_mask, dropout_mask, _ = tensors
        (T, B, _), H = x.shape, bias.numel() // 2
        grad_h, grad_c_n = grad_outputs
        grad_h = x.new_zeros(T, B, H) if grad_h is None else grad_h.contiguous()
        grad_c_n = None if grad_c_n is None else grad_c_n.contiguous()
        if torch.is_grad_enabled():  # gradients of these gradients will be asked for

            def again(
                x: Tensor,
                weight: Tensor,
                skip: Tensor | None,
                weight_c: Tensor | None,
                bias: Tensor,
                c_0: Tensor | None,
            ) -> tuple[Tensor, Tensor]:
                u = F.linear(x, weight).view(T, B, 1, -1, H)
                return reference.simple_recurrence(
                    u,
                    x if words.skip_is_input else skip,
                    None if weight_c is None else weight_c.view(1, 2, H),
                    bias.view(1, 2, H),
                    c_0=x.new_zeros(1, B, H) if c_0 is None else c_0,
                    padding_mask=padding_mask,
                    dropout_mask=dropout_mask,
                    variant="v1" if weight_c is None else "v2",
                    activation=words.activation,
                    scale=words.scale,
                )

            return *differentiable_gradients(again, tensors[:6], (grad_h, grad_c_n)), None, None, None
        gradients = run_backward(grad_h, grad_c_n, tensors, words, ctx.sizes, ctx.needs_input_grad)
        return *gradients, None, None, None


def simple_recurrence_layer(
    x: Tensor,
    weight: Tensor,
    skip: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    *,
    c_0: Tensor | None,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    activation: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `simple_recurrence_layer` of the package, where it `can_run` and `fits`; weight_c None is v1."""
    tensors = (x, weight, None if skip is x else skip, weight_c, bias, c_0, padding_mask, dropout_mask)
    inputs: list[Any] = [None if t is None else t.contiguous() for t in tensors]
    inputs.append(Words(activation, scale, skip_is_input=skip is x))
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs[:6]):
        return _Layer.apply(*inputs)
    return run_forward(*inputs, save=False)[:2]
