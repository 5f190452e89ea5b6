"""Quasi-recurrent unit (Bradbury, Merity, Xiong, Socher, "Quasi-Recurrent Neural Networks", ICLR 2017).

T time, B batch, I input features, H hidden size, D directions, L layers, G gate blocks (3, or 2 without output gate).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn.stacked import StackedRecurrence
from karui.ops.linear_recurrence import linear_recurrence


class QRNN(StackedRecurrence):
    """Quasi-recurrent layers: all gates by one product over a window of inputs, then a scan over time.

    z = tanh(W_z X + b_z), f = sigmoid(W_f X + b_f), o = sigmoid(W_o X + b_o), with X = x_t, or (x_t, x_{t-1}) with
    window 2; c_t = f c_{t-1} + (1 - f) z, h_t = o c_t: fo-pooling (section 2.1), f keeps the old state. With
    output_gate=False h_t = c_t: f-pooling. A reverse direction reads x_{t+1} where a forward one reads x_{t-1}.

    weight_ih_l{k} (G*H, window*I): blocks candidate, forget, output; newest input first. bias_ih_l{k} (G*H).
    State: with window 1 c (L*D, B, H). With window 2 the pair (c, last): last (L*D, B, W) is the input that each
    layer's product read last, W the widest of these inputs; what stands beyond a layer's own width is not read. None
    starts from zeros.
    Padding leaves both as they are, so x_{t-1} is always the previous real input.

    zoneout: in training each element keeps its state for one step with this probability; in eval() the update 1 - f is
    scaled by 1 - zoneout, its mean (section 2.1; Krueger et al. 2017). forget_bias: first value of b_f.
    The other arguments: see StackedRecurrence.
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
        implementation: str | None = None,
        window: int = 1,
        output_gate: bool = True,
        zoneout: float = 0.0,
        forget_bias: float = 0.0,
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
        if window not in (1, 2):
            raise ValueError(f"window must be 1 or 2, got {window}")
        if not 0.0 <= zoneout < 1.0:
            raise ValueError(f"zoneout must be in [0, 1), got {zoneout}")
        if forget_bias and not bias:
            raise ValueError(f"forget_bias={forget_bias} needs bias=True")
        self.window, self.output_gate, self.zoneout, self.forget_bias = (
            window,
            output_gate,
            zoneout,
            forget_bias,
        )
        self.build()

    def _build_layer(self, layer: int) -> None:
        rows = (3 if self.output_gate else 2) * self.hidden_size
        for suffix in self.suffixes:
            self.add_parameter(
                f"weight_ih_l{layer}{suffix}", rows, self.window * self.layer_input_size(layer)
            )
            if self.bias:
                self.add_parameter(f"bias_ih_l{layer}{suffix}", rows)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weights uniform with variance 1 / inputs, biases zero but for `forget_bias`."""
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith("weight_ih"):
                bound = math.sqrt(3.0 / parameter.shape[1])
                parameter.uniform_(-bound, bound)
            elif name.startswith("bias_ih"):
                parameter.zero_()
                parameter[self.hidden_size : 2 * self.hidden_size] = self.forget_bias

    def _split_state(self, hx: Any, x: Tensor) -> list[Any]:
        if self.window == 1:
            return super()._split_state(hx, x)
        if hx is not None and (not isinstance(hx, tuple) or len(hx) != 2):
            raise ValueError(f"hx must be the pair (c, last) with window=2, got {type(hx).__name__}")
        c, last = (None, None) if hx is None else hx
        D, width = self.num_directions, max(map(self.layer_input_size, range(self.num_layers)))
        shape = (self.num_layers * D, x.shape[1], width)
        if last is None:
            last = x.new_zeros(shape)
        if tuple(last.shape) != shape:
            raise ValueError(f"last input in hx must have shape {shape}, got {tuple(last.shape)}")
        return list(zip(super()._split_state(c, x), last.split(D), strict=True))

    def _join_state(self, states: list[Any]) -> Any:
        if self.window == 1:
            return super()._join_state(states)
        return tuple(torch.cat(parts) for parts in zip(*states, strict=True))

    def _run_layer(
        self, x: Tensor, layer: int, state: Any, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Any]:
        del skip  # no highway: the output is all that the next layer sees
        H = self.hidden_size
        c_0, last = (state, None) if self.window == 1 else state
        if last is None:
            bias = self.parameter("bias_ih", layer) if self.bias else None
            gates = F.linear(x, self.parameter("weight_ih", layer), bias)  # one product for all time steps
        else:
            gates, last = self._windowed(x, layer, last, padding_mask)
        G = 3 if self.output_gate else 2
        gates = gates.view(*x.shape[:2], self.num_directions, G, H)  # from (T, B, D*G*H)
        parts = gates.unbind(3)
        z, f = torch.tanh(parts[0]), torch.sigmoid(parts[1])
        if self.zoneout:
            update = (1.0 - f) * (1.0 - self.zoneout)
            if self.training:
                update = (1.0 - f) * torch.empty_like(f).bernoulli_(1.0 - self.zoneout)
            f, b = 1.0 - update, update * z
        else:
            b = torch.addcmul(z, f, z, value=-1.0)
        c, c_n = linear_recurrence(
            f, b, c_0=c_0.to(f.dtype), padding_mask=padding_mask, implementation=self.implementation
        )
        h = torch.sigmoid(parts[2]) * c if self.output_gate else c
        if padding_mask is not None:
            h = h.masked_fill(padding_mask[..., None, None], 0.0)
        return h.flatten(2), c_n if last is None else (c_n, last)

    def _windowed(
        self, x: Tensor, layer: int, last: Tensor, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Gates (T, B, D*G*H) of window 2 and the last inputs (D, B, W), from those of the call before."""
        gates, lasts, width = [], [], x.shape[2]
        for d, suffix in enumerate(self.suffixes):
            before, newest = previous_input(x, last[d, :, :width], padding_mask, reverse=d == 1)
            lasts.append(torch.cat([newest.to(last.dtype), last[d, :, width:]], 1))
            name = f"_ih_l{layer}{suffix}"
            bias = getattr(self, f"bias{name}") if self.bias else None
            gates.append(F.linear(torch.cat([x, before], 2), getattr(self, f"weight{name}"), bias))
        return torch.cat(gates, 2) if self.bidirectional else gates[0], torch.stack(lasts)


def previous_input(
    x: Tensor, first: Tensor, padding_mask: Tensor | None, *, reverse: bool
) -> tuple[Tensor, Tensor]:
    """The valid input before each step in the direction of the walk, and the last one of all.

    x (T, B, I), first (B, I): what comes before the first step. padding_mask (T, B), True = padding, or None.
    Returns (T, B, I) and (B, I).
    """
    T, B = x.shape[:2]
    if padding_mask is None:
        steps = [x, first.to(x.dtype)[None]] if reverse else [first.to(x.dtype)[None], x]
        both = torch.cat(steps)  # (T + 1, B, I)
        return (both[1:], both[0]) if reverse else (both[:-1], both[-1])
    if reverse:
        before, newest = previous_input(x.flip(0), first, padding_mask.flip(0), reverse=False)
        return before.flip(0), newest
    both = torch.cat([first.to(x.dtype)[None], x]).flatten(0, 1)
    steps = torch.arange(1, T + 1, device=x.device)[:, None].masked_fill(padding_mask, 0)
    newest = torch.cat([steps.new_zeros(1, B), steps.cummax(0).values])  # (T + 1, B): 0 is `first`
    found = both.index_select(0, (newest * B + torch.arange(B, device=x.device)).flatten())
    found = found.view(T + 1, B, -1)
    return found[:-1], found[-1]
