"""Draws from Gaussian posteriors, of weights or of a layer's outputs. Derivation in README.md."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from karui.ops.choice import FULL_DTYPES, choose_implementation, is_traced
from karui.ops.gaussian_draw import reference
from karui.ops.noise import draw_seed

if TYPE_CHECKING:
    from karui.ops.gaussian_draw.cpu import Pass

KNOWN = ("reference", "cpp")


class DrawnWithKl(NamedTuple):
    """A draw, and the KL that its backward pass can differentiate at no further cost."""

    drawn: Tensor
    kl: Tensor
    """KL of all weights, as `karui.ops.variational_kl` gives it, ()."""
    state: "Pass"
    """`is_open` while the draw's backward pass is still to come; after it `kl` has no graph."""


def draw_weights(
    mean: Tensor,
    log_sigma2: Tensor,
    rows: Tensor | None = None,
    *,
    implementation: str | None = None,
) -> Tensor:
    """One draw of N(mean, exp(log_sigma2)) for every element, or for those of some rows: (len(rows), ...).

    rows: positions (N,) int64, rising, each once.
    implementation: "reference", "cpp" or None for the fastest at hand.
    Raises ValueError on an unknown implementation, one that cannot take the tensors, or shapes that differ.
    """
    _check(mean, log_sigma2)
    if _choose(implementation, mean, log_sigma2) == "cpp":
        from karui.ops.gaussian_draw import cpu

        rows = None if rows is None else rows.contiguous()
        return cpu.weights(mean.contiguous(), log_sigma2.contiguous(), draw_seed(), rows, None)[0]
    if rows is not None:
        mean, log_sigma2 = mean[rows], log_sigma2[rows]
    return reference.weights(mean, log_sigma2, torch.randn_like(mean))


def runs_compiled(mean: Tensor, log_sigma2: Tensor) -> bool:
    """Tell whether a draw of weights takes the compiled form by itself, with nothing to copy for it."""
    return _choose(None, mean, log_sigma2) == "cpp" and mean.is_contiguous() and log_sigma2.is_contiguous()


def draw_weights_with_kl(mean: Tensor, log_sigma2: Tensor, rows: Tensor | None = None) -> DrawnWithKl:
    """`draw_weights` in its compiled form, with the KL of all weights: one node of the graph gives both."""
    from karui.ops.gaussian_draw import cpu

    state = cpu.Pass()
    drawn, kl = cpu.weights(mean, log_sigma2, draw_seed(), rows, state)
    assert kl is not None
    return DrawnWithKl(drawn, kl, state)


def draw_outputs(mean: Tensor, variance: Tensor, *, implementation: str | None = None) -> Tensor:
    """One draw of N(mean, variance) for every element.

    implementation: "reference", "cpp" or None for the fastest at hand.
    Raises ValueError on an unknown implementation, one that cannot take the tensors, or shapes that differ.
    """
    _check(mean, variance)
    if _choose(implementation, mean, variance) == "cpp":
        from karui.ops.gaussian_draw import cpu

        if not _lie_alike(mean, variance):
            mean, variance = mean.contiguous(), variance.contiguous()
        return cpu.outputs(mean, variance, draw_seed())
    return reference.outputs(mean, variance, torch.randn_like(mean))


def _lie_alike(mean: Tensor, variance: Tensor) -> bool:
    """Whether both fill their memory in one order, as images of one memory format do."""
    return mean.stride() == variance.stride() and (
        mean.is_contiguous() or (mean.dim() == 4 and mean.is_contiguous(memory_format=torch.channels_last))
    )


def _check(mean: Tensor, spread: Tensor) -> None:
    if mean.shape != spread.shape:
        raise ValueError(f"mean {tuple(mean.shape)} and its spread {tuple(spread.shape)} must have one shape")


def _choose(implementation: str | None, mean: Tensor, spread: Tensor) -> str:
    chosen = choose_implementation(mean, implementation, KNOWN, dtypes=FULL_DTYPES)
    by_itself = mean.dtype == spread.dtype and mean.device == spread.device
    if implementation is None and (not by_itself or is_traced(mean, spread)):
        return "reference"
    return chosen
