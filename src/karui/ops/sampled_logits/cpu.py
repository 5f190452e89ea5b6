"""The compiled form: torch's matrix product, then one pass over the scores for value and slope, in their own memory."""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.choice import is_traced
from karui.ops.eager import addresses, eager_twin


def noise_terms_(
    scores: Tensor, offset: Tensor, first: Tensor | None, hits: tuple[Tensor, Tensor] | None, term: int
) -> tuple[Tensor, Tensor | None]:
    """Turn scores (N, K), contiguous, into slopes; return what the term makes of them (N,) and its slope in first."""
    N, K = scores.shape
    reduced = scores.new_empty(N)
    slope_first = None if first is None else torch.empty_like(reduced)
    target, noise = hits or (None, None)
    # Held until the call is over: a copy made for it would be gone before.
    kept = [None if t is None else t.contiguous() for t in (offset, first, target, noise)]
    arrays = addresses(scores, *kept, reduced, slope_first)
    _native.noise_terms(N, K, term, torch.get_num_threads(), scores.dtype == torch.float64, arrays)
    return reduced, slope_first


def run_forward(
    hidden: Tensor,
    rows: Tensor,
    offset: Tensor,
    first: Tensor | None,
    target: Tensor | None,
    noise: Tensor | None,
    term: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of one dtype, float32 or float64; returns the values (N,), the slopes (N, K) and those of first (N,)."""
    scores = hidden.new_empty(len(hidden), len(rows))
    torch.mm(hidden, rows.t(), out=scores)  # out= so that autocast leaves it alone
    hits = None if target is None or noise is None else (target, noise)
    reduced, slope_first = noise_terms_(scores, offset, first, hits, term)
    return reduced, scores, hidden.new_empty(0) if slope_first is None else slope_first


forward_op = torch.library.custom_op(
    "karui::sampled_logits", run_forward, mutates_args=(), device_types="cpu"
)


@forward_op.register_fake
def _(hidden, rows, offset, first, target, noise, term):  # noqa: ANN001, ANN202, ARG001
    N = hidden.shape[0]
    return (
        hidden.new_empty(N),
        hidden.new_empty(N, rows.shape[0]),
        hidden.new_empty(0 if first is None else N),
    )


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    hidden, rows = inputs[:2]
    ctx.save_for_backward(hidden, rows, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _slopes: Any, _slope_first: Any) -> tuple:
    hidden, rows, slopes, slope_first = ctx.saved_tensors
    if grad is None:
        return (None,) * 7
    if torch.is_grad_enabled():
        raise RuntimeError("sampled_logits is differentiable once: choose implementation='reference'")
    # The positions' own factors go into the small operands; the slopes are read as they are.
    needs, factor = ctx.needs_input_grad, grad[:, None]
    grad_hidden = (slopes @ rows).mul_(factor) if needs[0] else None
    grad_rows = slopes.t() @ (hidden * factor) if needs[1] else None
    grad_offset = slopes.t().mv(grad) if needs[2] else None
    grad_first = slope_first * grad if needs[3] else None
    return grad_hidden, grad_rows, grad_offset, grad_first, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup)
_eager = eager_twin(run_forward, _setup, _backward)


def sampled_logits(
    hidden: Tensor,
    rows: Tensor,
    offset: Tensor,
    first: Tensor | None,
    target: Tensor | None,
    noise: Tensor | None,
    term: int,
) -> Tensor:
    """Shapes as in `karui.ops.sampled_logits`; 16-bit inputs are computed in float32."""
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    run: Any = forward_op if is_traced(hidden) else _eager
    return run(hidden.to(dtype), rows.to(dtype), offset, first, target, noise, term)[0]
