"""Rows of a large table: gathered, scored, and given a gradient that has no more rows than were used.

N positions, H hidden size, V rows of the table, K noise rows of a set, S sets, U different rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from karui.ops.row_update import sum_rows
from karui.ops.sparse_rows import sparse_rows
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
    if sparse and all(values.dtype == wide for _, values in parts):
        rows, total = sum_rows(torch.cat([ids for ids, _ in parts]), [values for _, values in parts])
        return sparse_rows(rows, total.to(dtype), shape)
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
    return total if rows is None else sparse_rows(rows, total, shape)


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


def set_size(n_positions: int, sets: int) -> int:
    """C = ceil(N / S): positions that share a set of noise words; the last sets have fewer, or none."""
    return -(-n_positions // sets)


def set_ranges(n_positions: int, sets: int) -> list[slice]:
    """The positions of each set, C of them at most."""
    size = set_size(n_positions, sets)
    return [slice(min(s * size, n_positions), min((s + 1) * size, n_positions)) for s in range(sets)]


def cut(x: Tensor, sets: int) -> Tensor:
    """(S, C, ...) of x (N, ...): the ranges of `set_ranges`, with zeros behind the last position."""
    size = set_size(len(x), sets)
    if size * sets != len(x):
        x = torch.cat([x, x.new_zeros(size * sets - len(x), *x.shape[1:])])
    return x.view(sets, size, *x.shape[1:])


def spread(of_sets: Tensor, n_positions: int) -> Tensor:
    """(N, K) of (S, K): to each position its set; one set is left to broadcasting as (1, K)."""
    if len(of_sets) == 1:
        return of_sets
    return of_sets.repeat_interleave(set_size(n_positions, len(of_sets)), 0)[:n_positions]


def _products(a: Tensor, b: Tensor) -> Tensor:
    """a (S, M, L) times b (S, L, R), one product a set."""
    return torch.mm(a[0], b[0]).unsqueeze(0) if len(a) == 1 else torch.bmm(a, b)


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
        n, wide, (sets, count) = len(target), exact_dtype(dtype), noise.shape
        x = hidden.to(dtype)
        target_rows = weight.index_select(0, target).to(dtype)  # (N, H)
        noise_rows = weight.index_select(0, noise.reshape(-1)).to(dtype).view(sets, count, -1)  # (S, K, H)
        of_target = (x.to(wide) * target_rows.to(wide)).sum(1)
        of_noise = _products(cut(x, sets), noise_rows.transpose(1, 2)).to(wide)  # (S, C, K)
        if bias is not None:
            of_target += bias.index_select(0, target).to(wide)
            of_noise += bias.index_select(0, noise.reshape(-1)).to(wide).view(sets, 1, count)
        ctx.save_for_backward(x, target_rows, noise_rows, target, noise)
        ctx.table = (weight.shape, weight.dtype, None if bias is None else bias.dtype)
        ctx.sparse, ctx.hidden_dtype = sparse, hidden.dtype
        return of_target, of_noise.view(-1, count)[:n]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, target_rows, noise_rows, target, noise = ctx.saved_tensors
        of_target, of_noise = grads  # (N,), (N, K), float32 or wider
        dtype, (shape, weight_dtype, bias_dtype) = x.dtype, ctx.table
        narrow, ids = cut(of_noise.to(dtype), len(noise)), noise.reshape(-1)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = grad_weight = grad_bias = None
        if need_hidden:
            grad_hidden = _products(narrow, noise_rows).view(-1, shape[1])[: len(x)]
            grad_hidden.addcmul_(of_target.to(dtype).unsqueeze(1), target_rows)
            grad_hidden = grad_hidden.to(ctx.hidden_dtype)
        if need_weight:
            noise_grad = _products(narrow.transpose(1, 2), cut(x, len(noise))).view(-1, shape[1])
            parts = [(target, of_target.to(dtype).unsqueeze(1) * x), (ids, noise_grad)]
            grad_weight = row_gradient(shape, parts, dtype=weight_dtype, sparse=ctx.sparse)
        if need_bias:
            parts = [(target, of_target), (ids, cut(of_noise, len(noise)).sum(1).view(-1))]
            grad_bias = row_gradient(shape[:1], parts, dtype=bias_dtype, sparse=ctx.sparse)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


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
