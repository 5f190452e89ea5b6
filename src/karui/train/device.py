"""Where and how a run computes: device, precision, threads, and what makes a CPU repeat its bits."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from karui.errors import UserError
from karui.optim import Optimizer, clip_grad_norm_
from karui.optim.clip import has_sparse_gradient
from karui.train.settings import TrainSettings


def make_fabric(settings: TrainSettings) -> Fabric:
    """Return Fabric on the wanted device.

    Raises:
        UserError: the machine has no such device, or the device lacks the wanted precision.
    """
    try:
        fabric = Fabric(accelerator=settings.accelerator, devices=settings.devices, precision="32-true")
    except (RuntimeError, ValueError, ImportError) as error:  # Fabric's own misconfiguration errors are these
        raise UserError(
            f"train.accelerator={settings.accelerator} is not available here ({str(error).splitlines()[0]}); "
            "use train.accelerator=cpu"
        ) from error
    if settings.precision == "32-true":
        return fabric
    kind = fabric.device.type
    if not _has_precision(settings.precision, kind):
        raise UserError(
            f"train.precision={settings.precision} is not available on this {kind}; "
            "use train.precision=32-true"
        )
    return Fabric(accelerator=settings.accelerator, devices=settings.devices, precision=settings.precision)


def _has_precision(precision: str, kind: str) -> bool:
    if kind == "cuda":
        return precision == "16-mixed" or torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu" and precision == "bf16-mixed":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - torch offers no public test
    return False


def make_optimizer(groups: list[dict[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimizer over the task's parameter groups: torch's own where no group names another rule.

    The fused form takes a fifth of the time on small models. It is left out under 16-mixed, where it would
    unscale the gradient by itself and so forbid clipping.

    Raises:
        UserError: momentum beside a group with a rule of its own.
    """
    if settings.momentum:
        rules = sorted({group["rule"] for group in groups if "rule" in group})
        if rules:
            raise UserError(
                f"train.momentum must be 0 where weights follow {rules[0]}, got {settings.momentum}"
            )
        return torch.optim.SGD(
            groups,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=True,
            weight_decay=settings.weight_decay,
        )
    if settings.optimizer == "sgd" or any("rule" in group for group in groups):
        return Optimizer(
            groups,
            rule=settings.optimizer,
            lr=settings.lr,
            sparse_lr=settings.sparse_lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    fused = settings.precision != "16-mixed"
    return kind(groups, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=fused)


def clip_gradients(fabric: Fabric, module: nn.Module, optimizer: Any, max_norm: float) -> None:
    """Scale the gradients so that their global norm is at most `max_norm`; sparse ones are welcome."""
    if not has_sparse_gradient(module):
        fabric.clip_gradients(module, optimizer, max_norm=max_norm, error_if_nonfinite=False)
        return
    fabric.strategy.precision.unscale_gradients(optimizer.optimizer)
    clip_grad_norm_(module.parameters(), max_norm)


@contextlib.contextmanager
def repeatable(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Set threads and deterministic algorithms for the block and put them back afterwards.

    Denormal numbers are flushed to zero: the averages of Adam decay into them for every word that a batch
    does not touch, and a step over them takes twice the time.
    """
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # a module whose attribute is made by a setter
    filling = memory.fill_uninitialized_memory
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False  # costs a pass over every new tensor
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        memory.fill_uninitialized_memory = filling
        torch.set_flush_denormal(False)


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the model's state on the CPU, by its own names."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
