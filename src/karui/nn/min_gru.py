"""Minimal gated recurrent unit (Feng, Tung, Ahmed, Bengio, Hajimirsadeghi, "Were RNNs All We Needed?", 2024).

T time, B batch, I input features, H hidden size, D directions, L layers.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn.stacked import StackedRecurrence
from karui.ops.linear_recurrence import linear_recurrence


class MinGRU(StackedRecurrence):
    """minGRU: a GRU whose gate and candidate do not read the state, so that all time steps are one product and a scan.

    z = sigmoid(W_z x), n = g(W_h x), h_t = (1 - z) h_{t-1} + z n, with g(a) = a + 0.5 for a >= 0, else sigmoid(a): the
    positive candidate of the paper's log-space form (appendix B), computed here without logarithms, so a first state
    may have any sign. The output is h.

    weight_ih_l{k} (2*H, I): blocks candidate, gate; with bias=True bias_ih_l{k} (2*H). State: h (L*D, B, H).
    update_bias: first value of the gate's bias, negative to keep the state longer. Arguments: see StackedRecurrence;
    unlike there, bias is False unless asked for, as in the paper's code.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_dropout: float = 0.0,
        layer_norm: str | None = None,
        proj_size: int = 0,
        implementation: str | None = None,
        update_bias: float = 0.0,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            recurrent_dropout=recurrent_dropout,
            layer_norm=layer_norm,
            proj_size=proj_size,
            implementation=implementation,
        )
        if update_bias and not bias:
            raise ValueError(f"update_bias={update_bias} needs bias=True")
        self.update_bias = update_bias
        self.build()

    def _build_layer(self, layer: int) -> None:
        for suffix in self.suffixes:
            self.add_parameter(
                f"weight_ih_l{layer}{suffix}", 2 * self.hidden_size, self.layer_input_size(layer)
            )
            if self.bias:
                self.add_parameter(f"bias_ih_l{layer}{suffix}", 2 * self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weights uniform with variance 1 / inputs, biases zero but for `update_bias`."""
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith("weight_ih"):
                bound = math.sqrt(3.0 / parameter.shape[1])
                parameter.uniform_(-bound, bound)
            elif name.startswith("bias_ih"):
                parameter.zero_()
                parameter[self.hidden_size :] = self.update_bias

    def _run_layer(
        self, x: Tensor, layer: int, state: Tensor, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Tensor]:
        del skip  # no highway: the output is all that the next layer sees
        bias = self.parameter("bias_ih", layer) if self.bias else None
        gates = F.linear(x, self.parameter("weight_ih", layer), bias)  # one product for all time steps
        hidden, gate = gates.view(*x.shape[:2], self.num_directions, 2, self.hidden_size).unbind(3)
        z = torch.sigmoid(gate)
        n = torch.where(hidden >= 0, hidden + 0.5, torch.sigmoid(hidden))
        h, h_n = linear_recurrence(
            1.0 - z,
            z * n,
            c_0=state.to(z.dtype),
            padding_mask=padding_mask,
            implementation=self.implementation,
        )
        if padding_mask is not None:
            h = h.masked_fill(padding_mask[..., None, None], 0.0)
        return h.flatten(2), h_n
