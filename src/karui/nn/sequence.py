"""What the recurrent modules share: lengths, masks, packed input and axis order, converted once at the border."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


class Padded(NamedTuple):
    """A time-first batch and what is needed to hand results back in the caller's form."""

    input: Tensor  # (T, B, I), zero in the padding
    padding_mask: Tensor | None  # (T, B) boolean, True = padding; None where every step is real
    packed: PackedSequence | None
    lengths: Tensor | None  # (B,) int64, with packed input


def to_padded(
    input: Tensor | PackedSequence,  # noqa: A002  torch's name
    *,
    lengths: Tensor | None = None,
    padding_mask: Tensor | None = None,
    batch_first: bool,
    input_size: int,
) -> Padded:
    """Read any accepted form of input; raises ValueError on sizes that do not fit.

    lengths (B,) marks right padding, padding_mask (B, T) boolean marks padding anywhere: give one of them.
    """
    if lengths is not None and padding_mask is not None:
        raise ValueError("give lengths or padding_mask, not both")
    packed = None
    if isinstance(input, PackedSequence):
        if lengths is not None or padding_mask is not None:
            name = "padding_mask" if lengths is None else "lengths"
            raise ValueError(f"{name} must be None with a PackedSequence, which carries its own lengths")
        packed = input
        x, lengths = pad_packed_sequence(packed)
    else:
        x = input.transpose(0, 1) if batch_first and input.dim() == 3 else input
    if x.dim() != 3 or x.shape[2] != input_size:
        raise ValueError(
            f"input must have {input_size} features in three dimensions, got {tuple(input.shape)}"  # type: ignore[union-attr]
        )
    if lengths is not None:
        mask = _from_lengths(lengths, x)
    elif padding_mask is not None:
        mask = _from_mask(padding_mask, x)
    else:
        return Padded(x, None, None, None)
    if mask is not None:
        # Whatever stands in the padding, NaN included, changes nothing and gets no gradient.
        x = x.masked_fill(mask[..., None], 0.0)
    return Padded(x, mask, packed, lengths if packed is not None else None)


def _from_lengths(lengths: Tensor, x: Tensor) -> Tensor | None:
    T, B = x.shape[:2]
    if lengths.shape != (B,):
        raise ValueError(f"lengths must have shape ({B},), got {tuple(lengths.shape)}")
    if not torch.compiler.is_compiling():  # a graph cannot look at values
        shortest, longest = (int(lengths.min()), int(lengths.max())) if B else (T, T)
        if not 0 <= shortest <= longest <= T:
            raise ValueError(f"lengths must lie in [0, {T}], got {shortest} to {longest}")
        if shortest == T:
            return None
    return torch.arange(T, device=x.device)[:, None] >= lengths.to(device=x.device, dtype=torch.int64)


def _from_mask(padding_mask: Tensor, x: Tensor) -> Tensor:
    T, B = x.shape[:2]
    if padding_mask.shape != (B, T) or padding_mask.dtype != torch.bool:
        raise ValueError(
            f"padding_mask must be boolean of shape ({B}, {T}), got {padding_mask.dtype} "
            f"{tuple(padding_mask.shape)}"
        )
    return padding_mask.to(x.device).t().contiguous()


def from_padded(output: Tensor, padded: Padded, *, batch_first: bool) -> Tensor | PackedSequence:
    """Give an output (T, B, F) the form that the input had; fewer steps than the input had stay a tensor."""
    packed, lengths = padded.packed, padded.lengths
    if packed is None or lengths is None or output.shape[0] != padded.input.shape[0]:
        return output.transpose(0, 1) if batch_first and packed is None else output
    order = packed.sorted_indices
    if order is not None:
        output, lengths = output.index_select(1, order), lengths[order.cpu()]
    data = pack_padded_sequence(output, lengths.cpu(), enforce_sorted=True).data
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
