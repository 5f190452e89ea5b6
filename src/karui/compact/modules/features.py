"""Features of the tensors inside a traced model: which exist, which are constant, who reads whom.

An atom is what can be removed as one: a unit of a layer, with its row, its bias, its column in every reader. Each
tensor between two layers has at most one axis of features; each position along it holds one atom. Atoms that meet
in a sum are merged: they are kept or removed together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What stands along one axis of a tensor."""

    axis: int
    """Counted from the front."""
    atoms: np.ndarray
    """(n,) ids."""
    const: np.ndarray
    """(n,) float64: the value that the feature has at every position of every input; NaN where it has none."""
    ndim: int
    """Axes of the tensor."""

    @property
    def from_end(self) -> int:
        """The axis, counted from the back (-1 is the last)."""
        return self.axis - self.ndim


@dataclass(frozen=True)
class Packed:
    """A PackedSequence whose data (N, F) has features along axis 1."""

    features: Features


@dataclass(frozen=True)
class Shape:
    """The shape of a tensor with features."""

    features: Features


@dataclass(frozen=True)
class Size:
    """The length of the axis of features: another number after removal, wherever it is read at run time."""

    features: Features


# None stands for a value that nothing is removed from.
Value = Features | Packed | Shape | Size | tuple | None


class Atoms:
    """All atoms of a model, which are merged, and the graph of who reads whom."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reads: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._pinned: list[np.ndarray] = []

    def new(self, count: int) -> np.ndarray:
        """(count,) fresh ids."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def merge(self, a: np.ndarray, b: np.ndarray) -> None:
        """Keep or remove a[j] and b[j] together from now on."""
        for left, right in zip(a.tolist(), b.tolist(), strict=True):
            first, second = self._root(left), self._root(right)
            if first != second:
                self._parent[max(first, second)] = min(first, second)

    def pin(self, atoms: np.ndarray) -> None:
        """Keep these: something that the rules do not know reads them."""
        self._pinned.append(atoms)

    def reads(self, readers: np.ndarray, read: np.ndarray, matrix: np.ndarray) -> None:
        """Reader i multiplies feature j by something that is not zero where matrix[i, j]."""
        self._reads.append((readers, read, matrix))

    def roots(self) -> np.ndarray:
        """(atoms,) one id for all atoms that are merged."""
        return np.array([self._root(atom) for atom in range(len(self._parent))], np.int64)

    def live(self, tensors: Sequence[Features]) -> np.ndarray:
        """(atoms,) boolean: pinned, merged with one that is, or read by one that is live.

        tensors: each keeps one feature at least. One kept for that reason alone is read by nobody, so that what it
        reads may still go.
        """
        roots = self.roots()
        live = np.zeros(len(roots), bool)
        for atoms in self._pinned:
            live[roots[atoms]] = True
        blocks = [(roots[readers], roots[read], matrix) for readers, read, matrix in reversed(self._reads)]
        count = -1
        while count != (count := int(live.sum())):
            for readers, read, matrix in blocks:
                live[read[matrix[live[readers]].any(axis=0)]] = True
        for features in tensors:
            if not live[roots[features.atoms]].any():
                live[roots[features.atoms[:1]]] = True
        return live[roots]

    def _root(self, atom: int) -> int:
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom


def kept(features: Features, live: np.ndarray) -> np.ndarray:
    """Positions (k,) along the axis that stay."""
    return np.flatnonzero(live[features.atoms])


def without_constants(features: Features) -> Features:
    """The same features, of which none is known to be constant."""
    return Features(features.axis, features.atoms, np.full(len(features.atoms), np.nan), features.ndim)


def at_positions(features: Features, positions: np.ndarray, axis: int, ndim: int) -> Features:
    """Those at the given positions, along another axis of another tensor."""
    return Features(axis, features.atoms[positions], features.const[positions], ndim)


def position_tensor(shape: tuple[int, ...], axis: int, positions: np.ndarray) -> Tensor:
    """An int64 tensor of the given shape (its length along `axis` replaced) that holds positions along `axis`."""
    view = [1] * len(shape)
    view[axis] = len(positions)
    wanted = list(shape)
    wanted[axis] = len(positions)
    return torch.from_numpy(positions.astype(np.int64)).view(view).expand(wanted).contiguous()


def find_axis(positions: Tensor) -> tuple[int, np.ndarray] | None:
    """The one axis along which a moved position tensor varies, and the positions along it; None where there is none.

    Along an axis of length 1 nothing varies: a tensor with one feature has nothing to remove.
    """
    if not positions.numel():
        return None
    varies = [a for a in range(positions.dim()) if bool((positions != positions.narrow(a, 0, 1)).any())]
    if len(varies) != 1:
        return None
    [axis] = varies
    at = tuple(slice(None) if a == axis else 0 for a in range(positions.dim()))
    return axis, positions[at].numpy().astype(np.int64)
