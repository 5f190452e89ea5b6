"""Valid steps of a padded batch, moved to where torch's recurrent kernels want them and back.

T time, B batch, N valid steps, F features. One gather brings the valid steps of each sequence to its front, longest
sequence first, whatever side the padding is on; so a kernel never sees padding and its walk from the end starts right.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Where the valid steps of a batch are."""

    batch_sizes: Tensor  # (longest,) int64 on the CPU: sequences that reach each step
    rows: Tensor  # (N,) positions in the flattened batch, in packed order
    sequences: Tensor  # (sequences that are not empty,) positions in the batch, longest first

    def gather(self, input: Tensor) -> Tensor:  # noqa: A002
        """(T, B, F) or (B, T, F), as `find_packing` was told, to (N, F)."""
        return input.reshape(-1, input.shape[2]).index_select(0, self.rows)

    def scatter(self, data: Tensor, shape: torch.Size) -> Tensor:
        """(N, F) back to the first two axes of `shape`; zero in the padding."""
        flat = data.new_zeros(shape[0] * shape[1], data.shape[1])
        return flat.index_copy(0, self.rows, data).view(shape[0], shape[1], data.shape[1])


def find_padding(
    lengths: Tensor | None,
    padding_mask: Tensor | None,
    *,
    seq_len: int,
    batch_size: int,
    device: torch.device,
) -> Tensor | None:
    """One form of both arguments: (B, T) boolean, True = padding; None where nothing is padded.

    Raises ValueError when they do not fit the batch or both are given.
    """
    if lengths is not None and padding_mask is not None:
        raise ValueError("give lengths or padding_mask, not both")
    if lengths is not None:
        if lengths.shape != (batch_size,):
            raise ValueError(f"lengths must have shape ({batch_size},), got {tuple(lengths.shape)}")
        if batch_size and not 0 <= int(lengths.min()) <= int(lengths.max()) <= seq_len:
            raise ValueError(
                f"lengths must lie in [0, {seq_len}], got {int(lengths.min())} to {int(lengths.max())}"
            )
        padding_mask = torch.arange(seq_len, device=device) >= lengths.to(device)[:, None]
    if padding_mask is None:
        return None
    if padding_mask.shape != (batch_size, seq_len) or padding_mask.dtype != torch.bool:
        raise ValueError(
            f"padding_mask must be boolean of shape ({batch_size}, {seq_len}), "
            f"got {padding_mask.dtype} {tuple(padding_mask.shape)}"
        )
    return padding_mask.to(device) if bool(padding_mask.any()) else None


def find_packing(padding_mask: Tensor, *, batch_first: bool) -> Packing:
    """Packing of a batch (T, B, F), or (B, T, F) with batch_first, from its padding mask (B, T).

    At least one step must be valid.
    """
    B, T = padding_mask.shape
    lengths, order = (~padding_mask).sum(1).sort(descending=True, stable=True)
    sequences = order[: int((lengths > 0).sum())]
    lengths = lengths[: len(sequences)]
    steps = padding_mask[sequences].to(torch.uint8).argsort(dim=1, stable=True)  # valid steps first, in order
    valid = torch.arange(T, device=lengths.device)[:, None] < lengths  # (T, sequences)
    positions = steps + sequences[:, None] * T if batch_first else steps * B + sequences[:, None]
    batch_sizes = valid.sum(1)
    return Packing(batch_sizes[: int(lengths[0])].cpu(), positions.t()[valid], sequences)
