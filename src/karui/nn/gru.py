"""Gated recurrent unit over torch's own kernels, with padding anywhere, Gal's dropout, layer norm and streaming."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from karui.nn.torch_kernels import HOLD, State, TorchRecurrence


class GRU(TorchRecurrence, nn.GRU):
    """`torch.nn.GRU` with more options (Cho et al. 2014; reset gate after the hidden product, as in torch and cuDNN).

    r, z = sigmoid(W x + b + U h + b'); n = tanh(W x + b + r (U h + b')); h' = (1 - z) n + z h: z keeps the old state.
    Gate order r, z, n (rows of the weights).

    forward(input, hx=None, *, lengths=None, padding_mask=None) -> (output, h_n)
      input (T, B, I), or (B, T, I) with batch_first, or a PackedSequence. lengths (B,): right padding;
      padding_mask (B, T): True = padding, anywhere. In padding the state passes through and output
      (T, B, D*H) is zero; what stands there changes nothing and gets no gradient.
      hx = h_0 (L*D, B, H).

    dropout: between layers, each element on its own, as torch.
    recurrent_dropout: one mask a sequence, direction and call on the h that the recurrent product of all gates reads
      (not on the h that z keeps), the same at every step (Gal and Ghahramani 2016). Torch's kernels cannot do that:
      training then runs a loop in Python, on a GPU several times slower; eval() does not.
    layer_norm: "pre" on each layer's input, "post" on each layer's output, by norm_weight_l{k} and norm_bias_l{k}.
    update_bias: first value of the update gate's whole bias (torch's two bias vectors add up to it), positive to keep
      the state longer; None: as torch.
    Under autocast the layer works in autocast's dtype and answers in it, on every device. Raises ValueError on sizes
    and rates that do not fit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        recurrent_dropout: float = 0.0,
        layer_norm: str | None = None,
        update_bias: float | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
        )
        if update_bias is not None and not bias:
            raise ValueError(f"update_bias={update_bias} needs bias=True")
        self.update_bias = update_bias
        self._add_options(recurrent_dropout=recurrent_dropout, layer_norm=layer_norm)

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002  torch's name
        hx: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Any, Tensor]:
        """Run all layers over all steps; see the class for shapes."""
        output, (h_n,) = self._forward(input, hx, lengths=lengths, padding_mask=padding_mask)
        return output, h_n

    def step(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: A002
        """One step for streaming: input (B, I) -> (output (B, H), h_n); the state as in forward.

        Raises ValueError for two directions, and in training with dropout.
        """
        output, (h_n,) = self._step(input, hx)
        return output, h_n

    def _set_first_values(self) -> None:
        super()._set_first_values()
        update_bias = getattr(self, "update_bias", None)  # torch's constructor comes here before it is set
        if update_bias is not None:
            self._set_gate_bias(1, update_bias)

    def _state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size,)

    def _hold_column(self, weights: Sequence[Tensor]) -> Tensor:
        # r = 0, z = 1 and n = tanh(0): torch computes n + z (h - n), which is h exactly only for n = 0
        r_z = weights[0].new_tensor([-HOLD, HOLD]).repeat_interleave(self.hidden_size)
        n = -weights[2][2 * self.hidden_size :].detach() if self.bias else r_z.new_zeros(self.hidden_size)
        return torch.cat([r_z, n])[:, None]

    def _can_hold(self, padding: Tensor, *, starts_from_zero: bool) -> bool:  # noqa: ARG002
        return True

    def _kernel(
        self, x: Tensor, batch_sizes: Tensor | None, state: State, *rest: Any
    ) -> tuple[Tensor, State]:
        weights, num_layers, dropout = rest
        tail = (weights, self.bias, num_layers, dropout, self.training, self.bidirectional)
        if batch_sizes is None:
            output, last = torch._VF.gru(x, state[0], *tail, False)  # noqa: SLF001
        else:
            output, last = torch._VF.gru(x, batch_sizes, state[0], *tail)  # noqa: SLF001
        return output, (last,)

    def _advance(self, projected: Tensor, h: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        H = self.hidden_size
        hidden = F.linear(h, weights[1], weights[3] if self.bias else None)
        r, z = torch.sigmoid(projected[:, : 2 * H] + hidden[:, : 2 * H]).chunk(2, 1)
        n = torch.tanh(torch.addcmul(projected[:, 2 * H :], r, hidden[:, 2 * H :]))
        return (n + z * (state[0] - n),)
