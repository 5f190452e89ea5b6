"""Right padding for torch's recurrent kernels: pack, run, pad again."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def run_with_lengths(
    forward: Callable[..., Any],
    input: Tensor | PackedSequence,  # noqa: A002  torch's name
    hx: Any,
    *,
    lengths: Tensor | None,
    batch_first: bool,
) -> Any:
    """Call a torch recurrent layer on padded input so that the padding changes nothing.

    Lengths start at 1: torch cannot pack an empty sequence.
    """
    if lengths is None:
        return forward(input, hx)
    if isinstance(input, PackedSequence):
        raise ValueError("lengths must be None with a PackedSequence, which carries its own")  # noqa: TRY004
    batch_size, seq_len = input.shape[0 if batch_first else 1], input.shape[1 if batch_first else 0]
    if lengths.shape != (batch_size,):
        raise ValueError(f"lengths must have shape ({batch_size},), got {tuple(lengths.shape)}")
    if batch_size and not 1 <= int(lengths.min()) <= int(lengths.max()) <= seq_len:
        raise ValueError(
            f"lengths must lie in [1, {seq_len}], got {int(lengths.min())} to {int(lengths.max())}"
        )
    if batch_size and bool((lengths == seq_len).all()):
        return forward(input, hx)
    packed = pack_padded_sequence(input, lengths.cpu(), batch_first=batch_first, enforce_sorted=False)
    output, state = forward(packed, hx)
    padded, _ = pad_packed_sequence(output, batch_first=batch_first, total_length=seq_len)
    return padded, state
