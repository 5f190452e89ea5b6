"""Rows of a large table: gathered, scored, and given a gradient that has no more rows than were used.

N positions, H hidden size, V rows of the table, K noise rows of a set, S sets, U different rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from karui.output.base import exact_dtype

SPARSE_FROM = 50_000  # classes: below, one dense gradient is cheaper than its bookkeeping


def use_sparse(sparse: bool | str, n_classes: int) -> bool:
    """Whether gradients are sparse: True and False are orders, "auto" decides by the number of classes."""
    if sparse not in (True, False, "auto"):
        raise ValueError(f"sparse must be True, False or 'auto', got {sparse!r}")
    return n_classes >= SPARSE_FROM if sparse == "auto" else bool(sparse)


def row_gradient(
    shape: Sequence[int], parts: Sequence[tuple[Tensor, Tensor]], *, dtype: torch.dtype, sparse: bool
) -> Tensor:
    """Sum of rows as the gradient of a table of `shape` (V, ...): parts are pairs of ids (n,) and values (n, ...).

    sparse: a coalesced `torch.sparse_coo` tensor of the U different rows, summed in at least float32; else dense.
    """
    wide = exact_dtype(dtype)
    if sparse:
        ids = torch.cat([ids for ids, _ in parts])
        rows, place = torch.unique(ids, return_inverse=True)
        places = place.split([len(ids) for ids, _ in parts])
    else:
        rows, places = None, [ids for ids, _ in parts]
    total = parts[0][1].new_zeros((shape[0] if rows is None else len(rows), *shape[1:]), dtype=wide)
    for place, (_, values) in zip(places, parts, strict=True):
        total.index_add_(0, place, values.to(wide))
    total = total.to(dtype)
    if rows is None:
        return total
    return torch.sparse_coo_tensor(
        rows.unsqueeze(0), total, tuple(shape), is_coalesced=True, check_invariants=False
    )


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.dtype, ctx.sparse = table.shape, table.dtype, sparse
        return table.index_select(0, ids.reshape(-1)).view(*ids.shape, *table.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (ids,) = ctx.saved_tensors
        values = grads[0].reshape(-1, *ctx.shape[1:])
        gradient = row_gradient(ctx.shape, [(ids.reshape(-1), values)], dtype=ctx.dtype, sparse=ctx.sparse)
        return gradient, None, None


def gather_rows(
    weight: Tensor, bias: Tensor | None, ids: Tensor, *, sparse: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Rows of weight (V, H) and bias (V,) at ids (...): (..., H) and (...), None without a bias.

    The gradients are coalesced `torch.sparse_coo` tensors of the rows used, or with sparse=False one dense sum each.
    """
    rows: Any = _GatherRows.apply(weight, ids, sparse)
    values: Any = None if bias is None else _GatherRows.apply(bias, ids, sparse)
    return rows, values


def split_bounds(n: int, splits: int) -> list[tuple[int, int]]:
    """`splits` ranges that cover [0, n), as equal as they can be; some are empty where n is smaller."""
    return [(n * i // splits, n * (i + 1) // splits) for i in range(splits)]


class _SampledScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        noise: Tensor,
        sparse: bool,
        dtype: torch.dtype,
    ) -> Any:
        n, wide, bounds = len(target), exact_dtype(dtype), split_bounds(len(target), noise.shape[0])
        x = hidden.to(dtype)
        target_rows = weight.index_select(0, target).to(dtype)  # (N, H)
        noise_rows = weight.index_select(0, noise.reshape(-1)).to(dtype).view(*noise.shape, -1)  # (S, K, H)
        of_target = (x.to(wide) * target_rows.to(wide)).sum(1)
        of_noise = x.new_empty((n, noise.shape[1]), dtype=wide)
        for rows, (a, b) in zip(noise_rows, bounds, strict=True):
            torch_mm_into(of_noise[a:b], x[a:b], rows.t())
        if bias is not None:
            of_target += bias.index_select(0, target).to(wide)
            added = bias.index_select(0, noise.reshape(-1)).to(wide).view(noise.shape)
            for values, (a, b) in zip(added, bounds, strict=True):
                of_noise[a:b] += values
        ctx.save_for_backward(x, target_rows, noise_rows, target, noise)
        ctx.table = (weight.shape, weight.dtype, None if bias is None else bias.dtype)
        ctx.sparse, ctx.bounds, ctx.hidden_dtype = sparse, bounds, hidden.dtype
        return of_target, of_noise

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, target_rows, noise_rows, target, noise = ctx.saved_tensors
        of_target, of_noise = grads  # (N,), (N, K), float32 or wider
        dtype, (shape, weight_dtype, bias_dtype) = x.dtype, ctx.table
        narrow = of_noise.to(dtype)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = grad_weight = grad_bias = None
        if need_hidden:
            grad_hidden = of_target.to(dtype).unsqueeze(1) * target_rows
            for rows, (a, b) in zip(noise_rows, ctx.bounds, strict=True):
                grad_hidden[a:b].addmm_(narrow[a:b], rows)
            grad_hidden = grad_hidden.to(ctx.hidden_dtype)
        if need_weight:
            parts = [(target, of_target.to(dtype).unsqueeze(1) * x)]
            for ids, (a, b) in zip(noise, ctx.bounds, strict=True):
                parts.append((ids, narrow[a:b].t() @ x[a:b]))
            grad_weight = row_gradient(shape, parts, dtype=weight_dtype, sparse=ctx.sparse)
        if need_bias:
            parts = [(target, of_target)]
            parts += [(ids, of_noise[a:b].sum(0)) for ids, (a, b) in zip(noise, ctx.bounds, strict=True)]
            grad_bias = row_gradient(shape[:1], parts, dtype=bias_dtype, sparse=ctx.sparse)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def torch_mm_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Write a @ b into out, which may be of a wider dtype."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def sampled_scores(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    noise: Tensor,
    *,
    sparse: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Scores hidden . weight[id] + bias[id] of the targets (N,) and of noise words (N, K), at least float32.

    hidden (N, H), weight (V, H), bias (V,) or None, target (N,), noise (S, K): the positions are cut into S ranges and
    those of range i share set i, so the noise scores are S matrix products. The gradients of weight and bias hold the
    rows of targets and noise, summed once (`row_gradient`). dtype: of the matrix products, hidden's own by default.
    """
    result: Any = _SampledScores.apply(hidden, weight, bias, target, noise, sparse, dtype or hidden.dtype)
    return result
