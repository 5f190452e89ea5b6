"""Long short-term memory over torch's own kernels, with `lengths`."""

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from karui.nn.torch_kernels import run_with_lengths


class LSTM(nn.LSTM):
    """`torch.nn.LSTM` that also takes `lengths` (B,): right padding changes nothing and its output is zero.

    forward(input, hx=None, *, lengths=None) -> (output, (h_n, c_n)); gate order i, f, g, o (rows of the weights).
    """

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002  torch's name
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """As torch.nn.LSTM; raises ValueError when lengths do not fit the batch."""
        return run_with_lengths(super().forward, input, hx, lengths=lengths, batch_first=self.batch_first)
