"""Gated recurrent unit over torch's own kernels, with `lengths`."""

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from karui.nn.torch_kernels import run_with_lengths


class GRU(nn.GRU):
    """`torch.nn.GRU` that also takes `lengths` (B,): right padding changes nothing and its output is zero.

    forward(input, hx=None, *, lengths=None) -> (output, h_n); gate order r, z, n; reset after the hidden product.
    """

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002  torch's name
        hx: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """As torch.nn.GRU; raises ValueError when lengths do not fit the batch."""
        return run_with_lengths(super().forward, input, hx, lengths=lengths, batch_first=self.batch_first)
