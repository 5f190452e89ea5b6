"""Layers whose weights are drawn in training and masked at test time; each wraps the layer it replaces as `base`.

`weights` maps the base's parameter names to their sparse state, `gates` holds the gates that several of them share.
In training one draw is shared by all time steps and all sequences of a mini-batch, because the state at one step
depends on the same weights as the next.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.sparse.gate import Gate
from karui.sparse.weight import Ranked, SparseWeight


class Drawn:
    """What a gate of two layers drew for a step, from the one called first to the other; a copy starts empty."""

    value: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Drawn":
        return Drawn()


class SparseLayer(nn.Module):
    """What all wrapped layers share.

    Attributes that a wrapper lacks are the base's (`hidden_size`, `bias`); a sparse weight asked for by its name is the
    value that the next forward would use, a draw in training; the parameter behind it is `base.weight`.
    """

    # Of gates that lie in two layers (`karui.sparse.joint`), in tuples: the lending layer alone registers them.
    lends: tuple[tuple[Gate, Drawn], ...] = ()
    borrows: tuple[tuple[Gate, Drawn], ...] = ()
    partners: tuple["SparseLayer", ...] = ()
    is_settled = False

    def __init__(
        self, base: nn.Module, weights: Mapping[str, SparseWeight], gates: Mapping[str, Gate] | None = None
    ) -> None:
        super().__init__()
        self.base = base
        self.weights = nn.ModuleDict(weights)
        if gates:
            self.gates = nn.ModuleDict(gates)

    def states(self) -> list[tuple[str, Tensor, SparseWeight]]:
        """(parameter name, mean, sparse state) of each sparse weight."""
        base, weights = self._modules["base"], self._modules["weights"]
        return [(name, parameter_of(base, name), state) for name, state in weights.items()]  # type: ignore[union-attr, operator]

    def shared_gates(self) -> dict[str, Gate]:
        """Gates that several weights pass through, by name."""
        return dict(self._modules["gates"].items()) if "gates" in self._modules else {}  # type: ignore[union-attr]

    def shared_means(self, gate: Gate) -> list[Tensor]:
        """The weights that pass through a gate of the layer, in the order of its divisions."""
        states = (each for layer in (self, *self.partners) for each in layer.states())
        return [mean for _, mean, state in states if any(g is gate for g, _ in state.gates())]

    def drawn(self) -> dict[Gate, Tensor]:
        """Factors of the gates that several weights pass through, for one step."""
        found = {gate: gate.sample() for gate in self.shared_gates().values()}
        for gate, slot in self.lends:
            slot.value = found[gate]
        for gate, slot in self.borrows:
            found[gate] = gate.sample() if slot.value is None else slot.value
            slot.value = None
        return found

    def ranked(self) -> list[Ranked]:
        """Scores of everything in this layer that can be pruned."""
        own = [ranked for _, mean, state in self.states() for ranked in state.ranked(mean)]
        for gate in self.shared_gates().values():
            own.append(Ranked(gate.score(*self.shared_means(gate)), gate, gate.divisions[0]))
        return own

    def renew(self) -> None:
        """Let gates that keep a mask take it from their cuts."""
        for _, mean, state in self.states():
            for gate, _ in state.own_gates():
                gate.renew(mean)
        for gate in self.shared_gates().values():
            gate.renew(*self.shared_means(gate))

    @property
    def draws(self) -> bool:
        """Whether a forward draws weights: in training, until the layer is settled."""
        return self.training and not self.is_settled

    def settle(self) -> None:
        """Fix what is pruned now: gates and noise are out, training goes on with the weights that are left.

        Gates get no gradients from then on, and no later projection to as many weights takes others.
        """
        self.hold()
        layers = (self, *self.partners)
        kept = [(state, state.keep_mask(mean)) for layer in layers for _, mean, state in layer.states()]
        for gate in self.shared_gates().values():
            alive = [d.sum(mask.float()) for state, mask in kept for g, d in state.gates() if g is gate]
            gate.settle(torch.stack(alive).sum(0) > 0)
        for state, mask in kept[: len(self.weights)]:
            state.settle(mask)

    def hold(self) -> None:
        """The part of `settle` that is not in the state dict."""
        for _, mean, state in self.states():
            state.hold(mean)
        self.is_settled = True

    def fixed(self, mean: Tensor, state: SparseWeight, rows: Tensor | None = None) -> Tensor:
        """A weight without draws: the settled one in training, else the deployed one."""
        is_settled = self.training and self.is_settled
        return state.settled(mean, rows) if is_settled else state.deployed(mean, rows)

    def penalties(self) -> list[Tensor]:
        """What the method adds to the loss, a part a weight, then a part a shared gate."""
        parts = [state.penalty(mean) for _, mean, state in self.states()]
        shared = [gate.penalty() for gate in self.shared_gates().values()]
        return parts + [part for part in shared if part is not None]

    def current(self) -> dict[str, Tensor]:
        """All sparse weights as the next forward uses them: a draw in training, else the deployed values."""
        if not self.draws:
            return {name: self.fixed(mean, state) for name, mean, state in self.states()}
        drawn = self.drawn()
        return {name: state.sample(mean, shared=drawn) for name, mean, state in self.states()}

    def plain(self) -> nn.Module:
        """A copy of the base that holds the deployed weights."""
        import copy

        base = copy.deepcopy(self.base)
        with torch.no_grad():
            for name, mean, state in self.states():
                getattr(base, name).copy_(state.deployed(mean))
        return base.train(self.training)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if "base" not in modules or "weights" not in modules:
                raise
            if name in modules["weights"]:
                return self.current()[name]
            return getattr(modules["base"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_modules", {}).get("weights", ()):
            raise AttributeError(
                f"{name} of a sparse layer cannot be set: copy values into base.{name} instead"
            )
        super().__setattr__(name, value)


def parameter_of(module: Any, name: str) -> Any:
    """The module's attribute, mostly a parameter: found where those are kept, in a tenth of the time."""
    found = module._parameters.get(name)  # noqa: SLF001
    return getattr(module, name) if found is None else found


def base_of(module: nn.Module) -> nn.Module:
    """The layer that a sparse one wraps; any other is its own."""
    return module.base if isinstance(module, SparseLayer) else module


class SparseLinear(SparseLayer):
    """`torch.nn.Linear`; how a batch meets the random weight is the method's choice (`SparseWeight.product`)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As torch.nn.Linear."""
        base: Any = self._modules["base"]
        states: Any = self._modules["weights"]
        state = states["weight"]
        mean, bias = parameter_of(base, "weight"), parameter_of(base, "bias")
        if self.draws:
            return state.product(input, mean, bias)
        return F.linear(input, self.fixed(mean, state), bias)


class SparseConv(SparseLayer):
    """`torch.nn.Conv1d` and `Conv2d`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """As the wrapped convolution."""
        base, [(_, mean, state)] = self.base, self.states()

        def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return base._conv_forward(x, weight, bias)  # type: ignore[operator]  # noqa: SLF001

        if self.draws and input.dim() == mean.dim():
            return state.convolution(convolve, input, mean, base.bias)  # type: ignore[arg-type]
        return convolve(input, self.current()["weight"], base.bias)  # type: ignore[arg-type]


class SparseEmbedding(SparseLayer):
    """`torch.nn.Embedding`; only the rows that the batch reads are drawn."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """ids of any shape (...) to (..., embedding_dim)."""
        [(_, mean, state)] = self.states()
        rows, inverse = _distinct(input, len(mean))
        if self.draws:
            table = state.sample(mean, rows, shared=self.drawn())
        else:
            table = self.fixed(mean, state, rows)
        if self.base.padding_idx is not None:
            table = table * rows.ne(self.base.padding_idx)[:, None]  # type: ignore[arg-type]
        return F.embedding(inverse, table)

    def plain(self) -> nn.Module:
        """As the base class; the row of padding_idx is zero."""
        base = super().plain()
        if base.padding_idx is not None:
            with torch.no_grad():
                base.weight[base.padding_idx] = 0.0  # type: ignore[index]
        return base


def _distinct(ids: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """`torch.unique` of ids in [0, num_rows) with its inverse; without a sort where a table of all rows is short."""
    if num_rows > 4 * ids.numel():
        return torch.unique(ids, return_inverse=True)
    flat = ids.reshape(-1).long()
    rows = ids.new_zeros(num_rows, dtype=torch.bool).scatter_(0, flat, True).nonzero()[:, 0]
    place = rows.new_empty(num_rows).index_copy_(0, rows, torch.arange(len(rows), device=ids.device))
    return rows, place.index_select(0, flat).view(ids.shape)


class SparseRecurrent(SparseLayer):
    """Any recurrent layer whose weights are plain parameters: those of `karui.nn`, `torch.nn.LSTM`, `torch.nn.GRU`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the wrapped layer."""
        return self._with_current(None, args, kwargs)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """As the wrapped layer's `step`, for layers of `karui.nn`."""
        return self._with_current("step", args, kwargs)

    def _with_current(self, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        current = self.current()
        base: Any = self.base
        flat = getattr(base, "_flat_weights", None)
        if flat is None:
            if method is None:
                return torch.func.functional_call(base, current, args, kwargs)
            with nn.utils.stateless._reparametrize_module(base, current):  # noqa: SLF001
                return getattr(base, method)(*args, **kwargs)
        # torch's recurrent layers read this list, not their parameters, when they call their kernel.
        names = base._flat_weights_names  # noqa: SLF001
        replaced = [current.get(name, value) for name, value in zip(names, flat, strict=True)]
        try:
            base._flat_weights = replaced  # noqa: SLF001
            return (base if method is None else getattr(base, method))(*args, **kwargs)
        finally:
            base._flat_weights = flat  # noqa: SLF001


class SparseFactorised(SparseLayer):
    """`karui.sparse.Factorised`: two matrices with a gate on each of the rank-one parts between them."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(..., in_features) to (..., out_features)."""
        base: Any = self.base
        drawn = self.drawn() if self.draws else {}
        states = dict(self.weights.items())
        for name, bias in (("weight_in", None), ("weight_out", base.bias)):
            mean, state = getattr(base, name), states.get(name)
            if not isinstance(state, SparseWeight):
                input = F.linear(input, mean, bias)  # noqa: A001
            elif self.draws:
                input = state.product(input, mean, bias, shared=drawn)  # noqa: A001
            else:
                input = F.linear(input, self.fixed(mean, state), bias)  # noqa: A001
        return input

    def plain(self) -> nn.Module:
        """Two dense matrices, without the parts that are pruned."""
        return super().plain().without_dead_parts()  # type: ignore[operator]
