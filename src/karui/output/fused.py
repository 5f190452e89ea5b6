"""Sampled losses by the compiled passes over the scores of noise words (ops/sampled_logits), on a CPU and on a GPU.

N positions, H hidden size, K noise words of a set, S sets.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from karui.ops.choice import is_traced
from karui.ops.sampled_logits import TERMS, sampled_logits
from karui.output.base import exact_dtype
from karui.output.table import gather_rows, row_gradient, set_ranges

GPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # of float64 a GPU's matrix units gain nothing


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


def fused_form(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> str | None:
    """Return "cpp" or "triton", whichever compiled pass takes these outside a compiled graph; None for neither.

    On a CPU the products are float32 or float64, on a GPU with Triton float32 or of 16 bits.
    """
    if is_traced(hidden) or hidden.device != weight.device:
        return None
    if hidden.device.type == "cpu":
        return "cpp" if dtype in (torch.float32, torch.float64) else None
    if not hidden.is_cuda or dtype not in GPU_DTYPES:
        return None
    from karui.ops import triton_launch

    return "triton" if triton_launch.runs_by_itself(hidden) else None


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
        for s, part in enumerate(set_ranges(n, sets)):
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
        needs, ranges = ctx.needs_input_grad, set_ranges(len(x), len(noise))
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


def fused_losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    noise: Tensor,
    terms: Terms,
    *,
    sparse: bool,
    form: str = "cpp",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Losses (N,) of hidden (N, H) with a table weight (V, H), bias (V,); target (N,), noise (S, K) ids.

    The loss is the term of the noise less the target's own score, or plus softplus of its negative. Differentiable in
    hidden, the table and the shifts of the noise; the gradients of weight and bias are the rows read, summed once
    (`row_gradient`). form: as `fused_form` has it, or another implementation of `sampled_logits`. dtype: of the matrix
    products, that of the shifts by default.
    """
    found: Any
    if form == "cpp":
        found = _FusedTerms.apply(
            hidden, weight, bias, terms.of_noise.contiguous(), (target, noise.contiguous()), terms, sparse
        )
    else:
        found = _terms_of_rows(
            hidden.to(dtype or terms.of_noise.dtype),
            weight,
            bias,
            target,
            noise,
            terms,
            sparse=sparse,
            form=form,
        )
    of_target, reduced = found
    own = of_target + terms.of_target
    return torch.nn.functional.softplus(-own) + reduced if terms.term == "softplus" else reduced - own


def _terms_of_rows(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    noise: Tensor,
    terms: Terms,
    *,
    sparse: bool,
    form: str,
) -> tuple[Tensor, Tensor]:
    """The targets' scores and the terms of the noise, both (N,): rows gathered once, then `sampled_logits` a set."""
    n, (sets, count), wide = len(x), noise.shape, exact_dtype(x.dtype)
    ids = torch.cat([target, noise.reshape(-1)])
    rows, biases = gather_rows(weight, bias, ids, sparse=sparse)
    rows, offset = rows.to(x.dtype), terms.of_noise
    of_target = (x.to(wide) * rows[:n].to(wide)).sum(1)
    if biases is not None:
        of_target = of_target + biases[:n].to(wide)
        offset = offset + biases[n:].to(wide).view(sets, count)
    first = of_target + terms.of_target if terms.includes_target else None
    reduced = [
        sampled_logits(
            x[part],
            rows[n + s * count : n + (s + 1) * count],
            offset[s],
            first=None if first is None else first[part],
            target=target[part] if terms.drops_hits else None,
            noise=noise[s] if terms.drops_hits else None,
            term=terms.term,
            implementation=form,
        )
        for s, part in enumerate(set_ranges(n, sets))
    ]
    return of_target, torch.cat(reduced)
