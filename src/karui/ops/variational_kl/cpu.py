"""The compiled KL: value and gradient in one pass, registered as the operator `karui::variational_kl`."""

import torch
from torch import Tensor

from karui import _native


@torch.library.custom_op("karui::variational_kl", mutates_args=(), device_types="cpu")
def kl_op(weight: Tensor, log_sigma2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous inputs of one dtype; returns the sum () and its gradients with respect to both."""
    grad_weight, grad_log_sigma2 = torch.empty_like(weight), torch.empty_like(weight)
    addresses = [t.data_ptr() for t in (weight, log_sigma2, grad_weight, grad_log_sigma2)]
    total = _native.variational_kl(
        weight.numel(), torch.get_num_threads(), weight.dtype == torch.float64, *addresses
    )
    return weight.new_tensor(total), grad_weight, grad_log_sigma2


@kl_op.register_fake
def _(weight, log_sigma2):  # noqa: ANN001, ANN202, ARG001
    return weight.new_empty(()), torch.empty_like(weight), torch.empty_like(weight)


def _setup(ctx, inputs, output) -> None:  # noqa: ANN001, ARG001
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _grad_weight, _grad_log_sigma2):  # noqa: ANN001, ANN202
    return (None, None) if grad is None else tuple(grad * saved for saved in ctx.saved_tensors)


kl_op.register_autograd(_backward, setup_context=_setup)


def variational_kl(weight: Tensor, log_sigma2: Tensor) -> Tensor:
    """Sum over all weights, in nats; float32 or float64 on a CPU."""
    return kl_op(weight.contiguous(), log_sigma2.contiguous())[0]
