"""Clipping by the global norm, dense and sparse gradients together."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from karui.optim.rows import coalesced

_SMALL = 1e-6  # as in torch.nn.utils.clip_grad_norm_


@torch.no_grad()
def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients in place so that their global 2-norm is at most `max_norm`; return the norm before, ().

    As `torch.nn.utils.clip_grad_norm_`, which refuses sparse gradients. A sparse gradient is coalesced once and stays
    so for the optimizer: the norm is that of the sums of repeated rows, the same as of the dense gradient. No row that
    the step did not touch is read or written. A norm of NaN or infinity makes all gradients NaN or 0, as in torch.
    """
    if max_norm < 0:
        raise ValueError(f"max_norm must be >= 0, got {max_norm}")
    wanted = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    values = [_values(parameter) for parameter in wanted if parameter.grad is not None]
    if not values:
        return torch.zeros(())
    norms = torch._foreach_norm(values)  # pyright: ignore[reportPrivateImportUsage]  # noqa: SLF001
    device = values[0].device
    norm = torch.linalg.vector_norm(torch.stack([one.to(device) for one in norms]))
    factor = (max_norm / (norm + _SMALL)).clamp(max=1.0)
    for value in values:
        value.mul_(factor.to(value.device))
    return norm


def has_sparse_gradient(module: nn.Module) -> bool:
    """Tell whether a gradient of the module is sparse at this moment."""
    return any(p.grad is not None and p.grad.is_sparse for p in module.parameters())


def _values(parameter: Tensor) -> Tensor:
    grad = parameter.grad
    assert grad is not None
    if not grad.is_sparse:
        return grad
    parameter.grad = coalesced(grad)
    return parameter.grad._values()  # noqa: SLF001 - values() returns a copy that carries a graph
