"""Negative log-likelihood of a softmax over a linear map, with the logits read as few times as can be.

N positions, H hidden size, V rows of the table. With P = softmax(logits) - onehot(target) and g the gradient of the
losses: grad hidden = g (P W), grad W = P^T (g h), grad bias = P^T g. The scale g never touches the N x V matrix.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from karui.ops.sparse_rows import sparse_rows
from karui.output.base import exact_dtype, matmul_dtype

SAVED_NUMBERS = 2**26  # logits kept for the backward; more are computed again, chunk by chunk
CHUNK_NUMBERS = 2**22  # logits at once where none are kept
ALIGNED = 16  # numbers: a row of float32 begins where a cache line does


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(N, V), the columns of a wider matrix: rows that begin at odd addresses cost the product half its speed."""
    V = len(weight)
    columns = -(-V // ALIGNED) * ALIGNED
    logits = hidden.new_empty((len(hidden), columns), dtype=dtype)
    hidden, table, inside = hidden.to(dtype), weight.to(dtype).t(), logits[:, :V]
    if bias is None:
        torch.mm(hidden, table, out=inside)
    else:
        torch.addmm(bias.to(dtype), hidden, table, out=inside)
    logits[:, V:] = -torch.inf
    return torch.log_softmax(logits, 1, dtype=exact_dtype(dtype))[:, :V]


def _residual_(log_prob: Tensor, target: Tensor) -> Tensor:
    """Softmax minus onehot(target), written over the log-probabilities."""
    residual = log_prob.exp_()
    residual[torch.arange(len(target), device=target.device), target] -= 1
    return residual


class _LinearNll(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        sparse: bool,
        save: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        keep = save and len(target) * len(weight) <= SAVED_NUMBERS
        ctx.chunk = max(1, len(target) if keep else CHUNK_NUMBERS // len(weight))
        losses, log_prob = [], None
        for part, ids in zip(hidden.split(ctx.chunk), target.split(ctx.chunk), strict=True):
            log_prob = _log_softmax(part, weight, bias, dtype)
            losses.append(log_prob.gather(1, ids[:, None])[:, 0].neg_())
        if save:
            ctx.save_for_backward(hidden, weight, bias, target)
            ctx.dtype, ctx.sparse = dtype, sparse
            ctx.kept, ctx.residual = log_prob if keep else None, None
        return torch.cat(losses) if len(losses) != 1 else losses[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, weight, bias, target = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        dtype, table = ctx.dtype, weight.to(ctx.dtype)
        grad = grads[0]
        of_hidden, of_weight, of_bias = [], None, None
        for part, ids, scale in zip(*(t.split(ctx.chunk) for t in (hidden, target, grad)), strict=True):
            if (
                ctx.kept is not None
            ):  # the first backward through this graph turns them, a second one reads them
                ctx.residual, ctx.kept = _residual_(ctx.kept, ids), None
            residual = ctx.residual
            if residual is None:
                residual = _residual_(_log_softmax(part, weight, bias, dtype), ids)
            narrow = residual.to(dtype)
            if need_hidden:
                of_hidden.append((narrow @ table).mul_(scale[:, None].to(dtype)))
            if need_weight:
                scaled = part.to(dtype) * scale[:, None].to(dtype)
                of_weight = narrow.t() @ scaled if of_weight is None else of_weight.addmm_(narrow.t(), scaled)
            if need_bias:
                part_of_bias = residual.t() @ scale.to(residual.dtype)
                of_bias = part_of_bias if of_bias is None else of_bias.add_(part_of_bias)
        grad_hidden = torch.cat(of_hidden).to(hidden.dtype) if need_hidden else None
        return (
            grad_hidden,
            None if of_weight is None else all_rows(of_weight.to(weight.dtype), sparse=ctx.sparse),
            None if of_bias is None else all_rows(of_bias.to(bias.dtype), sparse=ctx.sparse),
            *(None,) * 4,
        )


def all_rows(gradient: Tensor, *, sparse: bool) -> Tensor:
    """A gradient with every row of its table, dense or as a sparse tensor: row-wise optimizers take no other."""
    if not sparse:
        return gradient
    return sparse_rows(torch.arange(len(gradient), device=gradient.device), gradient, gradient.shape)


def linear_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *, sparse: bool = False
) -> Tensor:
    """-log softmax(weight . hidden + bias)[target] in nats: (N,), at least float32.

    hidden (N, H), weight (V, H), bias (V,) or None, target (N,) int64 in range. The logits are kept for the backward up
    to 2^26 numbers and computed again beyond that, so memory does not grow with N x V. sparse: the gradients of weight
    and bias are sparse tensors, of all rows.
    """
    if len(target) == 0:
        nothing = hidden.sum() * 0 + weight.sum() * 0
        return nothing.to(exact_dtype(hidden.dtype)).expand(0)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    result: Any = _LinearNll.apply(hidden, weight, bias, target, sparse, save, matmul_dtype(hidden))
    return result
