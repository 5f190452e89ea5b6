"""What a method adds to one weight; the mean stays a parameter of the layer that it belongs to.

A weight W is multiplied by one factor for each group that its elements belong to: W_ij z_i z_j ..., a product of
independent gates. It is kept where all of them are kept, so the expected number of kept weights is the sum over the
elements of the product of the gates' open probabilities.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from karui.sparse.division import Axis, Division
from karui.sparse.gate import Cut, Gate
from karui.sparse.gated_linear import gated_linear

Convolve = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class SharedGate(NamedTuple):
    """A gate of the layer that several of its weights pass through."""

    gate: Gate
    division: Division
    scales: bool = True
    """Whether this weight is multiplied by the factor; else it is only pruned with it (the factor acts elsewhere)."""


class Ranked(NamedTuple):
    """Units of one gate, or elements with a rule of their own, as a projection sees them."""

    score: Tensor
    cut: Cut
    division: Division


def count_open(
    parts: Sequence[tuple[Tensor, Division]], shape: tuple[int, ...], *, zero_row: int | None = None
) -> Tensor:
    """Sum over all elements of the product of their units' values: expected or real numbers of kept elements, ().

    For gates on separate axes that is a product of sums, at the cost of the units alone. zero_row counts as closed.
    """
    if len(parts) == 1 and zero_row is None:
        [(values, division)] = parts
        sizes = division.sizes(values.device)
        if isinstance(sizes, Tensor):
            return (values * sizes.to(values.dtype)).sum()
        return values.sum() if sizes == 1.0 else values.sum() * sizes
    by_axis: dict[int, Tensor] = {}
    others: Tensor | None = None
    for values, division in parts:
        if isinstance(division, Axis):
            by_axis[division.dim] = values if division.dim not in by_axis else by_axis[division.dim] * values
        else:
            spread = division.spread(values)
            others = spread if others is None else others * spread
    if zero_row is not None:
        first = by_axis.get(0, torch.ones(shape[0], device=parts[0][0].device))
        by_axis[0] = first * (torch.arange(shape[0], device=first.device) != zero_row)
    if others is not None:
        for dim, values in by_axis.items():
            others = others * Axis(shape, dim).spread(values)
        return others.sum()
    total = parts[0][0].new_ones(())
    for dim, length in enumerate(shape):
        total = total * (by_axis[dim].sum() if dim in by_axis else length)
    return total


class SparseWeight(nn.Module):
    """Base of the methods' weights: gates of its own (`gates`), gates of the layer (`shared`), a row that stays zero.

    Own gates are submodules under the name of their place: "element", "row", "column", "block"; `rows` everywhere are
    positions (N,) of the rows that a batch reads, None = all. zero_row: the row of an embedding that is never trained
    (`padding_idx`): never kept, never counted as expected.
    """

    factor: Tensor | None

    def __init__(
        self,
        shape: torch.Size | tuple[int, ...],
        gates: Mapping[str, Gate],
        shared: tuple[SharedGate, ...] = (),
        *,
        zero_row: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.zero_row = tuple(shape), zero_row
        self.places = tuple(gates)
        for place, gate in gates.items():
            self.add_module(place, gate)
        self.shared = shared  # in a tuple: the layer registers them, once
        self.register_buffer("factor", None, persistent=False)  # what `hold` took from all gates

    # Which gates there are.

    def own_gates(self) -> Iterator[tuple[Gate, Division]]:
        """Gates that only this weight passes through."""
        for place in self.places:
            gate: Any = self._modules[place]
            yield gate, gate.divisions[0]

    def gates(self) -> list[tuple[Gate, Division]]:
        """All gates of this weight, and how its elements fall into their units."""
        return [*self.own_gates(), *((use.gate, use.division) for use in self.shared)]

    def cuts(self) -> list[tuple[Cut, Division]]:
        """Everything that decides about an element of this weight: a cut and how elements fall into its units."""
        return list(self.gates())

    def ranked(self, weight: Tensor) -> list[Ranked]:
        """Scores of all units that only this weight has."""
        return [Ranked(gate.score(weight), gate, division) for gate, division in self.own_gates()]

    # Training.

    def sample(
        self, weight: Tensor, rows: Tensor | None = None, *, shared: Mapping[Gate, Tensor] | None = None
    ) -> Tensor:
        """The weight of one training step, or its given rows.

        shared: what the layer's gates drew for this step; without it each is drawn here.
        """
        return self._scaled(weight if rows is None else weight[rows], rows, shared)

    def _scaled(self, drawn: Tensor, rows: Tensor | None, shared: Mapping[Gate, Tensor] | None) -> Tensor:
        """`drawn`, the weight or its given rows, times a draw of every gate that scales it."""
        for gate, division in self.own_gates():
            drawn = gate.scale(drawn, division, rows)
        for gate, division, scales in self.shared:
            if scales:
                factor = gate.sample() if shared is None else shared[gate]
                drawn = drawn * division.spread(factor).to(drawn.dtype)
        return drawn

    def product(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        *,
        shared: Mapping[Gate, Tensor] | None = None,
    ) -> Tensor:
        """input (..., C) times a draw of the weight (R, C) for this step: (..., R).

        A factor on rows or columns multiplies the weight, or the output or input where that is smaller.
        """
        if len(self.places) == 1 and not self.shared:
            gate: Any = self._modules[self.places[0]]
            found = gate.linear(input, weight, bias)
            if found is not None:
                return found
        positions, (R, C) = input.numel() // max(1, input.shape[-1]), self.shape
        rows: Tensor | None = None
        columns: Tensor | None = None
        for gate, division, scales in (*((g, d, True) for g, d in self.own_gates()), *self.shared):
            if not scales:
                continue
            factor = None if shared is None else shared.get(gate)
            if isinstance(division, Axis) and division.dim == 1 and positions < R:
                factor = gate.sample() if factor is None else factor
                columns = factor if columns is None else columns * factor
            elif isinstance(division, Axis) and division.dim == 0 and positions < C:
                factor = gate.sample() if factor is None else factor
                rows = factor if rows is None else rows * factor
            elif factor is None:
                weight = gate.scale(weight, division)
            else:
                weight = weight * division.spread(factor).to(weight.dtype)
        inner = bias if rows is None else None
        if columns is None:
            output = nn.functional.linear(input, weight, inner)
        else:
            output = gated_linear(input, weight, inner, columns)
        if rows is None:
            return output
        output = output * rows.to(output.dtype)
        return output if bias is None else output + bias

    def settle(self, kept: Tensor) -> None:
        """Keep all but the `kept` elements, boolean, from ever coming back: units without any sink (`Gate.settle`)."""
        for gate, division in self.own_gates():
            gate.settle(division.sum(kept.float()) > 0)

    def hold(self, weight: Tensor) -> None:
        """Fix what is pruned, and the factors of the rest, as they are now, for `settled`."""
        self.factor = self.deployed(weight, of=torch.ones_like(weight)).detach()

    def settled(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """The weight of a training step after `hold`, or its given rows: no gate is drawn, none learns."""
        assert self.factor is not None
        return weight * self.factor if rows is None else weight[rows] * self.factor[rows]

    def convolution(
        self,
        convolve: Convolve,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """A batch of inputs (N, C, ...) convolved with a draw of the weight."""
        return convolve(input, self.sample(weight), bias)

    def penalty(self, weight: Tensor) -> Tensor:
        """What this weight adds to the loss, gates of the layer left out (`SparseLayer.penalty` adds those once)."""
        raise NotImplementedError

    def expected_kept(self, weight: Tensor) -> Tensor:
        """Expected number of kept elements, differentiable: () in the dtype of the probabilities."""
        if len(self.places) == 1 and not self.shared and self.zero_row is None:
            gate: Any = self._modules[self.places[0]]
            count = gate.expected_elements(gate.divisions[0])
            if count is not None:
                return count
        return count_open(self.open_probabilities(weight), self.shape, zero_row=self.zero_row)

    def open_probabilities(self, weight: Tensor) -> list[tuple[Tensor, Division]]:  # noqa: ARG002
        """Probability of each unit to be kept, with its division, for all gates."""
        return [(gate.open_probability(), division) for gate, division in self.gates()]

    # Test time.

    def keep_mask(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """Boolean in the shape of the weight or its given rows, True = kept: every gate of the element is open."""
        kept = self._element_mask(weight, rows)
        for gate, division in self.gates():
            kept = kept & division.spread(gate.keep_mask(rows))
        if self.zero_row is not None:
            index = torch.arange(self.shape[0], device=weight.device) if rows is None else rows
            kept = kept & Axis(self.shape, 0).spread(index != self.zero_row)
        return kept

    def _element_mask(self, weight: Tensor, rows: Tensor | None) -> Tensor:
        length = self.shape[0] if rows is None else len(rows)
        return torch.ones((length, *self.shape[1:]), dtype=torch.bool, device=weight.device)

    def deployed(self, weight: Tensor, rows: Tensor | None = None, *, of: Tensor | None = None) -> Tensor:
        """The weight at test time, factors folded in, exactly zero where pruned; or `of` in place of the weight."""
        value = weight if of is None else of
        value = value if rows is None else value[rows]
        for gate, division in self.own_gates():
            value = value * division.spread(gate.deployed(rows)).to(value.dtype)
        for gate, division, scales in self.shared:
            if scales:
                value = value * division.spread(gate.deployed()).to(value.dtype)
        return torch.where(self.keep_mask(weight, rows), value, torch.zeros_like(value))
