"""Which rows and columns of a layer's parameters belong to what, so that one rule reads and cuts them all.

A label names things that are removed one by one: inputs, units, statistics. An axis of a parameter is a row of blocks,
a block a product of labels and plain counts: (4, "unit") are four gates of every unit, ("scale", "stat") one copy of
each statistic for every scale.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Block = tuple[int | str, ...]
Axis = tuple[Block, ...]
Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Kept:
    """What stays of the things of one label: their positions, and how many there are then.

    `size` is larger than the positions where a layer cannot be that small: zeros fill it up.
    """

    positions: np.ndarray
    size: int

    @classmethod
    def of(cls, mask: np.ndarray, least: int = 0) -> "Kept":
        """Where a mask is True, and at least so many."""
        positions = np.flatnonzero(mask)
        return cls(positions, max(len(positions), least))


def axes(*texts: str) -> Axes:
    """Read the axes of a parameter from text: "4 unit" and "scale stat | input"."""
    return tuple(
        tuple(tuple(int(p) if p.isdigit() else p for p in block.split()) for block in text.split("|"))
        for text in texts
    )


def length(axis: Axis, sizes: Mapping[str, int]) -> int:
    """How long an axis is when there are `sizes` things of each label."""
    return sum(int(np.prod(_dims(block, sizes))) for block in axis)


def entries(
    matrix: np.ndarray, whole: Axes, sizes: Mapping[str, int]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """For each label of the rows and each of the columns of a matrix (R, C): where any of their entries is not zero."""
    first = 0
    for rows in whole[0]:
        above = _dims(rows, sizes)
        start, last = 0, first + int(np.prod(above))
        for columns in whole[1]:
            across = _dims(columns, sizes)
            stop = start + int(np.prod(across))
            part = (matrix[first:last, start:stop] != 0).reshape(*above, *across)
            for i, reader in enumerate(rows):
                for j, read in enumerate(columns, len(rows)):
                    if isinstance(reader, str) and isinstance(read, str):
                        others = tuple(axis for axis in range(part.ndim) if axis not in {i, j})
                        yield reader, read, part.any(axis=others)
            start = stop
        first = last


def cut(array: np.ndarray, whole: Axes, sizes: Mapping[str, int], kept: Mapping[str, Kept]) -> np.ndarray:
    """The parameter with only what stays of each label in `kept`; other labels stay whole."""
    for place, axis in enumerate(whole):
        pieces, start = [], 0
        for block in axis:
            dims = _dims(block, sizes)
            count = int(np.prod(dims))
            before, after = array.shape[:place], array.shape[place + 1 :]
            piece = array.take(range(start, start + count), axis=place).reshape(*before, *dims, *after)
            for part, at in zip(block, range(place, place + len(block)), strict=True):
                if isinstance(part, str) and part in kept:
                    piece = _take(piece, kept[part], at)
            pieces.append(piece.reshape(*before, -1, *after) if piece.size else _empty(piece, place, block))
            start += count
        array = np.concatenate(pieces, axis=place)
    return array


def _dims(block: Block, sizes: Mapping[str, int]) -> list[int]:
    return [sizes[part] if isinstance(part, str) else part for part in block]


def _take(array: np.ndarray, kept: Kept, axis: int) -> np.ndarray:
    array = array.take(kept.positions, axis=axis)
    missing = kept.size - len(kept.positions)
    if not missing:
        return array
    return np.pad(array, [(0, missing if place == axis else 0) for place in range(array.ndim)])


def _empty(piece: np.ndarray, place: int, block: Block) -> np.ndarray:
    """An array without entries whose axes of one block are one axis."""
    dims = piece.shape
    joined = int(np.prod(dims[place : place + len(block)]))
    return piece.reshape(*dims[:place], joined, *dims[place + len(block) :])
