"""Long short-term memory over torch's own kernels, with padding anywhere, Gal's dropout, layer norm and streaming."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from karui.nn.packing import has_holes, pads_the_end_only
from karui.nn.torch_kernels import HOLD, State, TorchRecurrence


class LSTM(TorchRecurrence, nn.LSTM):
    """`torch.nn.LSTM` with more options (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000).

    i, f, o = sigmoid(W x + b + U h + b'); g = tanh(likewise); c' = f c + i g; h' = o tanh(c'); with proj_size h' is
    multiplied by weight_hr. Gate order i, f, g, o (rows of the weights).

    forward(input, hx=None, *, lengths=None, padding_mask=None) -> (output, (h_n, c_n))
      input (T, B, I), or (B, T, I) with batch_first, or a PackedSequence. lengths (B,): right padding;
      padding_mask (B, T): True = padding, anywhere. In padding the state passes through and output
      (T, B, D*R) is zero; what stands there changes nothing and gets no gradient.
      hx = (h_0 (L*D, B, R), c_0 (L*D, B, H)); R = proj_size or H.

    dropout: between layers, each element on its own, as torch.
    recurrent_dropout: one mask a sequence, direction and call on the h that the recurrent product of all gates reads
      the same at every step (Gal and Ghahramani 2016). Torch's kernels cannot do that: training then
      runs a loop in Python, on a GPU several times slower; eval() does not.
    layer_norm: "pre" on each layer's input, "post" on each layer's output, by norm_weight_l{k} and norm_bias_l{k}.
    forget_bias: first value of the forget gate's whole bias (torch's two bias vectors add up to it); None: as torch.
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
        proj_size: int = 0,
        *,
        recurrent_dropout: float = 0.0,
        layer_norm: str | None = None,
        forget_bias: float | None = None,
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
            proj_size=proj_size,
            device=device,
            dtype=dtype,
        )
        if forget_bias is not None and not bias:
            raise ValueError(f"forget_bias={forget_bias} needs bias=True")
        self.forget_bias = forget_bias
        self._add_options(recurrent_dropout=recurrent_dropout, layer_norm=layer_norm)

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002  torch's name
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """Run all layers over all steps; see the class for shapes."""
        output, (h_n, c_n) = self._forward(input, hx, lengths=lengths, padding_mask=padding_mask)
        return output, (h_n, c_n)

    def step(
        self,
        input: Tensor,  # noqa: A002  torch's name
        hx: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One step for streaming: input (B, I) -> (output (B, R), (h_n, c_n)); states as in forward.

        Plain matrix products: torch's kernel packs its weights anew at each call on a CPU. Raises ValueError for two
        directions, and in training with dropout.
        """
        output, (h_n, c_n) = self._step(input, hx)
        return output, (h_n, c_n)

    def _set_first_values(self) -> None:
        super()._set_first_values()
        forget_bias = getattr(self, "forget_bias", None)  # torch's constructor comes here before it is set
        if forget_bias is not None:
            self._set_gate_bias(1, forget_bias)

    def _state_sizes(self) -> tuple[int, ...]:
        return self.proj_size or self.hidden_size, self.hidden_size

    def _hold_column(self, weights: Sequence[Tensor]) -> Tensor:
        i, f, g, o = weights[0].new_tensor([-HOLD, HOLD, 0.0, -HOLD]).split(1)  # c' = c, h' = 0
        return torch.cat([part.expand(self.hidden_size) for part in (i, f, g, o)])[:, None]

    def _can_hold(self, padding: Tensor, *, starts_from_zero: bool) -> bool:
        # c is held, h is lost: good where no valid step follows padding, or where the h to keep is zero
        if starts_from_zero:
            return not has_holes(padding)
        return not self.bidirectional and pads_the_end_only(padding)

    def _kernel(
        self, x: Tensor, batch_sizes: Tensor | None, state: State, *rest: Any
    ) -> tuple[Tensor, State]:
        weights, num_layers, dropout = rest
        tail = (weights, self.bias, num_layers, dropout, self.training, self.bidirectional)
        if batch_sizes is None:
            output, *last = torch._VF.lstm(x, state, *tail, False)  # noqa: SLF001
        else:
            output, *last = torch._VF.lstm(x, batch_sizes, state, *tail)  # noqa: SLF001
        return output, tuple(last)

    def _advance(self, projected: Tensor, h: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        gates = projected + F.linear(h, weights[1], weights[3] if self.bias else None)
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return F.linear(h, weights[-1]) if self.proj_size else h, c
