"""What SRU and SRU++ share: everything that follows the input product.

T time, B batch, H hidden size, D directions, G gate blocks (3, or 4 with a projected skip).
"""

import math
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from karui.nn.stacked import StackedRecurrence
from karui.ops.simple_recurrence import simple_recurrence, simple_recurrence_layer

ACTIVATIONS = ("identity", "tanh", "relu")
VARIANTS = ("v1", "v2")


class SimpleRecurrence(StackedRecurrence):
    """Gates, skip and dropout around the op `simple_recurrence`; a subclass gives the product u of a layer."""

    def _set_recurrence(
        self,
        *,
        variant: str,
        activation: str,
        highway_bias: float,
        rescale: bool | float,
        has_skip_term: bool,
    ) -> None:
        """Check and keep the options of the recurrence; called before the layers are built."""
        if variant not in VARIANTS:
            raise ValueError(f"variant must be 'v1' or 'v2', got {variant!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be 'identity', 'tanh' or 'relu', got {activation!r}")
        if highway_bias and not self.bias:
            raise ValueError(f"highway_bias must be 0 with bias=False, got {highway_bias}")
        self.variant, self.activation, self.highway_bias = variant, activation, highway_bias
        self.rescale, self.has_skip_term = rescale, has_skip_term

    def gate_blocks(self, layer: int) -> int:
        """3, or 4 where the skip needs a projection because the widths differ."""
        same = self.layer_input_size(layer) == self.num_directions * self.hidden_size
        return 4 if self.has_skip_term and not same else 3

    @property
    def skip_scale(self) -> float:
        """Alpha of the skip term; for a projected skip it is in the initial weights instead."""
        if isinstance(self.rescale, bool):
            return math.sqrt(1.0 + 2.0 * math.exp(self.highway_bias)) if self.rescale else 1.0
        return float(self.rescale)

    def _build_gates(self, layer: int, in_features: int) -> None:
        """Register weight_ih (G*H, in_features), weight_c (2H) unless v1, bias (2H) unless bias=False."""
        for suffix in self.suffixes:
            blocks = self.gate_blocks(layer) * self.hidden_size
            self.add_parameter(f"weight_ih_l{layer}{suffix}", blocks, in_features)
            if self.variant == "v2":
                self.add_parameter(f"weight_c_l{layer}{suffix}", 2 * self.hidden_size)
            if self.bias:
                self.add_parameter(f"bias_l{layer}{suffix}", 2 * self.hidden_size)

    def _drop_between(self, output: Tensor, layer: int) -> Tensor:  # noqa: ARG002  the mask acts inside the layer
        return output

    def _dropout_mask(self, like: Tensor, layer: int) -> Tensor | None:
        """Mask (B, D*H) in the dtype of a tensor (T, B, ...)."""
        if not (self.training and self.dropout) or layer + 1 == self.num_layers:
            return None
        return F.dropout(like.new_ones(like.shape[1], self.num_directions * self.hidden_size), self.dropout)

    def _to_gates(self, x: Tensor, layer: int) -> Tensor:
        """One product for all time steps and directions: x (T, B, *) to u (T, B, D, G, H)."""
        u = F.linear(x, self.parameter("weight_ih", layer))
        return u.view(*x.shape[:2], self.num_directions, self.gate_blocks(layer), self.hidden_size)

    def _recur(
        self, u: Tensor, layer: int, c_0: Tensor, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Tensor]:
        weight_c, bias = self._gate_parameters(u, layer)
        gates = (self.num_directions, 2, self.hidden_size)
        return simple_recurrence(
            u,
            skip if self._reads_skip(layer) else None,
            None if weight_c is None else weight_c.view(gates),
            bias.view(gates),
            c_0=c_0,
            padding_mask=padding_mask,
            **self._options(u, layer),
        )

    def _multiply_and_recur(
        self, x: Tensor, layer: int, c_0: Tensor | None, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`_to_gates` and `_recur` in one, which is faster where the op can do both; c_0 None stands for zeros."""
        weight_c, bias = self._gate_parameters(x, layer)
        if self.bidirectional:
            gates = (2, 2, self.hidden_size)
            weight_c, bias = None if weight_c is None else weight_c.view(gates), bias.view(gates)
        return simple_recurrence_layer(
            x,
            self.parameter("weight_ih", layer),
            skip if self._reads_skip(layer) else None,
            weight_c,
            bias,
            c_0=c_0,
            padding_mask=padding_mask,
            **self._options(x, layer),
        )

    def _gate_parameters(self, like: Tensor, layer: int) -> tuple[Tensor | None, Tensor]:
        """weight_c, None in version 1, and bias (D*2*H,), zeros of the dtype of `like` where the layer has none."""
        weight_c = self.parameter("weight_c", layer) if self.variant == "v2" else None
        if self.bias:
            return weight_c, self.parameter("bias", layer)
        return weight_c, like.new_zeros(self.num_directions * 2 * self.hidden_size)

    def _reads_skip(self, layer: int) -> bool:
        return self.has_skip_term and self.gate_blocks(layer) == 3

    def _options(self, like: Tensor, layer: int) -> dict[str, Any]:
        """Words and dropout mask of the op; `like` has its dtype and shape (T, B, ...)."""
        return {
            "dropout_mask": self._dropout_mask(like, layer),
            "variant": self.variant,
            "activation": self.activation,
            "scale": self.skip_scale,
            "implementation": self.implementation,
        }
