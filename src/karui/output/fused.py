"""Sampled losses on a CPU by the compiled pass over the scores of noise words (ops/sampled_logits).

N positions, H hidden size, K noise words of a set, S sets.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from karui.ops.choice import is_traced
from karui.ops.sampled_logits import TERMS
from karui.output.table import row_gradient


@dataclass(frozen=True)
class Terms:
    """A sampled loss as a term of the noise and the target's own score, with what is added to either score.

    term: one of `karui.ops.sampled_logits.TERMS`. of_target: shift of the target (N,) or a number; of_noise: shifts of
    the noise words (S, K). includes_target: the term holds the target too. drops_hits: noise equal to it is left out.
    """

    term: str
    of_target: Tensor | float
    of_noise: Tensor
    includes_target: bool = False
    drops_hits: bool = False


def can_fuse(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether the compiled pass takes these: on a CPU, in float32 or float64, outside a compiled graph."""
    on_cpu = hidden.device.type == "cpu" and weight.device.type == "cpu"
    return on_cpu and dtype in (torch.float32, torch.float64) and not is_traced(hidden)


class _FusedTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shift: Tensor,
        ids: tuple[Tensor, Tensor],
        terms: Terms,
        sparse: bool,
    ) -> Any:
        from karui.ops.sampled_logits.cpu import noise_terms_

        (target, noise), (sets, count) = ids, shift.shape
        x, n = hidden.to(shift.dtype), len(hidden)
        target_rows = weight.index_select(0, target).to(x.dtype)  # (N, H)
        noise_rows = weight.index_select(0, noise.view(-1)).to(x.dtype).view(sets, count, -1)  # (S, K, H)
        of_target, offset = (x * target_rows).sum(1), shift
        if bias is not None:
            of_target += bias.index_select(0, target).to(x.dtype)
            offset = shift + bias.index_select(0, noise.view(-1)).to(x.dtype).view(sets, count)
        first = of_target + terms.of_target if terms.includes_target else None
        slopes, reduced = x.new_empty(n, count), torch.empty_like(of_target)
        slope_first = None if first is None else torch.empty_like(of_target)
        for s, part in enumerate(_ranges(n, sets)):
            torch.mm(x[part], noise_rows[s].t(), out=slopes[part])
            hits = (target[part], noise[s]) if terms.drops_hits else None
            own = None if first is None else first[part]
            reduced[part], found = noise_terms_(slopes[part], offset[s], own, hits, TERMS.index(terms.term))
            if slope_first is not None and found is not None:
                slope_first[part] = found
        ctx.save_for_backward(x, target_rows, noise_rows, target, noise, slopes, slope_first)
        ctx.table = (weight.shape, weight.dtype, None if bias is None else bias.dtype)
        ctx.sparse, ctx.hidden_dtype = sparse, hidden.dtype
        return of_target, reduced

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, target_rows, noise_rows, target, noise, slopes, slope_first = ctx.saved_tensors
        own, grad = grads  # both (N,)
        if slope_first is not None:
            own = own + grad * slope_first
        shape, weight_dtype, bias_dtype = ctx.table
        needs, ranges = ctx.needs_input_grad, _ranges(len(x), len(noise))
        grad_hidden = grad_weight = grad_bias = grad_shift = None
        if needs[0]:
            grad_hidden = torch.empty_like(x)
            for s, part in enumerate(ranges):
                torch.mm(slopes[part], noise_rows[s], out=grad_hidden[part])
            # The positions' factors stand outside the product: the slopes are read as they are.
            grad_hidden = grad_hidden.mul_(grad[:, None]).addcmul_(own[:, None], target_rows)
            grad_hidden = grad_hidden.to(ctx.hidden_dtype)
        if needs[1]:
            scaled, of_noise = x * grad[:, None], torch.empty_like(noise_rows)
            for s, part in enumerate(ranges):
                torch.mm(slopes[part].t(), scaled[part], out=of_noise[s])
            parts = [(target, own[:, None] * x), (noise.view(-1), of_noise.view(-1, shape[1]))]
            grad_weight = row_gradient(shape, parts, dtype=weight_dtype, sparse=ctx.sparse)
        if needs[2] or needs[3]:
            grad_shift = torch.stack([slopes[part].t().mv(grad[part]) for part in ranges])
        if needs[2]:
            assert grad_shift is not None
            parts = [(target, own), (noise.view(-1), grad_shift.view(-1))]
            grad_bias = row_gradient(shape[:1], parts, dtype=bias_dtype, sparse=ctx.sparse)
        return grad_hidden, grad_weight, grad_bias, grad_shift if needs[3] else None, None, None, None


def _ranges(n: int, sets: int) -> list[slice]:
    """Positions of each set: as `karui.output.table.cut` has them, equal but for the last."""
    size = -(-n // sets)
    return [slice(min(s * size, n), min((s + 1) * size, n)) for s in range(sets)]


def fused_losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    noise: Tensor,
    terms: Terms,
    *,
    sparse: bool,
) -> Tensor:
    """Losses (N,) of hidden (N, H) with a table weight (V, H), bias (V,); target (N,), noise (S, K) ids.

    The loss is the term of the noise less the target's own score, or plus softplus of its negative. Gradients of weight
    and bias are those rows, summed once (`row_gradient`), in hidden, the table and the shifts of the noise.
    """
    found: Any = _FusedTerms.apply(
        hidden, weight, bias, terms.of_noise.contiguous(), (target, noise.contiguous()), terms, sparse
    )
    of_target, reduced = found
    own = of_target + terms.of_target
    return torch.nn.functional.softplus(-own) + reduced if terms.term == "softplus" else reduced - own
