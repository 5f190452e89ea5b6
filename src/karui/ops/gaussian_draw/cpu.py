"""The compiled draws: one pass forward; backward draws the same noise again from its seed."""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.eager import addresses
from karui.ops.sparse_rows import DenseGiven, spread_rows


def _run(  # noqa: PLR0913
    out: Tensor,
    mean: Tensor | None,
    spread: Tensor,
    *,
    seed: int,
    is_variance: bool,
    rows: Tensor | None = None,
    grad: Tensor | None = None,
) -> Tensor:
    """Fill `out` with a draw, or, where grad is given, with the gradient of `spread` at the rows drawn."""
    columns = out.numel() // len(out) if rows is not None and len(out) else 1
    arrays = addresses(rows, mean, spread, out, grad)
    is_double = out.dtype == torch.float64
    sizes = out.numel() // columns, columns
    _native.gaussian_draw(torch.get_num_threads(), is_double, seed, is_variance, sizes, arrays)
    return out


class _Weights(torch.autograd.Function):
    """mean + exp(log_sigma2 / 2) noise, of all rows or of those given."""

    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, log_sigma2: Tensor, seed: int, rows: Tensor | None, given: DenseGiven | None
    ) -> Tensor:
        shape = mean.shape if rows is None else (len(rows), *mean.shape[1:])
        # Rows may follow a dense gradient only into one and the same buffer: that of a leaf.
        ctx.given = given if mean.is_leaf and log_sigma2.is_leaf else None
        ctx.save_for_backward(mean, log_sigma2, rows)
        ctx.seed = seed
        return _run(mean.new_empty(shape), mean, log_sigma2, seed=seed, is_variance=False, rows=rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        mean, log_sigma2, rows = ctx.saved_tensors
        needs, of_spread = ctx.needs_input_grad, None
        if needs[1]:
            grad = grad.contiguous()
            of_spread = torch.empty_like(grad)
            _run(of_spread, None, log_sigma2, seed=ctx.seed, is_variance=False, rows=rows, grad=grad)
        if rows is None:
            return grad if needs[0] else None, of_spread, None, None, None
        sparse = ctx.given is not None and ctx.given.is_now()
        of_mean = spread_rows(rows, grad, mean, sparse=sparse) if needs[0] else None
        if of_spread is not None:
            of_spread = spread_rows(rows, of_spread, log_sigma2, sparse=sparse)
        return of_mean, of_spread, None, None, None


class _Outputs(torch.autograd.Function):
    """mean + sqrt(variance + 1e-8) noise."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, variance: Tensor, seed: int) -> Tensor:
        ctx.save_for_backward(variance)
        ctx.seed = seed
        return _run(torch.empty_like(mean), mean, variance, seed=seed, is_variance=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        _refuse_second_derivative()
        (variance,) = ctx.saved_tensors
        of_variance = torch.empty_like(variance)
        if grad.stride() != variance.stride():  # noise goes by the order of the memory
            grad = torch.empty_like(variance).copy_(grad)
        return grad, _run(of_variance, None, variance, seed=ctx.seed, is_variance=True, grad=grad), None


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("compiled draws are differentiable once: choose implementation='reference'")


def weights(
    mean: Tensor, log_sigma2: Tensor, seed: int, rows: Tensor | None, given: DenseGiven | None
) -> Tensor:
    """See `karui.ops.gaussian_draw.draw_weights`; float32 or float64 on a CPU, contiguous."""
    return _Weights.apply(mean, log_sigma2, seed, rows, given)  # type: ignore[return-value]


def outputs(mean: Tensor, variance: Tensor, seed: int) -> Tensor:
    """See `karui.ops.gaussian_draw.draw_outputs`; float32 or float64 on a CPU, dense and of the same strides."""
    return _Outputs.apply(mean, variance, seed)  # type: ignore[return-value]
