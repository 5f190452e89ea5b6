"""Where the valid steps of a padded batch are, and how they move to packed form and back.

T time, B batch, N valid steps, F features. One gather brings the valid steps of each sequence to its front, longest
sequence first, whatever side the padding is on; so a kernel on packed data never sees padding.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Where the valid steps of a batch are."""

    batch_sizes: Tensor  # (longest,) int64 on the CPU: sequences that reach each step
    rows: Tensor  # (N,) positions in the flattened batch, in packed order
    sequences: Tensor  # (sequences that are not empty,) positions in the batch, longest first

    def gather(self, padded: Tensor) -> Tensor:
        """(T, B, F) to (N, F)."""
        return padded.reshape(-1, padded.shape[2]).index_select(0, self.rows)

    def scatter(self, data: Tensor, shape: torch.Size) -> Tensor:
        """(N, F) back to (T, B, F), of which `shape` tells T and B; zero in the padding."""
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


def find_packing(padding: Tensor) -> Packing:
    """Packing of a batch (T, B, F) from its padding (T, B), True = padding; at least one step must be valid."""
    T, B = padding.shape
    lengths, order = (~padding).sum(0).sort(descending=True, stable=True)
    sequences = order[: int((lengths > 0).sum())]
    lengths = lengths[: len(sequences)]
    steps = padding[:, sequences].to(torch.uint8).argsort(dim=0, stable=True)  # valid steps first, in order
    valid = torch.arange(T, device=lengths.device)[:, None] < lengths  # (T, sequences)
    batch_sizes = valid.sum(1)[: int(lengths[0])].cpu()
    return Packing(batch_sizes, (steps * B + sequences)[valid], sequences)


def unpack_positions(batch_sizes: Tensor, device: torch.device) -> tuple[Tensor, Packing]:
    """Padding (T, B) and packing of a PackedSequence whose sequences stay in packed order."""
    padding = torch.arange(int(batch_sizes[0])) >= batch_sizes[:, None]
    rows = (~padding).flatten().nonzero()[:, 0].to(device)
    return padding.to(device), Packing(batch_sizes, rows, torch.arange(padding.shape[1], device=device))


def has_holes(padding: Tensor) -> bool:
    """Tell whether padding (T, B) stands between the valid steps of any sequence."""
    begins = (padding[:-1] & ~padding[1:]).sum(0) + ~padding[0]
    return bool((begins > 1).any())


def pads_the_end_only(padding: Tensor) -> bool:
    """Tell whether no valid step follows padding (T, B)."""
    return not bool((padding[:-1] & ~padding[1:]).any())


def at_last_valid(output: Tensor, padding: Tensor, first: Tensor, *, reverse: bool) -> Tensor:
    """What output (T, B, F) holds at each sequence's last valid step, or its first with `reverse`: (B, F).

    Where a sequence has none it is `first` (B, F).
    """
    T, B = padding.shape
    steps = torch.arange(T, device=padding.device)[:, None]
    index = steps.masked_fill(padding, T - 1).amin(0) if reverse else steps.masked_fill(padding, 0).amax(0)
    found = output[index, torch.arange(B, device=padding.device)]
    return torch.where(padding.all(0)[:, None], first, found)
