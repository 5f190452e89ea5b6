"""The one tolerance for kernels: as close to the fp64 truth as the plain version in the same dtype, twice over."""

import torch
from torch import Tensor


def assert_as_exact_as_plain(name: str, fused: Tensor, plain: Tensor, truth: Tensor) -> None:
    """Compare a kernel's tensor with the reference in its own dtype and in fp64; NaN fails."""
    assert fused.shape == truth.shape, name
    assert fused.dtype == plain.dtype, name

    def error(tensor: Tensor) -> float:
        return (tensor.double() - truth).abs().max().item() if tensor.numel() else 0.0

    allowed = 2 * error(plain) + 4 * torch.finfo(plain.dtype).eps * (
        truth.abs().max().item() if truth.numel() else 0.0
    )
    assert error(fused) <= allowed, f"{name}: error {error(fused):.2e}, allowed {allowed:.2e}"
