"""The compiled KL: a pass for the value, one for the gradients, registered as the operator `karui::variational_kl`."""

from typing import Any

import torch
from torch import Tensor

from karui import _native
from karui.ops.choice import is_traced
from karui.ops.eager import addresses, eager_twin


def run_forward(weight: Tensor, log_sigma2: Tensor) -> Tensor:
    """Contiguous inputs of one dtype; returns the sum ()."""
    is_double = weight.dtype == torch.float64
    return weight.new_tensor(
        _native.kl_value(weight.numel(), torch.get_num_threads(), is_double, *addresses(weight, log_sigma2))
    )


def run_gradient(grad: Tensor, weight: Tensor, log_sigma2: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the sum times grad ()."""
    found = torch.empty_like(weight), torch.empty_like(log_sigma2)
    is_double, threads = weight.dtype == torch.float64, torch.get_num_threads()
    arrays = addresses(weight, log_sigma2, *found)
    _native.kl_gradient(weight.numel(), threads, is_double, grad.item(), arrays)
    return found


kl_op = torch.library.custom_op("karui::variational_kl", run_forward, mutates_args=(), device_types="cpu")
gradient_op = torch.library.custom_op(
    "karui::variational_kl_gradient", run_gradient, mutates_args=(), device_types="cpu"
)


@kl_op.register_fake
def _(weight, log_sigma2):  # noqa: ANN001, ANN202, ARG001
    return weight.new_empty(())


@gradient_op.register_fake
def _(grad, weight, log_sigma2):  # noqa: ANN001, ANN202, ARG001
    return torch.empty_like(weight), torch.empty_like(log_sigma2)


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    return gradient_op(grad, *ctx.saved_tensors)


def _eager_backward(ctx: Any, grad: Tensor) -> tuple:
    if torch.is_grad_enabled():
        raise RuntimeError("variational_kl is differentiable once: choose implementation='reference'")
    return run_gradient(grad, *ctx.saved_tensors)


kl_op.register_autograd(_backward, setup_context=_setup)
_eager = eager_twin(run_forward, _setup, _eager_backward)


def variational_kl(weight: Tensor, log_sigma2: Tensor) -> Tensor:
    """Sum over all weights, in nats; float32 or float64 on a CPU."""
    run: Any = kl_op if is_traced(weight) else _eager
    return run(weight.contiguous(), log_sigma2.contiguous())
