"""Simple Recurrent Unit, version 2 (Lei et al., EMNLP 2018: "Simple Recurrent Units for Highly Parallelizable
Recurrence").

T time, B batch, I input features, H hidden size, D directions, L layers, G gate blocks (3, or 4 with a projected skip).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from karui.nn.sequence import from_padded, to_padded
from karui.ops.simple_recurrence import simple_recurrence


class SRU(nn.Module):
    """Stacked Simple Recurrent Unit with `torch.nn.LSTM`'s call; the state is c alone.

    forward(input, hx=None, *, lengths=None) -> (output, c_n)
      input (T, B, I), or (B, T, I) with batch_first, or a PackedSequence; lengths (B,) marks right padding.
      hx = c_0 and c_n: (L*D, B, H). output (T, B, D*H), zero in the padding.

    highway_bias: first value of the reset bias. rescale: multiply the skip by sqrt(1 + 2 exp(highway_bias)).
    recurrent_dropout: one mask a sequence on the input of the matrix product; dropout: one mask a sequence on the
    transform branch of every layer but the last. Raises ValueError on arguments out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_dropout: float = 0.0,
        activation: str = "identity",
        highway_bias: float = 0.0,
        rescale: bool = True,
        has_skip_term: bool = True,
        implementation: str | None = None,
    ) -> None:
        super().__init__()
        for name, size in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
        ):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {rate}")
        if activation not in ("identity", "tanh"):
            raise ValueError(f"activation must be 'identity' or 'tanh', got {activation!r}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.recurrent_dropout, self.activation, self.highway_bias = (
            recurrent_dropout,
            activation,
            highway_bias,
        )
        self.rescale, self.has_skip_term, self.implementation = rescale, has_skip_term, implementation
        self.num_directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            for suffix in self._suffixes():
                size, blocks = self.layer_input_size(layer), self.gate_blocks(layer)
                weight = nn.Parameter(torch.empty(blocks * hidden_size, size))
                self.register_parameter(f"weight_ih_l{layer}{suffix}", weight)
                self.register_parameter(
                    f"weight_c_l{layer}{suffix}", nn.Parameter(torch.empty(2 * hidden_size))
                )
                self.register_parameter(f"bias_l{layer}{suffix}", nn.Parameter(torch.empty(2 * hidden_size)))
        self.reset_parameters()

    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def layer_input_size(self, layer: int) -> int:
        """Features that a layer reads."""
        return self.input_size if layer == 0 else self.num_directions * self.hidden_size

    def gate_blocks(self, layer: int) -> int:
        """3, or 4 where the skip needs a projection because the widths differ."""
        return (
            4
            if self.has_skip_term and self.layer_input_size(layer) != self.num_directions * self.hidden_size
            else 3
        )

    @property
    def skip_scale(self) -> float:
        """Alpha of the skip term; for a projected skip it is in the initial weights instead."""
        return math.sqrt(1.0 + 2.0 * math.exp(self.highway_bias)) if self.rescale else 1.0

    def reset_parameters(self) -> None:
        """Initialise as the published package does: variance 1/I, gates times sqrt(1/2), v uniform in +-sqrt(3/2)."""
        H = self.hidden_size
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("weight_ih"):
                    bound = math.sqrt(3.0 / parameter.shape[1])
                    parameter.uniform_(-bound, bound)
                    parameter[H : 3 * H] *= math.sqrt(0.5)
                    parameter *= math.sqrt(1.0 - self.recurrent_dropout)
                    parameter[:H] *= math.sqrt(1.0 - self.dropout)
                    parameter[3 * H :] *= self.skip_scale
                elif name.startswith("weight_c"):
                    parameter.uniform_(-math.sqrt(1.5), math.sqrt(1.5))
                else:
                    parameter.zero_()
                    parameter[H:] = self.highway_bias

    def _layer(self, x: Tensor, layer: int, c_0: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        T, B, D, H, G = *x.shape[:2], self.num_directions, self.hidden_size, self.gate_blocks(layer)
        stack = [
            [getattr(self, f"{kind}_l{layer}{s}") for s in self._suffixes()]
            for kind in ("weight_ih", "weight_c", "bias")
        ]
        weight, weight_c, bias = torch.cat(stack[0]), torch.stack(stack[1]), torch.stack(stack[2])
        source = x
        if self.training and self.recurrent_dropout:
            source = x * F.dropout(x.new_ones(B, x.shape[2]), self.recurrent_dropout)
        mask = None
        if self.training and self.dropout and layer + 1 < self.num_layers:
            mask = F.dropout(x.new_ones(B, D * H), self.dropout)
        projected = F.linear(source, weight).view(T, B, D, G, H)  # one product for all time steps
        return simple_recurrence(
            projected,
            x if self.has_skip_term and G == 3 else None,
            weight_c.view(D, 2, H),
            bias.view(D, 2, H),
            c_0=c_0,
            lengths=lengths,
            dropout_mask=mask,
            activation=self.activation,
            scale=self.skip_scale,
            implementation=self.implementation,
        )

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002  torch's name
        hx: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run all layers; see the class for shapes."""
        padded = to_padded(input, lengths=lengths, batch_first=self.batch_first, input_size=self.input_size)
        x, D = padded.input, self.num_directions
        shape = (self.num_layers * D, x.shape[1], self.hidden_size)
        c_0 = x.new_zeros(shape) if hx is None else hx
        if tuple(c_0.shape) != shape:
            raise ValueError(f"hx must have shape {shape}, got {tuple(c_0.shape)}")
        states = []
        for layer in range(self.num_layers):
            x, c_n = self._layer(x, layer, c_0[layer * D : (layer + 1) * D], padded.lengths)
            states.append(c_n)
        return from_padded(x, padded, batch_first=self.batch_first), torch.cat(states)

    def extra_repr(self) -> str:
        """The arguments that differ from the defaults, as torch's layers print them."""
        flags = [f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"]
        for name in ("batch_first", "bidirectional"):
            if getattr(self, name):
                flags.append(f"{name}=True")
        return ", ".join(flags)
