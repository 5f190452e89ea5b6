"""Exact cross-entropy of a linear layer whose N x V scores are never held at once.

N positions, H hidden size, V classes, R positions of a block. Scores of R positions are computed, turned into their
gradient in place, multiplied into the gradients of hidden and weight, and forgotten: three matrix products, as plain
autograd has, and one block of memory instead of several N x V.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from karui.output.base import exact_dtype

BLOCK_NUMBERS = 1 << 23  # 32 MB of float32; smaller blocks only make the products thinner
ALIGNED = 16  # numbers: rows that begin at odd addresses cost the products a quarter of their speed
# Fewer rows than this make the products thin, and each block adds into all V x H of the weight's gradient.
# torch's own rule, about N H / V rows, costs 43 s instead of 2 s at V = 100,000 on a CPU.
MIN_ROWS = 128


class Problem(NamedTuple):
    """What stays the same from block to block."""

    x: Tensor  # (N, H) in the dtype of the products
    weight: Tensor  # (V, H)
    bias: Tensor | None  # (V,)
    target: Tensor  # (N,)
    penalty: float
    rows: int


class Gradients(NamedTuple):
    """Where the gradients go; None for those that nobody asked for."""

    x: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def block_rows(n_positions: int, n_classes: int, chunk: int | None = None) -> int:
    """Positions of a block: as given, or as many as `BLOCK_NUMBERS` scores allow, at least `MIN_ROWS`, all alike."""
    most = chunk or max(BLOCK_NUMBERS // n_classes, MIN_ROWS)
    return max(1, math.ceil(n_positions / max(1, math.ceil(n_positions / most))))


def _scores(problem: Problem, start: int, stop: int, out: Tensor, weight: Tensor) -> Tensor:
    """Scores (R, V) of positions start to stop, in at least float32, written into a part of out."""
    x, logits = problem.x[start:stop], out[: stop - start]
    if logits.dtype != x.dtype:
        logits.copy_(x @ weight.t())
        if problem.bias is not None:
            logits += problem.bias.to(logits.dtype)
    elif problem.bias is None:
        torch.mm(x, weight.t(), out=logits)
    else:
        torch.addmm(problem.bias.to(x.dtype), x, weight.t(), out=logits)
    return logits


def run(problem: Problem, scale: Tensor | float | None, gradients: Gradients) -> Tensor:
    """Losses (N,), and sum_n scale_n * loss_n differentiated into `gradients`; scale None: losses only."""
    x, target, wide = problem.x, problem.target, exact_dtype(problem.x.dtype)
    n, n_classes = len(x), len(problem.weight)
    weight = problem.weight.to(x.dtype)
    losses = x.new_empty(n, dtype=wide)
    columns = math.ceil(n_classes / ALIGNED) * ALIGNED
    buffer = x.new_empty((min(problem.rows, n), columns), dtype=wide)[:, :n_classes]
    for start in range(0, n, problem.rows):
        stop = min(start + problem.rows, n)
        logits = _scores(problem, start, stop, buffer, weight)
        ids = target[start:stop].unsqueeze(1)
        of_target = logits.gather(1, ids)
        top = logits.amax(1, keepdim=True)
        total = logits.sub_(top).exp_().sum(1, keepdim=True)
        log_z = total.log() + top
        loss = log_z - of_target
        if problem.penalty:
            loss += problem.penalty * log_z.square()
        losses[start:stop] = loss.squeeze(1)
        if scale is None:
            continue
        share = scale[start:stop].unsqueeze(1) if isinstance(scale, Tensor) else torch.full_like(total, scale)
        # From here logits hold the gradient: scale * (p (1 + 2 penalty log Z) - onehot(target)).
        logits.mul_(share * (1 + 2 * problem.penalty * log_z) / total)
        logits.scatter_add_(1, ids, -share)
        _add_block(problem, weight, gradients, logits, start)
    return losses


def _add_block(problem: Problem, weight: Tensor, gradients: Gradients, d_logits: Tensor, start: int) -> None:
    stop = start + len(d_logits)
    narrow, x = d_logits.to(problem.x.dtype), problem.x[start:stop]
    if gradients.x is not None:
        torch.mm(narrow, weight, out=gradients.x[start:stop])
    if gradients.weight is not None:
        if gradients.weight.dtype != x.dtype:
            gradients.weight.add_(narrow.t() @ x)
        elif start == 0:
            torch.mm(narrow.t(), x, out=gradients.weight)
        else:
            gradients.weight.addmm_(narrow.t(), x)
    if gradients.bias is not None:
        gradients.bias.add_(d_logits.sum(0))


def _empty_gradients(problem: Problem, needed: tuple[bool, ...]) -> Gradients:
    """Room for the gradients asked for; those of the table in at least float32, for they are sums over blocks."""
    x, weight = problem.x, problem.weight
    wide = exact_dtype(weight.dtype)
    written = wide == x.dtype and len(x) > 0  # the first block writes, the others add
    table = None
    if needed[1]:
        table = x.new_empty(weight.shape, dtype=wide) if written else x.new_zeros(weight.shape, dtype=wide)
    bias = x.new_zeros(len(weight), dtype=wide) if needed[2] and problem.bias is not None else None
    return Gradients(torch.empty_like(x) if needed[0] else None, table, bias)


class _CrossEntropy(torch.autograd.Function):
    """Scalar or per-position losses. A scalar's gradient is made in the forward, where the scores are at hand."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem, scale: float | None
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, problem.target)
        ctx.rest = (problem.x.dtype, problem.penalty, problem.rows)
        ctx.scale, ctx.made = scale, None
        if scale is None or not any(ctx.needs_input_grad[:3]):
            losses = run(problem, None, Gradients(None, None, None))
        else:
            ctx.made = _empty_gradients(problem, ctx.needs_input_grad)
            losses = run(problem, scale, ctx.made)
        return losses if scale is None else losses.sum() * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, weight, bias, target = ctx.saved_tensors
        dtype, penalty, rows = ctx.rest
        made, ctx.made = ctx.made, None
        if made is None:  # per-position losses, or a second call with retain_graph=True
            problem = Problem(hidden.to(dtype), weight, bias, target, penalty, rows)
            made = _empty_gradients(problem, ctx.needs_input_grad)
            run(problem, grads[0] if ctx.scale is None else (grads[0] * ctx.scale).expand(len(hidden)), made)
        elif grads[0].device.type != "cpu" or grads[0].item() != 1.0:
            for part in made:
                if part is not None:
                    part.mul_(grads[0])
        likes = (hidden, weight, bias)
        found = [None if g is None else g.to(t.dtype) for g, t in zip(made, likes, strict=True)]
        return *found, None, None


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    reduction: str = "mean",
    penalty: float = 0.0,
    chunk: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Cross-entropy -s_t + log Z + penalty * (log Z)^2 of s = hidden weight^T + bias, in nats, at least float32.

    hidden (N, H), weight (V, H), bias (V,) or None, target (N,) in [0, V). reduction "none" gives (N,), "mean" of no
    position is 0. chunk: positions of a block, None for the size that is fastest. dtype: of the matrix products.
    The gradients of hidden, weight and bias are dense; they cannot be differentiated again.
    """
    rows = block_rows(len(target), len(weight), chunk)
    problem = Problem(hidden.to(dtype or hidden.dtype).detach(), weight.detach(), bias, target, penalty, rows)
    scale = {"none": None, "sum": 1.0, "mean": 1.0 / max(len(target), 1)}[reduction]
    if not torch.is_grad_enabled():
        losses = run(problem, None, Gradients(None, None, None))
        return losses if scale is None else losses.sum() * scale
    result: Any = _CrossEntropy.apply(hidden, weight, bias, problem, scale)
    return result
