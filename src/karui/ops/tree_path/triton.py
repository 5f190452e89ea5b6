"""Paths through a tree on a GPU: launches of triton_kernels.py, and their operators for torch.compile and export.

N rows, H hidden size, L steps of all paths together, M nodes, U nodes met.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from karui.ops.choice import is_traced
from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import eager_twin
from karui.ops.sparse_rows import sparse_rows
from karui.ops.tree_path import reference
from karui.ops.tree_path.triton_kernels import forward_kernel, node_kernel, paths_kernel, piece_kernel
from karui.ops.triton_launch import COMPILE_OPTIONS, on_device_of

TILE = 4096  # numbers of weight that a program reads at once: as many rows as that holds, at most MOST_STEPS
MOST_STEPS = 8
COLUMNS, ROWS = 128, 16  # of a program that adds up rows: columns, and rows read at once
PIECE = 64  # steps of a node that one program adds up; below this, longer stretches only cost a second sum
LEAVES = 128  # of a program that writes paths


def _wide(dtype: torch.dtype) -> tuple[torch.dtype, Any]:
    """What sums are made in, for torch and for Triton."""
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    nodes: Tensor,
    codes: Tensor,
    offsets: Tensor,
    save: bool,
    sparse: bool,  # noqa: ARG001 (the backward reads it)
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous inputs; log_prob (N,), and with save slope (L,), rows (L,) int32 and direction (N, H), else empty."""
    (N, H), L = hidden.shape, len(nodes)
    wide, acc = _wide(hidden.dtype)
    log_prob = hidden.new_empty(N, dtype=wide)
    slope, rows = hidden.new_empty(L * save, dtype=wide), nodes.new_empty(L * save)
    direction = hidden.new_empty(N * save, H, dtype=wide)
    if N:
        block = triton.next_power_of_2(max(H, 1))
        constants: dict[str, Any] = {"H": H, "SAVE": save, "BLOCK": block, "ACC": acc, **COMPILE_OPTIONS}
        constants["STEPS"] = steps = max(1, min(MOST_STEPS, TILE // block))
        constants["num_warps"] = max(1, min(8, steps * block // 1024))
        with on_device_of(hidden):
            forward_kernel[(N,)](
                hidden, weight, bias, nodes, codes, offsets, log_prob, slope, rows, direction, **constants
            )
    return log_prob, slope, rows, direction


def _table_gradients(
    grad: Tensor, hidden: Tensor, nodes: Tensor, slope: Tensor, rows: Tensor, M: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes met (U,), ascending, and the gradients of weight and of a bias, (M, H) and (M,), of hidden's dtype.

    M None: only the rows of the nodes met, (U, H) and (U,).
    """
    H, L = hidden.shape[1], len(nodes)
    met, order = nodes.sort(stable=True)
    unique, counts = torch.unique_consecutive(met, return_counts=True)
    U, unique = len(unique), unique.long()
    starts = torch.zeros(U + 1, dtype=torch.int64, device=nodes.device)
    torch.cumsum(counts, 0, out=starts[1:])
    make = hidden.new_empty if M is None else hidden.new_zeros
    of_weight, of_bias = make(U if M is None else M, H), make(U if M is None else M)
    if U:
        wide, acc = _wide(hidden.dtype)
        pieces = hidden.new_empty(L // PIECE, H, dtype=wide), hidden.new_empty(L // PIECE, dtype=wide)
        block = min(COLUMNS, triton.next_power_of_2(max(H, 1)))
        constants: dict[str, Any] = {"H": H, "PIECE": PIECE, "ROWS": ROWS, "BLOCK": block, "ACC": acc}
        constants |= COMPILE_OPTIONS
        steps, columns = (hidden, grad, slope, rows, order), max(1, triton.cdiv(H, block))
        places = None if M is None else unique
        with on_device_of(hidden):
            if L >= PIECE:
                piece_kernel[L // PIECE, columns](steps, met, *pieces, **constants)
            node_kernel[U, columns](steps, starts, places, *pieces, of_weight, of_bias, **constants)
    return unique, of_weight, of_bias


def _dense_gradients(
    grad: Tensor, hidden: Tensor, nodes: Tensor, slope: Tensor, rows: Tensor, M: int
) -> tuple[Tensor, Tensor]:
    """Gradients of weight (M, H) and of a bias (M,)."""
    return _table_gradients(grad, hidden, nodes, slope, rows, M)[1:]


def _sparse_gradients(
    grad: Tensor, hidden: Tensor, nodes: Tensor, slope: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes met (U,), ascending, and their rows (U, H) and (U,) of the gradients of weight and of a bias."""
    return _table_gradients(grad, hidden, nodes, slope, rows, None)


forward_op = torch.library.custom_op("karui::tree_path_triton", _forward, mutates_args=())
dense_op = torch.library.custom_op("karui::tree_path_triton_dense", _dense_gradients, mutates_args=())
sparse_op = torch.library.custom_op("karui::tree_path_triton_sparse", _sparse_gradients, mutates_args=())


@forward_op.register_fake
def _(hidden, weight, bias, nodes, codes, offsets, save, sparse):  # noqa: ANN001, ANN202, ARG001
    (N, H), L, (wide, _) = hidden.shape, nodes.shape[0], _wide(hidden.dtype)
    sizes = (N, H, L) if save else (0, H, 0)
    slope, rows = hidden.new_empty(sizes[2], dtype=wide), nodes.new_empty(sizes[2])
    return hidden.new_empty(N, dtype=wide), slope, rows, hidden.new_empty(*sizes[:2], dtype=wide)


@dense_op.register_fake
def _(grad, hidden, nodes, slope, rows, M):  # noqa: ANN001, ANN202, ARG001
    return hidden.new_empty(M, hidden.shape[1]), hidden.new_empty(M)


@sparse_op.register_fake
def _(grad, hidden, nodes, slope, rows):  # noqa: ANN001, ANN202, ARG001
    U = torch.library.get_ctx().new_dynamic_size()
    return nodes.new_empty(U, dtype=torch.int64), hidden.new_empty(U, hidden.shape[1]), hidden.new_empty(U)


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, _, ctx.sparse = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple:
    if grad is None:
        return (None,) * 8
    hidden, weight, bias, nodes, codes, offsets, slope, rows, direction = ctx.saved_tensors
    traced = torch.compiler.is_compiling() or is_traced(grad)
    if torch.is_grad_enabled() and not traced:  # gradients of these gradients will be asked for

        def again(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor]:
            steps = {"nodes": nodes, "codes": codes, "offsets": offsets}
            return (reference.tree_path(hidden, weight, bias, **steps),)

        return *differentiable_gradients(again, (hidden, weight, bias), (grad,)), *[None] * 5
    grad = grad.contiguous()
    grad_hidden = (direction * grad[:, None]).to(hidden.dtype) if ctx.needs_input_grad[0] else None
    of_weight = of_bias = None
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        arrays = (grad, hidden, nodes, slope, rows)
        if ctx.sparse:
            run: Any = sparse_op if traced else _sparse_gradients
            unique, *values = run(*arrays)
            of_weight, of_bias = (
                None if table is None else sparse_rows(unique, rows, table.shape)
                for rows, table in zip(values, (weight, bias), strict=True)
            )
        else:
            run = dense_op if traced else _dense_gradients
            of_weight, of_bias = run(*arrays, weight.shape[0])
    return grad_hidden, of_weight, None if bias is None else of_bias, *[None] * 5


forward_op.register_autograd(_backward, setup_context=_setup)
_eager = eager_twin(_forward, _setup, _backward)


def tree_path(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    nodes: Tensor,
    codes: Tensor,
    offsets: Tensor,
    sparse: bool = False,
) -> Tensor:
    """Shapes as in `karui.ops.tree_path`; CUDA tensors, or any under Triton's interpreter."""
    floats = [None if t is None else t.contiguous() for t in (hidden, weight, bias)]
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in floats)
    run: Any = forward_op if is_traced(hidden) else _eager
    steps = (nodes.contiguous(), codes.contiguous(), offsets.contiguous())
    return run(*floats, *steps, save, sparse)[0]


def _leaf_paths(parent: Tensor, depth: Tensor, leaves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    N, V = len(leaves), len(depth)
    offsets = torch.zeros(N + 1, dtype=torch.int64, device=leaves.device)
    torch.cumsum(depth[leaves], 0, out=offsets[1:])
    L = int(offsets[-1])
    nodes, codes = parent.new_empty(L), depth.new_empty(L)
    if L:
        arrays = (parent, parent[V - 1 :], depth, leaves, offsets, nodes, codes)
        constants: dict[str, Any] = {"BLOCK": LEAVES, **COMPILE_OPTIONS}
        with on_device_of(parent):
            paths_kernel[triton.cdiv(N, LEAVES),](*arrays, N, **constants)
    return nodes, codes, offsets


paths_op = torch.library.custom_op("karui::leaf_paths_triton", _leaf_paths, mutates_args=())


@paths_op.register_fake
def _(parent, depth, leaves):  # noqa: ANN001, ANN202
    L = torch.library.get_ctx().new_dynamic_size()
    return parent.new_empty(L), depth.new_empty(L), leaves.new_empty(leaves.shape[0] + 1)


def leaf_paths(parent: Tensor, depth: Tensor, leaves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As in `karui.ops.tree_path`; one wait for the GPU, which alone knows the number of steps."""
    run: Any = paths_op if is_traced(leaves) else _leaf_paths
    return run(parent.contiguous(), depth.contiguous(), leaves.contiguous())
