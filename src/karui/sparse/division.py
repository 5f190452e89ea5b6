"""How a weight falls into units that live or die as one: single elements, slices of an axis, or blocks.

A division knows the shape of its weight (R, C, ...). Values per unit have the shape `units`; `spread` brings them to a
shape that broadcasts against the weight, `sum` adds up what a weight-like tensor holds in each unit.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Division:
    """Base: every element of a weight of this shape belongs to one unit."""

    shape: tuple[int, ...]

    @property
    def units(self) -> tuple[int, ...]:
        """Shape of an array with one value a unit."""
        raise NotImplementedError

    def take(self, values: Tensor, rows: Tensor | None) -> Tensor:
        """The values of the units that the given rows (N,) of the weight meet; of all where rows is None."""
        raise NotImplementedError

    def spread(self, values: Tensor) -> Tensor:
        """Values a unit, of the whole weight or as `take` gave them, to what broadcasts against these rows."""
        raise NotImplementedError

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor of the weight's shape in each unit: `units`."""
        raise NotImplementedError

    def positions(self, rows: Tensor | None, device: torch.device) -> Tensor:
        """Position of each unit in index order, in the shape that `take` gives."""
        count = torch.arange(torch.Size(self.units).numel(), device=device).view(self.units)
        return self.take(count, rows)

    def sizes(self, device: torch.device) -> Tensor | float:
        """Elements in each unit: `units` in float32, or the number that all have."""
        return _sizes(self, device)


@dataclass(frozen=True)
class Elements(Division):
    """Every element is a unit."""

    @property
    def units(self) -> tuple[int, ...]:
        """As the weight."""
        return self.shape

    def take(self, values: Tensor, rows: Tensor | None) -> Tensor:
        """Rows of the array."""
        return values if rows is None else values[rows]

    def spread(self, values: Tensor) -> Tensor:
        """As they are."""
        return values

    def sum(self, values: Tensor) -> Tensor:
        """As they are."""
        return values

    def sizes(self, device: torch.device) -> float:  # noqa: ARG002
        """One each."""
        return 1.0


@dataclass(frozen=True)
class Axis(Division):
    """Every index of one axis is a unit: rows of a matrix for dim 0, columns (input channels) for dim 1."""

    dim: int

    @property
    def units(self) -> tuple[int, ...]:
        """(length of the axis,)."""
        return (self.shape[self.dim],)

    def take(self, values: Tensor, rows: Tensor | None) -> Tensor:
        """The rows' own values where the units are rows, else all."""
        return values if rows is None or self.dim else values[rows]

    def spread(self, values: Tensor) -> Tensor:
        """(n,) to (1, ..., n, ..., 1)."""
        return values.view(*(-1 if d == self.dim else 1 for d in range(len(self.shape))))

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all other axes."""
        others = tuple(d for d in range(values.dim()) if d != self.dim)
        return values.sum(others) if others else values

    def sizes(self, device: torch.device) -> float:  # noqa: ARG002
        """The product of the other axes."""
        return float(math.prod(self.shape) // max(1, self.shape[self.dim]))


@dataclass(frozen=True)
class Blocks(Division):
    """Blocks of height x width in a matrix (R, C); those at the lower and right edge are cut off."""

    height: int
    width: int

    @property
    def units(self) -> tuple[int, ...]:
        """(blocks down, blocks across)."""
        return -(-self.shape[0] // self.height), -(-self.shape[1] // self.width)

    def take(self, values: Tensor, rows: Tensor | None) -> Tensor:
        """All: blocks are not offered where rows are read one by one."""
        if rows is not None:
            raise ValueError(f"blocks of {self.height}x{self.width} cannot be read row by row")
        return values

    def spread(self, values: Tensor) -> Tensor:
        """(blocks down, blocks across) to (R, C)."""
        down, across = values.shape
        blocks = values[:, None, :, None].expand(down, self.height, across, self.width)
        whole = blocks.reshape(down * self.height, across * self.width)
        return whole[: self.shape[0], : self.shape[1]]

    def sum(self, values: Tensor) -> Tensor:
        """(R, C) to (blocks down, blocks across)."""
        R, C = self.shape
        down, across = self.units
        padded = torch.nn.functional.pad(values, (0, across * self.width - C, 0, down * self.height - R))
        return padded.view(down, self.height, across, self.width).sum((1, 3))


@lru_cache(maxsize=256)
def _sizes(division: Division, device: torch.device) -> Tensor:
    return division.sum(torch.ones((), device=device).expand(division.shape))
