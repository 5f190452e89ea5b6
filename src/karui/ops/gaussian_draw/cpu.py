"""The compiled draws: one pass forward; backward draws the same noise again from its seed."""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.eager import addresses
from karui.ops.variational_kl import cpu as kl


def _run(
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


class Pass:
    """Whether the backward pass of a draw is still to come: after it, the KL of that draw cannot be used again."""

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = True


class _Weights(torch.autograd.Function):
    """mean + exp(log_sigma2 / 2) noise, of all rows or of those given; and the KL of all, where it is wanted."""

    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, log_sigma2: Tensor, seed: int, rows: Tensor | None, state: Pass | None
    ) -> tuple[Tensor, Tensor | None]:
        shape = mean.shape if rows is None else (len(rows), *mean.shape[1:])
        ctx.save_for_backward(mean, log_sigma2, rows)
        ctx.seed, ctx.state = seed, state
        ctx.set_materialize_grads(False)
        drawn = _run(mean.new_empty(shape), mean, log_sigma2, seed=seed, is_variance=False, rows=rows)
        return drawn, None if state is None else kl.run_forward(mean, log_sigma2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_kl: Tensor | None) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        mean, log_sigma2, rows = ctx.saved_tensors
        if ctx.state is not None:
            ctx.state.is_open = False
        found = (None, None) if grad_kl is None else kl.run_gradient(grad_kl, mean, log_sigma2)
        if grad is not None:
            grad = grad.contiguous()
            of_spread = torch.empty_like(grad)
            _run(of_spread, None, log_sigma2, seed=ctx.seed, is_variance=False, rows=rows, grad=grad)
            found = tuple(
                _added(to, rows, part, mean) for to, part in zip(found, (grad, of_spread), strict=True)
            )
        return *found, None, None, None


def _added(to: Tensor | None, rows: Tensor | None, part: Tensor, like: Tensor) -> Tensor:
    """The gradient `to` of a whole table, None for zero, plus that of all its rows or of those given."""
    if rows is None:
        return part if to is None else to.add_(part)
    to = torch.zeros_like(like) if to is None else to
    return to.index_add_(0, rows, part)


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
    mean: Tensor, log_sigma2: Tensor, seed: int, rows: Tensor | None, state: Pass | None
) -> tuple[Tensor, Tensor | None]:
    """See `karui.ops.gaussian_draw.draw_weights`; float32 or float64 on a CPU, contiguous. The KL where state is."""
    return _Weights.apply(mean, log_sigma2, seed, rows, state)  # type: ignore[return-value]


def outputs(mean: Tensor, variance: Tensor, seed: int) -> Tensor:
    """See `karui.ops.gaussian_draw.draw_outputs`; float32 or float64 on a CPU, dense and of the same strides."""
    return _Outputs.apply(mean, variance, seed)  # type: ignore[return-value]
