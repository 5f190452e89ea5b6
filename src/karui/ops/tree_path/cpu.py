"""The compiled walk: one pass over the rows of the nodes met gives values and gradients of hidden at once."""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import addresses
from karui.ops.sparse_rows import spread_rows
from karui.ops.tree_path import reference


class _TreePath(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, steps: tuple, sparse: bool, save: bool
    ) -> Tensor:
        N, H = hidden.shape
        nodes, codes, offsets = steps
        log_prob = hidden.new_empty(N)
        slope = hidden.new_empty(len(nodes)) if save else None
        direction = torch.empty_like(hidden) if save else None
        arrays = (hidden, weight, bias, nodes, codes, offsets, log_prob, slope, direction)
        _native.tree_path_forward(
            N, H, torch.get_num_threads(), hidden.dtype == torch.float64, addresses(*arrays)
        )
        if save:
            ctx.save_for_backward(hidden, weight, bias, nodes, codes, offsets, slope, direction)
            ctx.sparse = sparse
        return log_prob

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        hidden, weight, bias, nodes, codes, offsets, slope, direction = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of these gradients will be asked for

            def again(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor]:
                steps = {"nodes": nodes, "codes": codes, "offsets": offsets}
                return (reference.tree_path(hidden, weight, bias, **steps),)

            return *differentiable_gradients(again, (hidden, weight, bias), (grad,)), None, None, None
        grad = grad.contiguous()
        grad_hidden = direction * grad[:, None] if ctx.needs_input_grad[0] else None
        grad_weight = grad_bias = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            ids, rows, biases = _rows(hidden, slope, grad, nodes, offsets, has_bias=bias is not None)
            grad_weight = spread_rows(ids, rows, weight, sparse=ctx.sparse)
            if bias is not None and biases is not None:
                grad_bias = spread_rows(ids, biases, bias, sparse=ctx.sparse)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _rows(
    hidden: Tensor, slope: Tensor, grad: Tensor, nodes: Tensor, offsets: Tensor, *, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Nodes met (U,), ascending; the rows (U, H) of the gradient of weight, and those of bias (U,)."""
    (N, H), L = hidden.shape, len(nodes)
    unique, starts, order, rows = (nodes.new_empty(n, dtype=torch.int64) for n in (L, L + 1, L, L))
    U = _native.tree_group(N, addresses(offsets, nodes, unique, starts, order, rows))
    of_weight = hidden.new_empty(U, H)
    of_bias = hidden.new_empty(U) if has_bias else None
    arrays = (hidden, slope, grad, starts, order, rows, of_weight, of_bias)
    threads = torch.get_num_threads()
    _native.tree_path_backward(N, H, threads, hidden.dtype == torch.float64, U, addresses(*arrays))
    return unique[:U].clone(), of_weight, of_bias


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
    """Shapes as in `karui.ops.tree_path`; float32 or float64, all of one dtype."""
    floats = [None if t is None else t.contiguous() for t in (hidden, weight, bias)]
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in floats)
    steps = (nodes.contiguous(), codes.contiguous(), offsets.contiguous())
    return _TreePath.apply(*floats, steps, sparse, save)  # type: ignore[return-value]


def search_tree(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, children: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """As in `karui.ops.tree_path`."""
    N, H = hidden.shape
    dense = [None if t is None else t.detach().contiguous() for t in (hidden, weight, bias, children)]
    log_prob, ids = hidden.new_empty(N, k), children.new_empty(N, k, dtype=torch.int64)
    double = hidden.dtype == torch.float64
    _native.tree_search(N, H, torch.get_num_threads(), double, k, addresses(*dense, log_prob, ids))
    return log_prob, ids


def leaf_paths(parent: Tensor, depth: Tensor, leaves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As in `karui.ops.tree_path`; leaves must be in range, which the caller has checked."""
    offsets = torch.zeros(len(leaves) + 1, dtype=torch.int64)
    torch.cumsum(depth[leaves], 0, out=offsets[1:])
    L = int(offsets[-1])
    nodes, codes = torch.empty(L, dtype=torch.int32), torch.empty(L, dtype=torch.uint8)
    leaves = leaves.contiguous()
    _native.huffman_paths(len(leaves), len(depth), addresses(leaves, parent, offsets, nodes, codes))
    return nodes, codes, offsets


def build_huffman(counts: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """As in `karui.ops.tree_path`."""
    V = len(counts)
    parent, depth = torch.empty(2 * V - 1, dtype=torch.int32), torch.empty(V, dtype=torch.uint8)
    log_odds = torch.empty(V - 1, dtype=torch.float64)
    counts = counts.contiguous()
    levels = _native.huffman_build(V, addresses(counts, parent, log_odds, depth))
    return parent, depth, log_odds, levels
