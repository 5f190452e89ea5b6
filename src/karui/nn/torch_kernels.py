"""What `LSTM` and `GRU` add to torch's layers; parameter names, gate order and `_flat_weights` stay torch's.

T time, B batch, I input features, H hidden size, R width of h (proj_size, or H), D directions, L layers, G gate blocks.
Three ways to compute, all linear in T:

- torch's fused kernels: on dense input, and on a GPU on packed input;
- on a CPU the same kernels on padded input, whose gates an extra input feature drives into saturation in the padding,
  so that the state is held there: torch's packed kernels take slices of one tensor, and the gradients of slices make
  their backward quadratic in T on a CPU (ten times slower at T 256, H 512);
- a loop over time in Python for what the kernels cannot do: a dropout mask inside the recurrent product, no valid step
  at all, and an LSTM that enters padding before its valid steps with a state to keep.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends.cudnn.rnn import get_cudnn_mode
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from karui.nn.packing import at_last_valid, find_packing, find_padding, unpack_positions

State = tuple[Tensor, ...]
HOLD = 1e4  # saturates a gate exactly in every dtype, whatever else is added to it


class TorchRecurrence(nn.RNNBase):
    """Base of LSTM and GRU, mixed in before torch's class of that name."""

    layer_norm: str | None = None
    recurrent_dropout: float = 0.0

    def _add_options(self, *, recurrent_dropout: float, layer_norm: str | None) -> None:
        """Check the options, register the parameters of layer norm, and set first values that are not torch's."""
        if not 0.0 <= recurrent_dropout < 1.0:
            raise ValueError(f"recurrent_dropout must be in [0, 1), got {recurrent_dropout}")
        if layer_norm not in (None, "pre", "post"):
            raise ValueError(f"layer_norm must be None, 'pre' or 'post', got {layer_norm!r}")
        self.recurrent_dropout, self.layer_norm = recurrent_dropout, layer_norm
        like: Any = self.weight_ih_l0
        outputs = (2 if self.bidirectional else 1) * (self.proj_size or self.hidden_size)
        for layer in range(self.num_layers if layer_norm else 0):
            width = self.input_size if layer_norm == "pre" and layer == 0 else outputs
            for kind in ("weight", "bias"):
                setattr(self, f"norm_{kind}_l{layer}", nn.Parameter(like.new_empty(width)))
        self._set_first_values()
        self.flatten_parameters()

    def reset_parameters(self) -> None:
        """As torch's layer, layer norm to the identity, and the gate bias if one was asked for."""
        super().reset_parameters()
        self._set_first_values()

    def _set_first_values(self) -> None:
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("norm_"):
                    parameter.fill_(1.0 if name.startswith("norm_weight") else 0.0)

    def _set_gate_bias(self, block: int, value: float) -> None:
        """Make the two biases of one gate add up to `value`."""
        H = self.hidden_size
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith(("bias_ih", "bias_hh")):
                    first = value if name.startswith("bias_ih") else 0.0
                    parameter[block * H : (block + 1) * H] = first

    # What a subclass gives.

    def _kernel(
        self, x: Tensor, batch_sizes: Tensor | None, state: State, *rest: Any
    ) -> tuple[Tensor, State]:
        raise NotImplementedError

    def _advance(self, projected: Tensor, h: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        """One step of one direction: projected (B, G*H) = W x + b, h the state as the recurrent product reads it."""
        raise NotImplementedError

    def _state_sizes(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _hold_column(self, weights: Sequence[Tensor]) -> Tensor:
        """Weights (G*H, 1) of a feature that is 1 in the padding and makes one direction hold its state."""
        raise NotImplementedError

    def _can_hold(self, padding: Tensor, *, starts_from_zero: bool) -> bool:
        """Tell whether saturated gates hold all that later valid steps read; padding (T, B)."""
        raise NotImplementedError

    # What all calls share.

    def _first_state(self, input: Tensor, hx: Any, batch_size: int) -> State:  # noqa: A002
        many = self.num_layers * (2 if self.bidirectional else 1)
        shapes = [(many, batch_size, size) for size in self._state_sizes()]
        if hx is None:
            return tuple(input.new_zeros(shape) for shape in shapes)
        state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        found = [tuple(part.shape) for part in state]
        if found != shapes:
            expected = " and ".join(str(shape) for shape in shapes)
            raise ValueError(
                f"hx must have shape {expected}, got {' and '.join(str(shape) for shape in found)}"
            )
        return state

    def _working(
        self, x: Tensor, state: State, *, kernels: bool
    ) -> tuple[Tensor, State, list[Tensor], AbstractContextManager[Any]]:
        """Input, state and weights in one dtype, and the context to compute in.

        Under autocast that is autocast's dtype, as torch's layers do on a GPU; there the kernels see to it themselves.
        """
        self._update_flat_weights()
        weights: list[Tensor] = list(self._flat_weights)  # type: ignore[arg-type]
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            if x.dtype != torch.float64 and not (kernels and x.is_cuda):
                dtype = torch.get_autocast_dtype(kind)
                x, state = x.to(dtype), tuple(part.to(dtype) for part in state)
                weights = [weight.to(dtype) for weight in weights]
                return x, state, weights, torch.autocast(kind, enabled=False)
        elif x.dtype != weights[0].dtype:
            raise ValueError(f"input must have the dtype of the weights, {weights[0].dtype}, got {x.dtype}")
        return x, tuple(part.contiguous() for part in state), weights, nullcontext()

    def _forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002
        hx: Any,
        *,
        lengths: Tensor | None,
        padding_mask: Tensor | None,
    ) -> tuple[Any, State]:
        if isinstance(input, PackedSequence):
            if lengths is not None or padding_mask is not None:
                raise ValueError(
                    "lengths and padding_mask must be None with a PackedSequence, which carries its own lengths"
                )
            return self._forward_packed(input, hx)
        if (
            input.dim() == 2 and lengths is None and padding_mask is None
        ):  # one sequence (T, I), as torch takes it
            axis = 0 if self.batch_first else 1
            hx = None if hx is None else tuple(p[:, None] for p in ((hx,) if isinstance(hx, Tensor) else hx))
            output, state = self._forward(input.unsqueeze(axis), hx, lengths=None, padding_mask=None)
            return output.squeeze(axis), tuple(part.squeeze(1) for part in state)
        if input.dim() != 3 or input.shape[2] != self.input_size:
            raise ValueError(
                f"input must have {self.input_size} features in three dimensions, got {tuple(input.shape)}"
            )
        T, B = input.shape[:2] if not self.batch_first else (input.shape[1], input.shape[0])
        state = self._first_state(input, hx, B)
        padding = find_padding(lengths, padding_mask, seq_len=T, batch_size=B, device=input.device)
        if padding is not None:
            padding = padding.t()  # (T, B)
        x = input.transpose(0, 1) if self.batch_first else input
        output, state = self._run(x, state, padding, starts_from_zero=hx is None)
        return output.transpose(0, 1) if self.batch_first else output, state

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, State]:
        data, batch_sizes, order, back = packed
        if data.shape[1] != self.input_size:
            raise ValueError(f"input must have {self.input_size} features, got {data.shape[1]}")
        state = self._first_state(data, hx, int(batch_sizes[0]))
        if order is not None:
            state = tuple(part.index_select(1, order) for part in state)
        if data.is_cuda and not self._drops_state():
            x, state, weights, context = self._working(data, state, kernels=True)
            with context:
                output, state = self._kernels(x, batch_sizes, state, weights)
        else:
            padding, packing = unpack_positions(batch_sizes, data.device)
            x = packing.scatter(data, padding.shape)
            padded, state = self._run(
                x, state, padding if bool(padding.any()) else None, starts_from_zero=hx is None
            )
            output = packing.gather(padded)
        if back is not None:
            state = tuple(part.index_select(1, back) for part in state)
        return PackedSequence(output, batch_sizes, order, back), state

    def _run(
        self, x: Tensor, state: State, padding: Tensor | None, *, starts_from_zero: bool
    ) -> tuple[Tensor, State]:
        """All layers by the fastest way that gives the right numbers: x (T, B, I), padding (T, B)."""
        looped = self._drops_state() or x.numel() == 0
        if padding is not None and not looped:
            packed = x.is_cuda
            looped = (
                bool(padding.all())
                if packed
                else not self._can_hold(padding, starts_from_zero=starts_from_zero)
            )
        x, state, weights, context = self._working(x, state, kernels=not looped)
        with context:
            if looped:
                return self._loop(x, state, weights, padding)
            if padding is None:
                return self._kernels(x, None, state, weights)
            if not x.is_cuda:
                return self._held(x, state, weights, padding)
            packing = find_packing(padding)
            chosen = tuple(part.index_select(1, packing.sequences) for part in state)
            data, last = self._kernels(packing.gather(x), packing.batch_sizes, chosen, weights)
            pairs = zip(state, last, strict=True)
            state = tuple(old.index_copy(1, packing.sequences, new) for old, new in pairs)
            return packing.scatter(data, padding.shape), state

    def _drops_state(self) -> bool:
        return self.training and self.recurrent_dropout > 0.0

    def _norm(self, x: Tensor, layer: int) -> Tensor:
        weight, bias = getattr(self, f"norm_weight_l{layer}"), getattr(self, f"norm_bias_l{layer}")
        return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), bias.to(x.dtype))

    def _kernels(
        self, x: Tensor, batch_sizes: Tensor | None, state: State, weights: list[Tensor]
    ) -> tuple[Tensor, State]:
        """Torch's kernels: all layers in one call, or one at a time with layer norm between them."""
        if self.layer_norm is None:
            return self._kernel(x, batch_sizes, state, weights, self.num_layers, self.dropout)
        D, many, lasts = 2 if self.bidirectional else 1, len(weights) // self.num_layers, []
        for layer in range(self.num_layers):
            source = self._norm(x, layer) if self.layer_norm == "pre" else x
            own = tuple(part[layer * D : (layer + 1) * D] for part in state)
            x, last = self._kernel(
                source, batch_sizes, own, weights[layer * many : (layer + 1) * many], 1, 0.0
            )
            x = self._norm(x, layer) if self.layer_norm == "post" else x
            if layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
            lasts.append(last)
        return x, tuple(torch.cat(parts) for parts in zip(*lasts, strict=True))

    def _held(self, x: Tensor, state: State, weights: list[Tensor], padding: Tensor) -> tuple[Tensor, State]:
        """Torch's kernels on padded input, gates driven to hold the state in the padding (T, B)."""
        D, gone, lasts = 2 if self.bidirectional else 1, padding[..., None], []
        many, column = len(weights) // (self.num_layers * D), gone.to(x.dtype)
        x = x.masked_fill(gone, 0.0)
        for layer in range(self.num_layers):
            source = self._norm(x, layer).masked_fill(gone, 0.0) if self.layer_norm == "pre" else x
            own = weights[layer * D * many : (layer + 1) * D * many]
            for first in range(0, len(own), many):
                column_weights = self._hold_column(own[first : first + many])
                own[first] = torch.cat([own[first], column_weights], 1)
            old = tuple(part[layer * D : (layer + 1) * D] for part in state)
            x, last = self._kernel(torch.cat([source, column], 2), None, old, own, 1, 0.0)
            lasts.append(self._last_valid(x, padding, old, last))
            if self.layer_norm == "post":
                x = self._norm(x, layer)
            x = x.masked_fill(gone, 0.0)
            if layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(torch.cat(parts) for parts in zip(*lasts, strict=True))

    def _last_valid(self, output: Tensor, padding: Tensor, old: State, last: State) -> State:
        """Last states of a layer: h as the output has it, the rest as the kernel held it."""
        halves = output.split(old[0].shape[2], 2)
        h_n = [at_last_valid(half, padding, old[0][d], reverse=d == 1) for d, half in enumerate(halves)]
        empty = padding.all(0)[:, None]
        pairs = zip(old[1:], last[1:], strict=True)
        return torch.stack(h_n), *(torch.where(empty, before, after) for before, after in pairs)

    def _loop(
        self, x: Tensor, state: State, weights: list[Tensor], padding: Tensor | None
    ) -> tuple[Tensor, State]:
        """All layers step by step: x (T, B, I), padding (T, B) True = padding."""
        D = 2 if self.bidirectional else 1
        many, lasts = len(weights) // (self.num_layers * D), []
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)  # NaN there must not reach a gradient
        for layer in range(self.num_layers):
            source, outputs = self._norm(x, layer) if self.layer_norm == "pre" else x, []
            for k in range(layer * D, (layer + 1) * D):
                own = tuple(part[k] for part in state)
                output, last = self._loop_direction(
                    source, own, weights[k * many : (k + 1) * many], padding, reverse=k % D == 1
                )
                outputs.append(output)
                lasts.append(last)
            x = torch.cat(outputs, 2)
            if self.layer_norm == "post":
                x = self._norm(x, layer)
            if padding is not None:
                x = x.masked_fill(padding[..., None], 0.0)
            if layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(torch.stack(parts) for parts in zip(*lasts, strict=True))

    def _loop_direction(
        self, x: Tensor, state: State, weights: list[Tensor], padding: Tensor | None, *, reverse: bool
    ) -> tuple[Tensor, State]:
        mask = F.dropout(torch.ones_like(state[0]), self.recurrent_dropout) if self._drops_state() else None
        projected = self._project(x, weights)
        steps, outputs = projected.unbind(0), []  # unbind: slicing would make the backward quadratic in T
        order = range(len(steps) - 1, -1, -1) if reverse else range(len(steps))
        for t in order:
            new = self._advance(steps[t], state[0] if mask is None else state[0] * mask, state, weights)
            if padding is not None:
                held = padding[t, :, None]
                new = tuple(torch.where(held, old, part) for old, part in zip(state, new, strict=True))
            state = new
            outputs.append(state[0])
        if not outputs:
            return projected[..., : state[0].shape[1]], state  # (0, B, R)
        return torch.stack(outputs[::-1] if reverse else outputs), state

    def _project(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Input's share of all gates, (..., G*H), biases that stand outside the gates included."""
        return F.linear(x, weights[0], weights[2] if self.bias else None)

    def _step(self, input: Tensor, hx: Any) -> tuple[Tensor, State]:  # noqa: A002
        if self.bidirectional:
            raise ValueError("step needs bidirectional=False: the reverse direction starts at the end")
        if self.training and (self.dropout or self.recurrent_dropout):
            raise ValueError("step needs eval() where dropout is set: its masks belong to whole sequences")
        if input.dim() != 2 or input.shape[1] != self.input_size:
            raise ValueError(f"input must have shape (B, {self.input_size}), got {tuple(input.shape)}")
        state = self._first_state(input, hx, len(input))
        x, state, weights, context = self._working(input, state, kernels=False)
        many, lasts = len(weights) // self.num_layers, []
        with context:
            for layer in range(self.num_layers):
                own = weights[layer * many : (layer + 1) * many]
                old = tuple(part[layer] for part in state)
                source = self._norm(x, layer) if self.layer_norm == "pre" else x
                lasts.append(self._advance(self._project(source, own), old[0], old, own))
                x = self._norm(lasts[-1][0], layer) if self.layer_norm == "post" else lasts[-1][0]
        return x, tuple(torch.stack(parts) for parts in zip(*lasts, strict=True))

    def flatten_parameters(self) -> None:
        """Lay the weights out as cuDNN wants them: in one buffer, or in one a layer where layer norm stands between."""
        weights: list[Any] = list(self._flat_weights)
        if self.layer_norm is None:
            super().flatten_parameters()
        elif all(
            isinstance(w, Tensor) and w.is_cuda and torch.backends.cudnn.is_acceptable(w) for w in weights
        ):
            many, D = len(weights) // self.num_layers, 2 if self.bidirectional else 1
            with torch.cuda.device_of(weights[0]), torch.no_grad():
                for k in range(0, len(weights), many):
                    torch._cudnn_rnn_flatten_weight(  # noqa: SLF001  # type: ignore[attr-defined]
                        weights[k : k + many],
                        many // D,
                        weights[k].shape[1],
                        get_cudnn_mode(self.mode),
                        self.hidden_size,
                        self.proj_size,
                        1,
                        self.batch_first,
                        self.bidirectional,
                    )

    def extra_repr(self) -> str:
        """Torch's line, and the options that differ from their defaults."""
        text = super().extra_repr()
        for name in ("recurrent_dropout", "layer_norm", "forget_bias", "update_bias"):
            value = getattr(self, name, None)
            text += f", {name}={value!r}" if value else ""
        return text
