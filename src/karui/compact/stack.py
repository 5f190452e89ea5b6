"""What shrinking works on: an embedding, recurrent layers, and whatever reads the last of them.

Text classifiers and language models are such stacks; what is around it (words, poolings, projections, shared tables) is
theirs. Traps. A unit without live inputs is driven by its bias and stays while it is read. The highway of the Simple
Recurrent Unit passes x even where the cell is dead. The state of a GRU leaks into itself, which alone keeps nothing
alive.

E embedding width, I inputs of a layer, H units of a direction, D directions, W features, R rows of a reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from karui.compact import statistics
from karui.compact.fold import fold_layer
from karui.compact.reach import live_units, never_active, without_idle_gates
from karui.runtime.format import FIELDS, RecurrentLayer, bias_blocks, weight_blocks


class Reads(Protocol):
    """Something that multiplies W features by weights."""

    @property
    def can_scale(self) -> bool:
        """Whether its weights may be multiplied by factors."""
        ...

    @property
    def can_shift(self) -> bool:
        """Whether a bias of it can take over what a constant feature does."""
        ...

    def reads(self) -> np.ndarray:
        """(W,) boolean: the features with a weight that is not zero."""
        ...

    def forget(self, features: np.ndarray) -> None:
        """Clear what is multiplied with the features (W,) of a mask."""
        ...

    def keep(self, features: np.ndarray) -> None:
        """Have the features (W,) of a mask left alone."""
        ...

    def scale(self, factors: np.ndarray) -> None:
        """Take a feature as factor (W,) times itself."""
        ...

    def shift(self, values: np.ndarray) -> None:
        """Take over the features that always have a value (W,), NaN for the others, and forget them."""
        ...


@dataclass
class Reader:
    """A matrix (R, copies * W) that multiplies each feature, in each of its `copies`, and a bias of what follows.

    through (N, R): a second matrix behind the first, whose bias (N,) it then is; None: bias is (R,).
    """

    weight: np.ndarray
    bias: np.ndarray
    copies: int = 1
    through: np.ndarray | None = None
    can_scale = can_shift = True

    def reads(self) -> np.ndarray:
        """See `Reads`."""
        return np.asarray(self.weight.any(axis=0).reshape(self.copies, -1).any(axis=0))

    def forget(self, features: np.ndarray) -> None:
        """See `Reads`."""
        self.weight[:, np.tile(features, self.copies)] = 0.0

    def keep(self, features: np.ndarray) -> None:
        """See `Reads`."""
        self.weight = columns(self.weight, np.tile(features, self.copies))

    def scale(self, factors: np.ndarray) -> None:
        """See `Reads`."""
        self.weight = (self.weight * np.tile(factors, self.copies)).astype(np.float32)

    def shift(self, values: np.ndarray) -> None:
        """See `Reads`."""
        each = np.tile(values, self.copies)
        constant = ~np.isnan(each)
        if not constant.any():
            return
        added = self.weight[:, constant].astype(np.float64) @ each[constant]
        if self.through is not None:
            added = self.through.astype(np.float64) @ added
        self.bias = _plus(self.bias, added)
        self.weight[:, constant] = 0.0


@dataclass
class LayerInput:
    """A recurrent layer as the reader of its input."""

    layer: RecurrentLayer
    can_scale = True

    @property
    def can_shift(self) -> bool:
        """Two blocks of an SRU have no bias, and before the first input a window holds zeros."""
        return self.layer.kind != "sru" and self.layer.window == 1

    def reads(self) -> np.ndarray:
        """See `Reads`."""
        by_input = [d.weight_ih.any(axis=0).reshape(self.layer.window, -1) for d in self.layer.directions]
        return np.asarray(np.concatenate(by_input).any(axis=0))

    def forget(self, features: np.ndarray) -> None:
        """See `Reads`."""
        for direction in self.layer.directions:
            direction.weight_ih[:, np.tile(features, self.layer.window)] = 0.0

    def keep(self, features: np.ndarray) -> None:
        """See `Reads`."""
        for direction in self.layer.directions:
            direction.weight_ih = columns(direction.weight_ih, np.tile(features, self.layer.window))

    def scale(self, factors: np.ndarray) -> None:
        """See `Reads`."""
        for direction in self.layer.directions:
            scaled = direction.weight_ih * np.tile(factors, self.layer.window)
            direction.weight_ih = scaled.astype(np.float32)

    def shift(self, values: np.ndarray) -> None:
        """See `Reads`. The biases of the input's blocks come first in every kind."""
        constant = ~np.isnan(values)
        for direction in self.layer.directions if constant.any() else ():
            rows = len(direction.weight_ih)
            added = direction.weight_ih[:, constant].astype(np.float64) @ values[constant]
            direction.bias = np.concatenate([_plus(direction.bias[:rows], added), direction.bias[rows:]])
            direction.weight_ih[:, constant] = 0.0


@dataclass
class Stack:
    """embedding (V, E), its rows one for each word that is read; layers; readers of the last layer's features."""

    embedding: np.ndarray
    layers: list[RecurrentLayer]
    readers: Sequence[Reads]

    def readers_of(self, k: int) -> Sequence[Reads]:
        """Who reads the input of layer k, or the output of the last where k is the number of layers."""
        return self.readers if k == len(self.layers) else [LayerInput(self.layers[k])]


def shrink_stack(stack: Stack, *, fold: bool) -> np.ndarray:
    """One round, in place: clear what is zero, fold constants, drop units that nobody reads; (E,) columns still read.

    The columns themselves are the caller's to drop, by `keep_columns`: another matrix may share the embedding.
    """
    _forget_zero_outputs(stack)
    if fold:
        for k, layer in enumerate(stack.layers):
            fold_layer(layer, stack.readers_of(k + 1))
    return _drop_unread(stack)


def _forget_zero_outputs(stack: Stack) -> None:
    """Clear all weights that read something that is zero for every text, and gates that act on nothing."""
    zero = np.asarray(~stack.embedding.any(axis=0))  # (E,)
    for k, layer in enumerate(stack.layers):
        for reader in stack.readers_of(k):
            reader.forget(zero)
        outputs = []
        for direction in layer.directions:
            silent = never_active(layer, direction)  # (H,)
            if direction.weight_hh is not None:
                direction.weight_hh[:, silent] = 0.0
            without_idle_gates(layer, direction)
            outputs.append(silent)
        zero = np.concatenate(outputs)
    for reader in stack.readers:
        reader.forget(zero)


def _drop_unread(stack: Stack) -> np.ndarray:
    """Remove units that no reader depends on, from the last layer to the first; (E,) what is read of the embedding."""
    for k in reversed(range(len(stack.layers))):
        kept = live_units(stack.layers[k], read_by(stack.readers_of(k + 1)))
        for reader in stack.readers_of(k + 1):
            reader.keep(np.concatenate(kept))
        stack.layers[k] = keep_units(stack.layers[k], kept)
        _narrow_window(stack.layers[k])
    return read_by(stack.readers_of(0))


def read_by(readers: Sequence[Reads]) -> np.ndarray:
    """(W,) boolean: features that any of the readers reads."""
    return np.asarray(np.any([reader.reads() for reader in readers], axis=0))


def keep_columns(stack: Stack, kept: np.ndarray) -> None:
    """Leave the columns (E,) of a mask in the embedding and in who reads it; then drop the layers that are empty."""
    for reader in stack.readers_of(0):
        reader.keep(kept)
    stack.embedding = columns(stack.embedding, kept)
    _drop_layers(stack)


def _drop_layers(stack: Stack) -> None:
    """Remove an idle reverse direction, and all layers below one that nothing is read from.

    A layer above an empty one has no inputs left and runs on its biases; it then stands first. The embedding has no
    columns left then, because the empty layer reads none, unless they are kept for somebody else: they are read with
    zeros then.
    """
    empty = [k for k, layer in enumerate(stack.layers) if not any(len(d.bias) for d in layer.directions)]
    if empty:
        stack.layers = stack.layers[empty[-1] + 1 :]
        if width := stack.embedding.shape[1]:
            _widen(stack, width)
    for layer in stack.layers:
        if len(layer.directions) == 2 and not len(layer.directions[1].bias):
            layer.directions = layer.directions[:1]


def _widen(stack: Stack, width: int) -> None:
    """Have what stood above a layer without outputs read `width` inputs, all with zeros."""
    if not stack.layers:
        for reader in stack.readers:
            if isinstance(reader, Reader):
                reader.weight = np.zeros((len(reader.weight), reader.copies * width), np.float32)
        return
    layer = stack.layers[0]
    for direction in layer.directions:
        direction.weight_ih = np.zeros((len(direction.weight_ih), layer.window * width), np.float32)


def _narrow_window(layer: RecurrentLayer) -> None:
    """A QRNN that never reads the input before needs no second half of its columns."""
    if layer.window == 1 or any(d.weight_ih[:, d.weight_ih.shape[1] // 2 :].any() for d in layer.directions):
        return
    for direction in layer.directions:
        direction.weight_ih = columns(direction.weight_ih, np.arange(direction.weight_ih.shape[1] // 2))
    layer.window = 1


def keep_units(layer: RecurrentLayer, kept: list[np.ndarray]) -> RecurrentLayer:
    """Keep the units where `kept` (H,), one a direction, is True: their rows in every gate, their columns."""
    directions = []
    gates, biases = (
        count(layer.kind, output_gate=layer.output_gate) for count in (weight_blocks, bias_blocks)
    )
    for direction, units in zip(layer.directions, kept, strict=True):
        if layer.kind == "statistical":
            directions.append(statistics.keep_outputs(direction, units))
            continue
        rows = np.tile(units, gates)
        weight_hh, weight_c = direction.weight_hh, direction.weight_c
        directions.append(
            replace(
                direction,
                weight_ih=direction.weight_ih[rows],
                weight_hh=None if weight_hh is None else columns(weight_hh[rows], units),
                bias=direction.bias[np.tile(units, biases)],
                weight_c=None if weight_c is None else weight_c[np.tile(units, 2)],
            )
        )
    return replace(layer, directions=directions)


def copied(layers: list[RecurrentLayer]) -> list[RecurrentLayer]:
    """Layers with arrays of their own, to write into."""
    found = []
    for layer in layers:
        directions = [
            replace(d, **{name: array.copy() for name in FIELDS if (array := getattr(d, name)) is not None})
            for d in layer.directions
        ]
        found.append(replace(layer, directions=directions))
    return found


def columns(array: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The columns that `kept` names, by booleans or positions, as a contiguous array."""
    return np.ascontiguousarray(array[:, kept])


def _plus(bias: np.ndarray, added: np.ndarray) -> np.ndarray:
    """A bias with a sum of float64 added."""
    return (bias + added).astype(np.float32)
