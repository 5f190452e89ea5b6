"""KL divergence of sparse variational dropout. Derivation in README.md."""

import torch
from torch import Tensor

from karui.ops.variational_kl import reference
from karui.ops.variational_kl.reference import log_alpha

__all__ = ["log_alpha", "variational_kl"]


def variational_kl(weight: Tensor, log_sigma2: Tensor, *, implementation: str | None = None) -> Tensor:
    """KL(N(weight, exp(log_sigma2)) || log-uniform) summed over all weights, in nats (Molchanov et al. 2017, eq. 14).

    weight, log_sigma2: tensors of one shape. implementation: "reference", "cpp" or None for the fastest at hand.
    Raises ValueError on an unknown implementation or shapes that differ.
    """
    if weight.shape != log_sigma2.shape:
        raise ValueError(
            f"weight {tuple(weight.shape)} and log_sigma2 {tuple(log_sigma2.shape)} must have one shape"
        )
    if implementation not in (None, "reference", "cpp"):
        raise ValueError(f"implementation must be None, 'reference' or 'cpp', got {implementation!r}")
    compiled = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    if implementation == "cpp" and not compiled:
        raise ValueError(f"implementation 'cpp' needs a float32 or float64 CPU tensor, got {weight.dtype}")
    if implementation == "reference" or not compiled:
        return reference.variational_kl(weight, log_sigma2)
    from karui.ops.variational_kl import cpu

    return cpu.variational_kl(weight, log_sigma2)
