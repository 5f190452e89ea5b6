"""Simple Recurrent Unit: version 2 (Lei et al., EMNLP 2018: "Simple Recurrent Units for Highly Parallelizable
Recurrence") and version 1 (the same authors, arXiv 1709.02755 of 2017).

T time, B batch, I input features, H hidden size, D directions, L layers, G gate blocks (3, or 4 with a projected skip).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn.sru_base import SimpleRecurrence


class SRU(SimpleRecurrence):
    """Stacked Simple Recurrent Unit with `torch.nn.LSTM`'s call; the state is c alone.

    forward(input, hx=None, *, lengths=None, padding_mask=None) -> (output, c_n)
      input (T, B, I), or (B, T, I) with batch_first, or a PackedSequence; lengths (B,) marks right padding,
      padding_mask (B, T) padding anywhere. hx = c_0 and c_n: (L*D, B, H). output (T, B, D*H), zero in the padding.

    variant: "v2", gates read the old state; "v1", they do not, so no `weight_c`. activation: g of the output,
    "identity", "tanh" or "relu". has_skip_term: add the layer's input to its output; through a fourth gate block where
    the widths differ. highway_bias: first value of the reset bias. rescale: True multiplies the skip by
    sqrt(1 + 2 exp(highway_bias)), a number by that number, False by 1; a projected skip has it in its first weights.
    input_rank: weight_ih (G*H, I) becomes weight_ih (G*H, rank) times weight_rank (rank, I), shared by the directions,
    in each layer that this makes smaller (rank below its input width and below D*H).

    dropout: one mask a sequence on the transform branch of every layer but the last (in v1 on g(c) only). The other
    arguments stand in `StackedRecurrence`. 16-bit inputs are computed with a float32 state inside; under autocast the
    output has autocast's dtype and the state that of hx (of the input without one).
    Raises ValueError on arguments out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_dropout: float = 0.0,
        layer_norm: str | None = None,
        proj_size: int = 0,
        variant: str = "v2",
        activation: str = "identity",
        highway_bias: float = 0.0,
        rescale: bool | float = True,
        has_skip_term: bool = True,
        input_rank: int | None = None,
        implementation: str | None = None,
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
        self._set_recurrence(
            variant=variant,
            activation=activation,
            highway_bias=highway_bias,
            rescale=rescale,
            has_skip_term=has_skip_term,
        )
        self.input_rank = input_rank
        if input_rank is not None and not (
            input_rank >= 1 and any(self.layer_rank(k) for k in range(num_layers))
        ):
            widths = [self.layer_input_size(layer) for layer in range(num_layers)]
            raise ValueError(
                f"input_rank must be at least 1 and below an input width {widths} and the output width "
                f"{self.num_directions * hidden_size}, got {input_rank}"
            )
        self.build()

    def layer_rank(self, layer: int) -> int | None:
        """`input_rank` in a layer that it makes smaller, else None."""
        if self.input_rank is None:
            return None
        limit = min(self.layer_input_size(layer), self.num_directions * self.hidden_size)
        return self.input_rank if self.input_rank < limit else None

    def _build_layer(self, layer: int) -> None:
        size, rank = self.layer_input_size(layer), self.layer_rank(layer)
        if rank is not None:
            self.add_parameter(f"weight_rank_l{layer}", rank, size)
        self._build_gates(layer, rank or size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as the published package does: variance 1/I, gates times sqrt(1/2), v uniform in +-sqrt(3/2)."""
        super().reset_parameters()
        H = self.hidden_size
        for name, parameter in self.named_parameters():
            if name.startswith(("weight_ih", "weight_rank")):
                bound = math.sqrt(3.0 / parameter.shape[1])
                parameter.uniform_(-bound, bound)
            if name.startswith("weight_ih"):
                if self.variant == "v2":
                    parameter[H : 3 * H] *= math.sqrt(0.5)
                parameter *= math.sqrt(1.0 - self.recurrent_dropout) * (0.1 if self.layer_norm else 1.0)
                parameter[:H] *= math.sqrt(1.0 - self.dropout)
                parameter[3 * H :] *= self.skip_scale
            elif name.startswith("weight_c"):
                parameter.uniform_(-math.sqrt(1.5), math.sqrt(1.5))
            elif name.startswith("bias"):
                parameter.zero_()
                parameter[H:] = self.highway_bias

    def _split_state(self, hx: Any, x: Tensor) -> list[Any]:
        """None a layer where the states are zeros that the op knows: of the dtype of the layer's input, as x has it."""
        if hx is None and not torch.is_autocast_enabled(x.device.type):
            return [None] * self.num_layers
        return super()._split_state(hx, x)

    def _run_layer(
        self, x: Tensor, layer: int, state: Tensor | None, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.layer_rank(layer) is not None:
            x = F.linear(x, getattr(self, f"weight_rank_l{layer}"))
        return self._multiply_and_recur(x, layer, state, padding_mask, skip=skip)

    def step(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Tensor]:  # noqa: A002  torch's name
        """One time step: input (B, I) and state to output (B, P) and new state; raises ValueError if bidirectional.

        Fastest under `torch.no_grad()`, for a few sequences in float32 or float64 on a CPU.
        """
        states = self._states_of_one_step(input, hx)
        if states is None:
            return super().step(input, hx)
        x, found = input, []
        for layer, c_0 in enumerate(states):
            x, c = self._step_layer(x, layer, c_0)
            found.append(c)
        return x, torch.stack(found)

    def _states_of_one_step(self, x: Tensor, hx: Tensor | None) -> Sequence[Tensor] | None:
        """One state (B, H) a layer where the compiled step can run, else None: the general path does or raises."""
        from karui.ops.simple_recurrence.step import can_step

        random = self.training and (self.dropout or self.recurrent_dropout)
        if torch.is_grad_enabled() or self.bidirectional or random or not can_step(x, self.implementation):
            return None
        if x.shape[1:] != (self.input_size,):
            return None
        self._check_dtype(x)
        shape = (self.num_layers, len(x), self.hidden_size)
        if hx is None:
            return x.new_zeros(shape).unbind(0)
        fits = hx.shape == shape and hx.dtype == x.dtype and hx.device == x.device
        return hx.unbind(0) if fits else None

    def _step_layer(self, skip: Tensor, layer: int, c_0: Tensor) -> tuple[Tensor, Tensor]:
        """skip (B, I) and c_0 (B, H) to the output (B, P) and c (B, H), as `_run_and_wrap` does it without training."""
        from karui.ops.simple_recurrence.step import simple_recurrence_step

        x = self._normalise(skip, layer) if self.layer_norm == "pre" else skip
        if self.layer_rank(layer) is not None:
            x = F.linear(x, getattr(self, f"weight_rank_l{layer}"))
        output, c = simple_recurrence_step(
            x,
            skip if self.has_skip_term and self.gate_blocks(layer) == 3 else None,
            getattr(self, f"weight_ih_l{layer}"),
            getattr(self, f"weight_c_l{layer}") if self.variant == "v2" else None,
            getattr(self, f"bias_l{layer}") if self.bias else x.new_zeros(2 * self.hidden_size),
            c_0=c_0,
            activation=self.activation,
            scale=self.skip_scale,
        )
        if self.layer_norm == "post":
            output = self._normalise(output, layer)
        return self._project(output, layer) if self.proj_size else output, c
