"""The linear recurrence on a GPU: launches of triton_kernels.py, and their operators for torch.compile and export.

T time, B batch, D directions, H hidden size, K chunks of time.
"""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import eager_twin
from karui.ops.linear_recurrence import reference
from karui.ops.linear_recurrence.triton_kernels import backward_kernel, carry_kernel, forward_kernel
from karui.ops.triton_launch import COMPILE_OPTIONS, on_device_of

AHEAD = 16  # steps whose reads are under way; one step is a single multiply-add, so many are needed
BLOCK = 32  # columns of a program: one warp, one column a thread
ENOUGH_COLUMNS = 2**15  # 250 threads a multiprocessor with 16 steps under way keep the memory of an H200 busy
SHORTEST_CHUNK = 64
MOST_CHUNKS = 128  # what one program of the carry kernel holds in registers


def chunks_of_time(T: int, columns: int) -> int:
    """Number of chunks: 1 (sequential, 3 numbers moved a step) where columns or steps are enough or few.

    Otherwise time is cut until there are four times ENOUGH_COLUMNS walks, into chunks of at least SHORTEST_CHUNK
    steps; that moves 5 numbers a step, of which 2 mostly come from the cache.
    """
    if columns >= ENOUGH_COLUMNS:
        return 1
    return max(1, min(MOST_CHUNKS, 4 * ENOUGH_COLUMNS // max(columns, 1), T // SHORTEST_CHUNK))


class _Walk:
    """Grid, constants and chunks of one pass over f (T, B, D, H)."""

    def __init__(self, f: Tensor) -> None:
        T, B, D, H = f.shape
        self.f, columns = f, B * D * H
        self.length = -(-T // chunks_of_time(T, columns))
        self.chunks = -(-T // self.length)
        self.blocks = -(-columns // BLOCK)
        self.wide = torch.float64 if f.dtype == torch.float64 else torch.float32
        self.sizes = (T, B, self.length)
        acc = tl.float64 if f.dtype == torch.float64 else tl.float32
        self.constants: dict[str, Any] = {
            "D": D,
            "H": H,
            "BLOCK": BLOCK,
            "ACC": acc,
            "num_warps": 1,
        } | COMPILE_OPTIONS

    def run(self, kernel: Any, arrays: tuple, first: Tensor, results: tuple[Tensor, ...]) -> None:
        """Launch `kernel(*arrays, first, *results, ...)`; cut in chunks, after a walk that finds their first states."""
        grid, chunked = (self.blocks, self.chunks), self.chunks > 1
        constants = self.constants | {"CHUNKED": chunked, "AHEAD": AHEAD}
        with on_device_of(self.f):
            if not chunked:
                nothing = (None, None)
                kernel[grid](*arrays, first, *results, *nothing, *self.sizes, SUMMARY=False, **constants)
                return
            _, B, D, H = self.f.shape
            summary = self.f.new_empty(3, self.chunks, B, D, H, dtype=self.wide)
            factors, addends, carried = summary.unbind(0)
            kernel[grid](*arrays, first, *results, factors, addends, *self.sizes, SUMMARY=True, **constants)
            carry_constants: dict[str, Any] = self.constants | {
                "ROWS": 1 << (self.chunks - 1).bit_length(),
                "num_warps": 4,
            }
            carry_kernel[(self.blocks,)](factors, addends, first, carried, B, self.chunks, **carry_constants)
            kernel[grid](
                *arrays, carried, *results, factors, addends, *self.sizes, SUMMARY=False, **constants
            )


def _forward(f: Tensor, b: Tensor, c_0: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Contiguous inputs; returns c (T, B, D, H) and c_n (D, B, H)."""
    c, c_n = torch.empty_like(f), torch.empty_like(c_0)
    if f.numel() == 0:
        return c, c_n.copy_(c_0)
    padding = None if padding_mask is None else padding_mask.view(torch.uint8)
    _Walk(f).run(forward_kernel, ((f, b, padding),), c_0, (c, c_n))
    return c, c_n


def _gradients(
    grad_c: Tensor,
    grad_c_n: Tensor,
    f: Tensor,
    b: Tensor,
    c_0: Tensor,
    padding_mask: Tensor | None,
    c: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of f, b and c_0."""
    grad_f, grad_b, grad_c_0 = torch.empty_like(f), torch.empty_like(b), torch.empty_like(c_0)
    if f.numel() == 0:
        return grad_f, grad_b, grad_c_0.copy_(grad_c_n)
    padding = None if padding_mask is None else padding_mask.view(torch.uint8)
    arrays = ((f, c, grad_c, padding), c_0)
    _Walk(f).run(backward_kernel, arrays, grad_c_n, (grad_f, grad_b, grad_c_0))
    return grad_f, grad_b, grad_c_0


forward_op = torch.library.custom_op("karui::linear_recurrence_triton", _forward, mutates_args=())
backward_op = torch.library.custom_op("karui::linear_recurrence_triton_backward", _gradients, mutates_args=())


@forward_op.register_fake
def _(f, b, c_0, padding_mask):  # noqa: ANN001, ANN202, ARG001
    return torch.empty_like(f), torch.empty_like(c_0)


@backward_op.register_fake
def _(grad_c, grad_c_n, f, b, c_0, padding_mask, c):  # noqa: ANN001, ANN202, ARG001
    return torch.empty_like(f), torch.empty_like(b), torch.empty_like(c_0)


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, output[0])
    ctx.set_materialize_grads(False)  # most losses read one of the two outputs


def _backward(ctx, grad_c, grad_c_n):  # noqa: ANN001, ANN202
    f, b, c_0, padding_mask, c = ctx.saved_tensors
    grad_c = torch.zeros_like(f) if grad_c is None else grad_c.contiguous()
    grad_c_n = torch.zeros_like(c_0) if grad_c_n is None else grad_c_n.contiguous()
    if torch.is_grad_enabled():  # gradients of these gradients will be asked for

        def again(f: Tensor, b: Tensor, c_0: Tensor) -> tuple[Tensor, Tensor]:
            return reference.linear_recurrence(f, b, c_0=c_0, padding_mask=padding_mask)

        return *differentiable_gradients(again, (f, b, c_0), (grad_c, grad_c_n)), None
    run = backward_op if torch.compiler.is_compiling() else _gradients
    return *run(grad_c, grad_c_n, f, b, c_0, padding_mask, c), None


forward_op.register_autograd(_backward, setup_context=_setup)


_eager = eager_twin(_forward, _setup, _backward)


def linear_recurrence(
    f: Tensor, b: Tensor, *, c_0: Tensor, padding_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.linear_recurrence`; CUDA tensors, or any under Triton's interpreter."""
    dense = [None if t is None else t.contiguous() for t in (f, b, c_0, padding_mask)]
    run: Any = forward_op if torch.compiler.is_compiling() else _eager
    return run(*dense)
