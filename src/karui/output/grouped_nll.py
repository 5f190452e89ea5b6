"""Negative log-likelihoods of many small softmaxes, each over a range of rows of one large table.

N positions sorted by group, H hidden size, V rows of the table. No matrix is padded to the largest group: at V = 500k,
N = 1,024, H = 256 that would take 742 MB.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from karui.ops.sparse_rows import spread_rows
from karui.output.base import exact_dtype, matmul_dtype


class Group(NamedTuple):
    """Positions first..end, whose targets lie in rows first_word..end_word."""

    first: int
    end: int
    first_word: int
    end_word: int


class _GroupedNll(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        groups: list[Group],
        sparse: bool,
        save: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        x, wide, kept = hidden.to(dtype), exact_dtype(dtype), []
        losses = hidden.new_empty(len(target), dtype=wide)
        for first, end, first_word, end_word in groups:
            table = weight[first_word:end_word].to(dtype).t()
            if bias is None:
                logits = x[first:end] @ table
            else:
                logits = torch.addmm(bias[first_word:end_word].to(dtype), x[first:end], table)
            log_prob = torch.log_softmax(logits, 1, dtype=wide)
            inside = (target[first:end] - first_word).unsqueeze(1)
            losses[first:end] = -log_prob.gather(1, inside)[:, 0]
            if save:  # softmax - onehot(target), over the log-probabilities
                kept.append(
                    log_prob.exp_().scatter_add_(1, inside, log_prob.new_full((end - first, 1), -1.0))
                )
        if save:
            ctx.save_for_backward(hidden, weight, bias)
            ctx.kept, ctx.groups, ctx.sparse, ctx.dtype = kept, groups, sparse, dtype
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, weight, bias = ctx.saved_tensors
        dtype, rows = ctx.dtype, sum(group.end_word - group.first_word for group in ctx.groups)
        scaled = (hidden * grads[0][:, None]).to(
            dtype
        )  # (N, H): so the scale never touches the probabilities
        x_grad = torch.empty_like(hidden, dtype=dtype)
        values = weight.new_empty((rows, weight.shape[1]), dtype=dtype)
        biases = None if bias is None else weight.new_empty(rows, dtype=grads[0].dtype)
        at = 0
        for residual, (first, end, first_word, end_word) in zip(ctx.kept, ctx.groups, strict=True):
            narrow, until = residual.to(dtype), at + end_word - first_word
            torch.mm(narrow, weight[first_word:end_word].to(dtype), out=x_grad[first:end])
            torch.mm(narrow.t(), scaled[first:end], out=values[at:until])
            if biases is not None:
                torch.mv(residual.t(), grads[0][first:end], out=biases[at:until])
            at = until
        ids = torch.cat([torch.arange(g.first_word, g.end_word, device=weight.device) for g in ctx.groups])
        grad_hidden = x_grad.mul_(grads[0][:, None].to(dtype)).to(hidden.dtype)
        grad_weight = spread_rows(ids, values.to(weight.dtype), weight, sparse=ctx.sparse)
        grad_bias = None
        if bias is not None and biases is not None:
            grad_bias = spread_rows(ids, biases.to(bias.dtype), bias, sparse=ctx.sparse)
        return grad_hidden, grad_weight, grad_bias, *(None,) * 5


def grouped_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    groups: list[Group],
    *,
    sparse: bool,
) -> Tensor:
    """-log softmax over the rows of its group, at each position's target: (N,) in nats, at least float32.

    hidden (N, H), weight (V, H), bias (V,) or None, target (N,) rows; groups cover 0..N in order, their rows ascend and
    do not overlap. sparse: gradients of weight and bias are coalesced sparse tensors of the rows of the groups.
    """
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    dtype = matmul_dtype(hidden)
    result: Any = _GroupedNll.apply(hidden, weight, bias, target, groups, sparse, save, dtype)
    return result
