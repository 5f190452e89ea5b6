"""What the recurrent modules share: lengths, packed input and axis order, converted once at the border."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


class Padded(NamedTuple):
    """A time-first batch and what is needed to hand results back in the caller's form."""

    input: Tensor  # (T, B, I)
    lengths: Tensor | None  # (B,) int64
    packed: PackedSequence | None


def to_padded(
    input: Tensor | PackedSequence,  # noqa: A002  torch's name
    *,
    lengths: Tensor | None,
    batch_first: bool,
    input_size: int,
) -> Padded:
    """Read any accepted form of input; raises ValueError on sizes that do not fit."""
    packed = None
    if isinstance(input, PackedSequence):
        if lengths is not None:
            raise ValueError("lengths must be None with a PackedSequence, which carries its own")
        packed = input
        input, lengths = pad_packed_sequence(packed)  # noqa: A001
    elif batch_first:
        input = input.transpose(0, 1)  # noqa: A001
    if input.dim() != 3 or input.shape[2] != input_size:
        raise ValueError(
            f"input must have {input_size} features in three dimensions, got {tuple(input.shape)}"
        )
    if lengths is not None:
        T, B = input.shape[:2]
        if lengths.shape != (B,):
            raise ValueError(f"lengths must have shape ({B},), got {tuple(lengths.shape)}")
        if B and not 0 <= int(lengths.min()) <= int(lengths.max()) <= T:
            raise ValueError(
                f"lengths must lie in [0, {T}], got {int(lengths.min())} to {int(lengths.max())}"
            )
        lengths = lengths.to(device=input.device, dtype=torch.int64)
        # Whatever stands in the padding, NaN included, changes nothing and gets no gradient.
        padding = torch.arange(T, device=input.device)[:, None, None] >= lengths[:, None]
        input = input.masked_fill(padding, 0.0)  # noqa: A001
    return Padded(input, lengths, packed)


def from_padded(output: Tensor, padded: Padded, *, batch_first: bool) -> Tensor | PackedSequence:
    """Give an output (T, B, F) the form that the input had."""
    packed = padded.packed
    if packed is None:
        return output.transpose(0, 1) if batch_first else output
    assert padded.lengths is not None
    again = pack_padded_sequence(output, padded.lengths.cpu(), enforce_sorted=False)
    order = packed.sorted_indices
    if order is None:  # the caller packed sorted sequences
        again = pack_padded_sequence(output, padded.lengths.cpu(), enforce_sorted=True)
    return PackedSequence(again.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
