"""The frame of karui's own recurrent layers: `torch.nn.LSTM`'s call around whatever one layer computes.

T time, B batch, I input features, H hidden size, P projected size (H without `proj_size`), D directions, L layers,
S state size.
"""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from karui.nn.sequence import from_padded, to_padded

LAYER_NORMS = (None, "pre", "post")


class StackedRecurrence(nn.Module):
    """Base of SRU, QRNN, MinGRU and StatisticalRecurrentUnit; it owns stacking, padding, dropout, norm and projection.

    forward(input, hx=None, *, lengths=None, padding_mask=None) -> (output, state)
      input (T, B, I), or (B, T, I) with batch_first, or a PackedSequence, or one sequence (T, I) and then states
      without the batch axis too. lengths (B,) marks right padding,
      padding_mask (B, T) boolean marks padding anywhere (True = padding): give at most one of them.
      output (T, B, D*P) in the form of input, zero in the padding. hx and state: (L*D, B, S), unless a layer says
      otherwise; None starts from zeros.

    dropout: on the output of every layer but the last. recurrent_dropout: one mask a sequence, the same at every step,
    on the input of the large product. layer_norm: "pre" on what the product reads (a skip connection reads the layer's
    input as it came), "post" on the D*H hidden features. proj_size: `weight_hr_l{k}` (P, H) maps the hidden features of
    each direction, after the norm, as in `torch.nn.LSTM`; the state keeps its width.

    A subclass calls `super().__init__`, sets its own options, calls `self.build()` and gives `_build_layer`,
    `_run_layer` and `reset_parameters` (which calls `super().reset_parameters()`); where its state is not H wide, also
    the property `state_size`, and where it is no single tensor, `_split_state` and `_join_state`.

    Raises ValueError on arguments out of range and on inputs that do not fit.
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
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {rate}")
        if layer_norm not in LAYER_NORMS:
            raise ValueError(f"layer_norm must be None, 'pre' or 'post', got {layer_norm!r}")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"proj_size must be in [0, hidden_size={hidden_size}), got {proj_size}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.layer_norm, self.proj_size, self.implementation = layer_norm, proj_size, implementation
        self.num_directions = 2 if bidirectional else 1
        self.suffixes = ("", "_reverse") if bidirectional else ("",)

    # What a subclass gives.

    @property
    def state_size(self) -> int:
        """Last axis of hx."""
        return self.hidden_size

    def _build_layer(self, layer: int) -> None:
        """Register the parameters of one layer with `self.add_parameter`, direction by direction."""
        raise NotImplementedError

    def _run_layer(
        self, x: Tensor, layer: int, state: Any, padding_mask: Tensor | None, *, skip: Tensor
    ) -> tuple[Tensor, Any]:
        """Run one layer over all steps.

        x (T, B, I): what the large product reads, after norm and recurrent dropout; skip (T, B, I): the layer's input
        as it came. Both are finite in the padding. state (D, B, S); padding_mask (T, B), True = padding, or None.
        Returns the output (T, B, D*H), zero in the padding, and the last state.
        """
        raise NotImplementedError

    def _split_state(self, hx: Any, x: Tensor) -> list[Any]:
        """One first state (D, B, S) a layer from what the caller gave; x (T, B, I) tells batch, dtype and device."""
        D = self.num_directions
        shape = (self.num_layers * D, x.shape[1], self.state_size)
        if hx is None:
            hx = x.new_zeros(shape)
        elif tuple(hx.shape) != shape:
            raise ValueError(f"hx must have shape {shape}, got {tuple(hx.shape)}")
        return list(hx.split(D)) if self.num_layers > 1 else [hx]

    def _join_state(self, states: list[Any]) -> Any:
        """The reverse of `_split_state`."""
        return torch.cat(states) if len(states) > 1 else states[0]

    def _drop_between(self, output: Tensor, layer: int) -> Tensor:
        """Dropout between layers: each feature of each step on its own, as `torch.nn.LSTM` does it."""
        last = layer + 1 == self.num_layers
        return output if last else F.dropout(output, self.dropout, self.training)

    # What a subclass may use.

    def build(self) -> None:
        """Register the parameters of all layers and initialise them."""
        for layer in range(self.num_layers):
            self._build_layer(layer)
            if self.proj_size:
                for suffix in self.suffixes:
                    self.add_parameter(f"weight_hr_l{layer}{suffix}", self.proj_size, self.hidden_size)
            if self.layer_norm is not None:
                pre = self.layer_norm == "pre"
                width = self.layer_input_size(layer) if pre else self.num_directions * self.hidden_size
                for kind in ("norm_weight", "norm_bias"):
                    self.add_parameter(f"{kind}_l{layer}", width)
        self.reset_parameters()

    def layer_input_size(self, layer: int) -> int:
        """Features that a layer reads."""
        return self.input_size if layer == 0 else self.num_directions * (self.proj_size or self.hidden_size)

    def add_parameter(self, name: str, *shape: int) -> None:
        """Register an empty parameter; those of one direction end in `l{layer}` and its suffix (`self.suffixes`)."""
        self.register_parameter(name, nn.Parameter(torch.empty(*shape)))

    def parameter(self, kind: str, layer: int) -> Tensor:
        """`{kind}_l{layer}`; of both directions, one below the other along the first axis, where there are two."""
        name = f"{kind}_l{layer}"
        if not self.bidirectional:
            return getattr(self, name)
        return torch.cat([getattr(self, name), getattr(self, f"{name}_reverse")])

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Norms to 1 and 0, output projections uniform with variance 1/H; the rest is the subclass's."""
        for name, parameter in self.named_parameters():
            if name.startswith("norm_weight"):
                parameter.fill_(1.0)
            elif name.startswith("norm_bias"):
                parameter.zero_()
            elif name.startswith("weight_hr"):
                bound = math.sqrt(3.0 / self.hidden_size)
                parameter.uniform_(-bound, bound)

    def extra_repr(self) -> str:
        """The arguments that differ from the defaults, as torch's layers print them."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, argument in list(inspect.signature(type(self)).parameters.items())[2:]:
            value = getattr(self, name)
            if value != argument.default:
                parts.append(f"{name}={value!r}")
        return ", ".join(parts)

    # The call.

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002  torch's name
        hx: Any = None,
        *,
        lengths: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Run all layers; see the class for shapes."""
        if isinstance(input, Tensor) and lengths is None and padding_mask is None:
            if input.dim() == 2:
                return self._forward_one(input, hx)
            if input.dim() == 3 and input.shape[2] == self.input_size:  # only the order of axes may differ
                self._check_dtype(input)
                output, state = self._run(input.transpose(0, 1) if self.batch_first else input, hx, None)
                return output.transpose(0, 1) if self.batch_first else output, state
        padded = to_padded(
            input,
            lengths=lengths,
            padding_mask=padding_mask,
            batch_first=self.batch_first,
            input_size=self.input_size,
        )
        self._check_dtype(padded.input)
        output, state = self._run(padded.input, hx, padded.padding_mask)
        return from_padded(output, padded, batch_first=self.batch_first), state

    def step(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:  # noqa: A002  torch's name
        """One time step: input (B, I) and state to output (B, P) and new state; raises ValueError if bidirectional."""
        if self.bidirectional:
            raise ValueError("step needs bidirectional=False: the reverse direction starts at the end")
        if input.dim() != 2 or input.shape[1] != self.input_size:
            raise ValueError(f"input must have shape (B, {self.input_size}), got {tuple(input.shape)}")
        self._check_dtype(input)
        output, state = self._run(input[None], hx, None)
        return output[0], state

    def _forward_one(self, input: Tensor, hx: Any) -> tuple[Tensor, Any]:  # noqa: A002
        """One sequence (T, I) without a batch axis; the states have none either."""
        axis = 0 if self.batch_first else 1
        if isinstance(hx, tuple | list):
            hx = tuple(part.unsqueeze(1) for part in hx)
        elif hx is not None:
            hx = hx.unsqueeze(1)
        output, state = self.forward(input.unsqueeze(axis), hx)
        state = tuple(p.squeeze(1) for p in state) if isinstance(state, tuple) else state.squeeze(1)
        return output.squeeze(axis), state

    def _check_dtype(self, x: Tensor) -> None:
        own = next(
            (p for p in self._parameters.values() if p is not None), None
        )  # parameters() walks the tree
        dtype = (next(self.parameters()) if own is None else own).dtype
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"input must have the dtype of the weights, {dtype}, got {x.dtype}")

    def _run(self, x: Tensor, hx: Any, padding_mask: Tensor | None) -> tuple[Tensor, Any]:
        states = self._split_state(hx, x)
        for layer, state in enumerate(states):
            x, states[layer] = self._run_and_wrap(x, layer, state, padding_mask)
        return x, self._join_state(states)

    def _run_and_wrap(
        self, skip: Tensor, layer: int, state: Any, padding_mask: Tensor | None
    ) -> tuple[Tensor, Any]:
        x = skip
        if self.layer_norm == "pre":
            x = self._normalise(x, layer)
        if self.training and self.recurrent_dropout:
            x = x * F.dropout(x.new_ones(x.shape[1:]), self.recurrent_dropout)
        output, state = self._run_layer(x, layer, state, padding_mask, skip=skip)
        if self.layer_norm == "post":
            output = self._normalise(output, layer)
            if padding_mask is not None and output.shape[0] == padding_mask.shape[0]:
                output = output.masked_fill(padding_mask[..., None], 0.0)  # the norm's bias stands there
        if self.proj_size:
            output = self._project(output, layer)
        return self._drop_between(output, layer), state

    def _normalise(self, x: Tensor, layer: int) -> Tensor:
        weight, bias = getattr(self, f"norm_weight_l{layer}"), getattr(self, f"norm_bias_l{layer}")
        return F.layer_norm(x, weight.shape, weight, bias).to(x.dtype)  # autocast would leave float32 behind

    def _project(self, output: Tensor, layer: int) -> Tensor:
        """(T, B, D*H) to (T, B, D*P)."""
        weights = [getattr(self, f"weight_hr_l{layer}{suffix}") for suffix in self.suffixes]
        parts = output.split(self.hidden_size, dim=-1)
        mapped = [F.linear(part, weight) for part, weight in zip(parts, weights, strict=True)]
        return torch.cat(mapped, dim=-1) if self.bidirectional else mapped[0]
