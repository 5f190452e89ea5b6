"""SRU++: the input product of the Simple Recurrent Unit replaced by a small attention block (Lei, "When Attention Meets
Fast Recurrence", EMNLP 2021, section 3).

T time, B batch, I input features, H hidden size, D directions, L layers, p attention size, M memory length, S = M + T.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from karui.nn.sru_base import SimpleRecurrence


class SRUpp(SimpleRecurrence):
    """Stacked SRU++ with `torch.nn.LSTM`'s call.

    In an attention layer, with z = W_rank x (p wide), q = z and (k, v) = W_kv z:
      o = norm(z + s softmax(q k' / sqrt(p / num_heads) + mask) v),    u = W_ih dropout(o),
    s a learned number that starts at 0; then version 2 of the Simple Recurrent Unit. In the other layers o = norm(z).
    There is no positional encoding: the recurrence knows the order.

    forward(input, hx=None, *, lengths=None, padding_mask=None) -> (output, state); input and output as in
    `StackedRecurrence`. Without memory, hx and state are c (L*D, B, H), and a call attends within itself alone.
    With memory_len = M > 0 they are (c, memory, memory_padding_mask): memory (attention layers, B, M, p) holds the z of
    the last M steps, oldest first, memory_padding_mask (1, B, M) is True where there was none; all steps attend to it,
    so calls up to M steps in total equal one long call. (The `sru` package keeps the layers' inputs and multiplies by
    W_rank again: the same numbers until the weights change.)

    attention_size: p. num_heads: heads, a divisor of p. attention_every: layers n, 2n, ... (counted from 1) attend.
    causal: a step attends to itself and earlier steps; None: where the layer is not bidirectional. attention_norm: the
    norm above. attention_dropout: on the softmax. dropout: besides SRU's, on each element of o. implementation:
    "reference" writes the attention as in the formula, which can be differentiated twice; else torch's fused one.
    The other arguments stand in `SRU` and `StackedRecurrence`. Raises ValueError on arguments out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        attention_size: int,
        num_heads: int = 1,
        attention_every: int = 1,
        causal: bool | None = None,
        memory_len: int = 0,
        attention_norm: bool = True,
        attention_dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_dropout: float = 0.0,
        layer_norm: str | None = None,
        proj_size: int = 0,
        activation: str = "identity",
        highway_bias: float = -2.0,
        rescale: bool | float = False,
        has_skip_term: bool = True,
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
            variant="v2",
            activation=activation,
            highway_bias=highway_bias if bias else 0.0,
            rescale=rescale,
            has_skip_term=has_skip_term,
        )
        if attention_size < 1 or num_heads < 1 or attention_size % num_heads:
            raise ValueError(f"attention_size={attention_size} must be a multiple of num_heads={num_heads}")
        if not 1 <= attention_every <= num_layers:
            raise ValueError(
                f"attention_every must be in [1, num_layers={num_layers}], got {attention_every}"
            )
        if memory_len < 0:
            raise ValueError(f"memory_len must be at least 0, got {memory_len}")
        if not 0.0 <= attention_dropout < 1.0:
            raise ValueError(f"attention_dropout must be in [0, 1), got {attention_dropout}")
        self.attention_size, self.num_heads, self.attention_every = attention_size, num_heads, attention_every
        self.causal, self.memory_len = causal, memory_len
        self.attention_norm, self.attention_dropout = attention_norm, attention_dropout
        self.build()

    def attends(self, layer: int) -> bool:
        """Whether a layer has attention."""
        return (layer + 1) % self.attention_every == 0

    def _build_layer(self, layer: int) -> None:
        p = self.attention_size
        self.add_parameter(f"weight_rank_l{layer}", p, self.layer_input_size(layer))
        if self.attends(layer):
            self.add_parameter(f"weight_kv_l{layer}", 2 * p, p)
            self.add_parameter(f"attention_scale_l{layer}", 1)
        if self.attention_norm:
            self.add_parameter(f"attention_norm_weight_l{layer}", p)
            self.add_parameter(f"attention_norm_bias_l{layer}", p)
        self._build_gates(layer, p)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as the package's development branch does: Xavier uniform, v uniform in +-1, scale 0."""
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith(("weight_rank", "weight_kv")):
                torch.nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_ih"):  # one matrix for both directions there
                rows, columns = parameter.shape
                bound = math.sqrt(6.0 / (columns + self.num_directions * rows) * (1.0 - self.dropout))
                parameter.uniform_(-bound, bound)
            elif name.startswith("weight_c"):
                parameter.uniform_(-1.0, 1.0)
            elif name.startswith("bias"):
                parameter.zero_()
                parameter[self.hidden_size :] = self.highway_bias
            elif name.startswith("attention_norm_weight"):
                parameter.fill_(1.0)
            elif name.startswith("attention"):
                parameter.zero_()

    def _split_state(self, hx: Any, x: Tensor) -> list[Any]:
        """(c, memory, absent) of each layer; the last two are None where a layer keeps none."""
        if not self.memory_len:
            return [(c, None, None) for c in super()._split_state(hx, x)]
        B, M, layers = x.shape[1], self.memory_len, self.num_layers
        count = sum(self.attends(layer) for layer in range(layers))
        if hx is None:
            memory, absent = x.new_zeros(count, B, M, self.attention_size), x.new_ones(1, B, M).bool()
            c = None
        elif not isinstance(hx, tuple | list) or len(hx) != 3:
            raise ValueError("hx must be (c, memory, memory_padding_mask) with memory_len > 0")
        else:
            c, memory, absent = hx
        shapes = {"memory": (memory, (count, B, M, self.attention_size)), "mask": (absent, (1, B, M))}
        for name, (part, shape) in shapes.items():
            if tuple(part.shape) != shape:
                raise ValueError(f"{name} in hx must have shape {shape}, got {tuple(part.shape)}")
        rows = iter(memory.unbind(0))
        return [
            (part, next(rows), absent[0]) if self.attends(layer) else (part, None, None)
            for layer, part in enumerate(super()._split_state(c, x))
        ]

    def _join_state(self, states: list[Any]) -> Any:
        c = super()._join_state([state[0] for state in states])
        kept = [state for state in states if state[1] is not None]
        return (c, torch.stack([memory for _, memory, _ in kept]), kept[0][2][None]) if kept else c

    def _run_layer(
        self, x: Tensor, layer: int, state: Any, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Any]:
        c_0, memory, absent = state
        z = F.linear(x, getattr(self, f"weight_rank_l{layer}"))
        o = z
        if self.attends(layer):
            past = z.transpose(0, 1)  # (B, S, p)
            hidden = None if padding_mask is None else padding_mask.t()  # (B, S), True = not to be seen
            if memory is not None:
                now = past.new_zeros(past.shape[:2], dtype=torch.bool) if hidden is None else hidden
                past, hidden = torch.cat([memory.to(z.dtype), past], dim=1), torch.cat([absent, now], dim=1)
                memory, absent = self._remember(past, hidden)
            o = z + getattr(self, f"attention_scale_l{layer}") * self._attend(z, past, hidden, layer)
        if self.attention_norm:
            names = (f"attention_norm_weight_l{layer}", f"attention_norm_bias_l{layer}")
            o = F.layer_norm(o, o.shape[2:], *(getattr(self, name) for name in names))
        u = self._to_gates(F.dropout(o, self.dropout, self.training), layer)
        output, c_n = self._recur(u, layer, c_0, padding_mask, skip=skip)
        return output, (c_n, memory, absent)

    def _attend(self, z: Tensor, past: Tensor, hidden: Tensor | None, layer: int) -> Tensor:
        """Queries z (T, B, p) over past (B, S, p), whose last T steps are z; hidden (B, S). Returns (T, B, p)."""
        T, B, p = z.shape
        S = past.shape[1]
        heads = (self.num_heads, p // self.num_heads)
        q = z.view(T, B, *heads).permute(1, 2, 0, 3)  # (B, heads, T, p/heads)
        kv = F.linear(past, getattr(self, f"weight_kv_l{layer}"))
        k, v = kv.view(B, S, 2, *heads).permute(2, 0, 3, 1, 4)
        seen = self._seen(T, S, hidden, z.device)
        rate = self.attention_dropout if self.training else 0.0
        if self.implementation == "reference" or not z.numel():
            scores = q @ k.transpose(2, 3) / math.sqrt(heads[1])
            if seen is not None:
                scores = scores.masked_fill(~seen, -torch.inf)
            attended = F.dropout(scores.softmax(dim=-1), rate) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=rate)
        return attended.permute(2, 0, 1, 3).reshape(T, B, p)

    def _seen(self, T: int, S: int, hidden: Tensor | None, device: torch.device) -> Tensor | None:
        """Which of S steps each of the last T may see, to broadcast over (B, heads, T, S); None = all."""
        causal = self.causal if self.causal is not None else not self.bidirectional
        if not causal and hidden is None:
            return None
        seen = torch.ones(T, S, dtype=torch.bool, device=device)
        if causal:
            seen = seen.tril(S - T)
        if hidden is None:
            return seen
        itself = torch.ones(T, S, dtype=torch.bool, device=device).triu(S - T).tril(S - T)
        return (seen & ~hidden[:, None, None]) | itself  # a step of padding sees itself: no row is empty

    def _remember(self, past: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The last M steps of past (B, S, p) that are not hidden (B, S), at the end; zeros before them."""
        M = self.memory_len
        order = torch.argsort(hidden.to(torch.uint8), dim=1, descending=True, stable=True)[:, -M:]
        absent = hidden.gather(1, order)
        memory = past.gather(1, order[..., None].expand(-1, -1, past.shape[2]))
        return memory.masked_fill(absent[..., None], 0.0), absent
