"""Scores of shared noise words and what a sampled loss reads of them, without a pass per operation. See README.md.

N positions, K noise words, H hidden size.
"""

import torch
from torch import Tensor

from karui.ops.choice import HALVES, choose_implementation
from karui.ops.sampled_logits import reference

__all__ = ["TERMS", "sampled_logits"]

IMPLEMENTATIONS = ("reference", "cpp", "triton")
TERMS = ("logsumexp", "softplus", "blackout")


def sampled_logits(
    hidden: Tensor,
    rows: Tensor,
    offset: Tensor,
    *,
    first: Tensor | None = None,
    target: Tensor | None = None,
    noise: Tensor | None = None,
    term: str = "logsumexp",
    implementation: str | None = None,
) -> Tensor:
    """Return for each position what `term` makes of z_k = hidden . rows_k + offset_k: (N,), float32 at least.

    hidden (N, H), rows (K, H) of the same dtype; offset (K,) and first (N,) of that of the result. first: the target's
    own term v. target (N,) and noise (K,) int64: a noise word with the target's id is left out; both or neither.
    term: "logsumexp", log sum_k e^z + e^v; "softplus", sum_k log(1 + e^z), without first; "blackout",
    log R - sum_k log(1 - e^z / R) with R = e^v + sum_k e^z, which needs first. Differentiable once in hidden, rows,
    offset and first. implementation: "reference", "cpp", "triton" or None for the fastest for the device and dtype.

    Raises ValueError on shapes that do not fit, unknown words and a named implementation that cannot run.
    """
    _check(hidden, rows, offset, first)
    _check_words(term, first, target, noise)
    choice = choose_implementation(hidden, implementation, IMPLEMENTATIONS)
    if choice == "reference":
        wide = torch.float32 if hidden.dtype in HALVES else hidden.dtype
        hits = None if target is None or noise is None else target[:, None] == noise
        return reference.sampled_logits(
            hidden.to(wide), rows.to(wide), offset, first=first, hits=hits, term=term
        )
    if choice == "cpp":
        from karui.ops.sampled_logits import cpu as chosen
    else:
        from karui.ops.sampled_logits import triton as chosen
    return chosen.sampled_logits(hidden, rows, offset, first, target, noise, TERMS.index(term))


def _check_words(term: str, first: Tensor | None, target: Tensor | None, noise: Tensor | None) -> None:
    if term not in TERMS:
        raise ValueError(f"term must be one of {TERMS}, got {term!r}")
    if (first is None and term == "blackout") or (first is not None and term == "softplus"):
        raise ValueError(f"term {term!r} {'needs first' if first is None else 'takes no first'}")
    if (target is None) != (noise is None):
        raise ValueError("give target and noise, or neither")
    if target is not None and first is None and term == "logsumexp":
        raise ValueError("words are left out of a logsumexp with first only: else nothing may be left")


def _check(hidden: Tensor, rows: Tensor, offset: Tensor, first: Tensor | None) -> None:
    if hidden.dim() != 2 or rows.dim() != 2 or rows.shape[1] != hidden.shape[1] or not len(rows):
        raise ValueError(
            f"hidden must be (N, H) and rows (K, H), K >= 1, got {tuple(hidden.shape)} and {tuple(rows.shape)}"
        )
    if rows.dtype != hidden.dtype:
        raise ValueError(f"rows must have the dtype of hidden, {hidden.dtype}, got {rows.dtype}")
    wide = torch.float32 if hidden.dtype in HALVES else hidden.dtype
    for name, tensor, size in (("offset", offset, len(rows)), ("first", first, len(hidden))):
        if tensor is not None and (tuple(tensor.shape) != (size,) or tensor.dtype != wide):
            raise ValueError(
                f"{name} must be ({size},) of {wide}, got {tuple(tensor.shape)} of {tensor.dtype}"
            )
