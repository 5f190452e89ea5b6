"""The exact, smallest twin of a language model: embedding, layers and projection without what nothing depends on.

One round: (1) inner dimensions of the output layer's tails and of the projection that are empty on either side go, and
biases take over rows of the projection that are constant, (2) the stack of embedding and layers is shrunk as that of
a text classifier is, its last layer read by the projection or the output layer, (3) columns of the embedding go that
are not read. Rounds repeat until nothing changes.

The output predicts every word, so all V rows stay, zero where the word is pruned: the file's layouts keep such a row
in less than a byte, and in int8 files the two bytes of its scale. A table that embedding and output share loses a
column where both sides can do without it. Without a projection a column belongs to a unit of the last layer as well,
and both stay while either is needed.

V words, E embedding width, P outputs of the last layer, D inputs of the output layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from karui.compact.stack import (
    Reader,
    Reads,
    Stack,
    columns,
    copied,
    keep_columns,
    read_by,
    shrink_stack,
)
from karui.runtime.language_format import (
    AdaptiveOutput,
    ClassOutput,
    FullOutput,
    LanguageModelSpec,
    Tail,
    arrays_of,
)
from karui.runtime.language_output import Output


def shrink_language(spec: LanguageModelSpec) -> LanguageModelSpec:
    """Return the smallest description with the same log-probabilities; the one given, all finite, is not changed.

    "The same" is up to float32 rounding: sums leave out terms that are exactly zero, and biases take over what is
    constant. Where nothing can go, every number is one of those given.
    """
    weight = spec.projection_weight
    spec = replace(
        spec,
        layers=copied(spec.layers),
        projection_weight=None if weight is None else weight.copy(),
        output=_copied_output(spec.output),
    )
    while True:
        before = _size(spec)
        _round(spec)
        if _size(spec) == before:
            return spec


def _size(spec: LanguageModelSpec) -> tuple[int, ...]:
    """Entries and non-zeros: no round ever raises both, so an unchanged pair is the fixed point."""
    arrays = [array for _, array in arrays_of(spec)]
    return sum(array.size for array in arrays), sum(int(np.count_nonzero(array)) for array in arrays)


def _copied_output(output: Output) -> Output:
    """An output layer whose readers may write into its weights; biases are never written into."""
    if isinstance(output, ClassOutput):
        return replace(output, class_weight=output.class_weight.copy(), weight=output.weight.copy())
    if isinstance(output, AdaptiveOutput):
        tails = [replace(tail, projection=tail.projection.copy()) for tail in output.tails]
        return replace(output, weight=output.weight.copy(), tails=tails)
    return replace(output, weight=None if output.weight is None else output.weight.copy())


@dataclass
class _SharedTable:
    """The embedding (V, D) as the weight of the output: its numbers stay, whatever is known of what they multiply.

    used (D,): inputs that change a score. pinned (D,): columns that the first layer reads. left: those of D that stay.
    """

    table: np.ndarray
    bias: np.ndarray
    pinned: np.ndarray
    used: np.ndarray
    left: np.ndarray
    can_scale, can_shift = False, True

    @classmethod
    def of(cls, spec: LanguageModelSpec) -> "_SharedTable":
        """The table of a description, of which nothing is pinned yet."""
        used = np.asarray(spec.embedding.any(axis=0))
        return cls(spec.embedding, spec.output.bias, np.zeros_like(used), used, np.arange(len(used)))

    def reads(self) -> np.ndarray:
        """See `Reads`; a pinned column counts, for its input has to be there."""
        return self.used | self.pinned

    def forget(self, features: np.ndarray) -> None:
        """See `Reads`."""
        self.used &= ~features

    def keep(self, features: np.ndarray) -> None:
        """See `Reads`."""
        self.left = self.left[features]
        self.pinned, self.used = self.pinned[features], self.used[features]

    def scale(self, factors: np.ndarray) -> None:
        """Never called: the embedding would be scaled as well."""
        raise NotImplementedError

    def shift(self, values: np.ndarray) -> None:
        """See `Reads`. What makes the constants has to be set to zero, for the table still multiplies them."""
        constant = ~np.isnan(values)
        if not constant.any():
            return
        added = self.table[:, constant].astype(np.float64) @ values[constant]
        self.bias = (self.bias + added).astype(np.float32)
        self.used &= ~constant


def _round(spec: LanguageModelSpec) -> None:
    """Shrink in place, once."""
    if isinstance(spec.output, AdaptiveOutput):
        spec.output = replace(spec.output, tails=[_without_idle_inner(tail) for tail in spec.output.tails])
    shared = (
        _SharedTable.of(spec) if isinstance(spec.output, FullOutput) and spec.output.weight is None else None
    )
    outputs: Sequence[Reads] = _readers_of_output(spec.output) if shared is None else [shared]
    projection = None
    if spec.projection_weight is not None and spec.projection_bias is not None:
        projection = Reader(spec.projection_weight, spec.projection_bias)
    stack = Stack(spec.embedding, spec.layers, outputs if projection is None else [projection])
    output_is_apart = bool(stack.layers) or projection is not None  # from what reads the embedding
    if shared is not None and output_is_apart:
        shared.pinned = shared.used & read_by(stack.readers_of(0))
    if projection is not None:
        _shrink_projection(projection, outputs)
    read = shrink_stack(stack, fold=True)
    if shared is not None and output_is_apart:
        read = np.isin(np.arange(len(read)), shared.left)
    keep_columns(stack, read)
    spec.embedding, spec.layers = stack.embedding, stack.layers
    if projection is not None:
        is_empty = not len(projection.bias) and not projection.weight.shape[1]
        spec.projection_weight = None if is_empty else projection.weight
        spec.projection_bias = None if is_empty else projection.bias
    spec.output = _output_with(spec.output, outputs)


def _shrink_projection(projection: Reader, outputs: Sequence[Reads]) -> None:
    """Drop, in place, inner dimensions that nobody reads or that are constant, which biases take over."""
    constant = np.asarray(~projection.weight.any(axis=1))
    for reader in outputs:
        reader.shift(np.where(constant & (projection.bias != 0), projection.bias, np.nan))
    projection.bias = np.where(constant, 0.0, projection.bias).astype(np.float32)
    for reader in outputs:
        reader.forget(constant)
    kept = read_by(outputs)
    projection.weight, projection.bias = projection.weight[kept], projection.bias[kept]
    for reader in outputs:
        reader.keep(kept)


def _without_idle_inner(tail: Tail) -> Tail:
    """The tail without inner dimensions that are always zero or that nobody reads."""
    kept = np.asarray(tail.projection.any(axis=1) & tail.weight.any(axis=0))
    return replace(tail, projection=tail.projection[kept], weight=columns(tail.weight, kept))


def _readers_of_output(output: Output) -> Sequence[Reads]:
    """What multiplies the D inputs of an output layer with weights of its own."""
    if isinstance(output, ClassOutput):
        return [Reader(output.class_weight, output.class_bias), Reader(output.weight, output.bias)]
    if isinstance(output, AdaptiveOutput):
        tails = [Reader(tail.projection, tail.bias, through=tail.weight) for tail in output.tails]
        return [Reader(output.weight, output.bias), *tails]
    return [] if output.weight is None else [Reader(output.weight, output.bias)]


def _output_with(output: Output, readers: Sequence[Any]) -> Output:
    """The output layer with the weights and biases of its readers."""
    first, *others = readers
    if isinstance(first, _SharedTable):
        return replace(output, bias=first.bias)
    if isinstance(output, ClassOutput):
        [words] = others
        return replace(
            output, class_weight=first.weight, class_bias=first.bias, weight=words.weight, bias=words.bias
        )
    if isinstance(output, AdaptiveOutput):
        tails = [
            replace(tail, projection=reader.weight, bias=reader.bias)
            for tail, reader in zip(output.tails, others, strict=True)
        ]
        return replace(output, weight=first.weight, bias=first.bias, tails=tails)
    return replace(output, weight=first.weight, bias=first.bias)
