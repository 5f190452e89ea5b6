"""Sampled losses on a GPU: launches of triton_kernels.py, and their custom operators for torch.compile and export."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from karui.ops.eager import eager_twin
from karui.ops.sampled_logits.triton_kernels import forward_kernel, hidden_kernel, rows_kernel
from karui.ops.triton_launch import COMPILE_OPTIONS, on_device_of

BLOCK_N, BLOCK_K, BLOCK_H = 64, 64, 32  # positions, noise words, columns of a program
NUM_WARPS = 8  # with 4, the three products of 32-bit numbers spill
PRECISION = "tf32x3"  # three products of 19 bits: as exact as 32-bit products

KINDS = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


def _constants(hidden: Tensor, term: int, *, hits: bool) -> dict[str, Any]:
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    return {
        "H": hidden.shape[1],
        "TERM": term,
        "HITS": hits,
        "LIMIT": 1.0 - torch.finfo(wide).eps,
        # The interpreter, on a CPU, has no product of 16-bit numbers.
        "PRODUCT": KINDS[hidden.dtype if hidden.is_cuda else wide],
        "PRECISION": "ieee" if wide == torch.float64 else PRECISION,
        "BLOCK_N": BLOCK_N,
        "BLOCK_K": BLOCK_K,
        "BLOCK_H": min(BLOCK_H, max(16, triton.next_power_of_2(hidden.shape[1]))),
        "ACC": tl.float64 if wide == torch.float64 else tl.float32,
        "num_warps": NUM_WARPS,
        **COMPILE_OPTIONS,
    }


def _forward(
    hidden: Tensor,
    rows: Tensor,
    offset: Tensor,
    first: Tensor | None,
    target: Tensor | None,
    noise: Tensor | None,
    term: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous inputs; returns the values, the log totals and the odds, all (N,) in the dtype of offset."""
    N, K = len(hidden), len(rows)
    reduced, log_totals = offset.new_empty(N), offset.new_empty(N)
    odds = offset.new_zeros(N)
    if N:
        constants = _constants(hidden, term, hits=target is not None)
        with on_device_of(hidden):
            forward_kernel[triton.cdiv(N, BLOCK_N),](
                (hidden, rows, offset, target, noise), first, reduced, log_totals, odds, N, K, **constants
            )
    return reduced, log_totals, odds


def _gradients(
    grad: Tensor,
    hidden: Tensor,
    rows: Tensor,
    offset: Tensor,
    target: Tensor | None,
    noise: Tensor | None,
    log_totals: Tensor,
    odds: Tensor,
    term: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, rows and offset."""
    (N, H), K = hidden.shape, len(rows)
    grad_hidden, grad_rows, grad_offset = map(torch.empty_like, (hidden, rows, offset))
    if not N:
        return grad_hidden, grad_rows.zero_(), grad_offset.zero_()
    constants = _constants(hidden, term, hits=target is not None)
    columns = triton.cdiv(H, constants["BLOCK_H"])
    arrays = (hidden, rows, offset, target, noise)
    with on_device_of(hidden):
        hidden_kernel[triton.cdiv(N, BLOCK_N), columns](
            arrays, grad, log_totals, odds, grad_hidden, N, K, **constants
        )
        rows_kernel[triton.cdiv(K, BLOCK_K), columns](
            arrays, grad, log_totals, odds, grad_rows, grad_offset, N, K, **constants
        )
    return grad_hidden, grad_rows, grad_offset


forward_op = torch.library.custom_op("karui::sampled_logits_triton", _forward, mutates_args=())
backward_op = torch.library.custom_op("karui::sampled_logits_triton_backward", _gradients, mutates_args=())


@forward_op.register_fake
def _(hidden, rows, offset, first, target, noise, term):  # noqa: ANN001, ANN202, ARG001
    return tuple(offset.new_empty(hidden.shape[0]) for _ in range(3))


@backward_op.register_fake
def _(grad, hidden, rows, offset, target, noise, log_totals, odds, term):  # noqa: ANN001, ANN202, ARG001
    return torch.empty_like(hidden), torch.empty_like(rows), torch.empty_like(offset)


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.term = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _log_totals: Any, _odds: Any) -> tuple:
    if grad is None:
        return (None,) * 7
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("sampled_logits is differentiable once: choose implementation='reference'")
    hidden, rows, offset, first, target, noise, log_totals, odds = ctx.saved_tensors
    run: Any = backward_op if torch.compiler.is_compiling() else _gradients
    grads = run(grad.contiguous(), hidden, rows, offset, target, noise, log_totals, odds, ctx.term)
    grad_first = None if first is None else grad * (first - log_totals).exp() * (1 - odds)
    return *grads, grad_first, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup)
_eager = eager_twin(_forward, _setup, _backward)


def sampled_logits(
    hidden: Tensor,
    rows: Tensor,
    offset: Tensor,
    first: Tensor | None,
    target: Tensor | None,
    noise: Tensor | None,
    term: int,
) -> Tensor:
    """Shapes as in `karui.ops.sampled_logits`; CUDA tensors, or any under Triton's interpreter."""
    run: Any = forward_op if torch.compiler.is_compiling() else _eager
    dense = [None if t is None else t.contiguous() for t in (hidden, rows, offset, first, target, noise)]
    return run(*dense, term)[0]
