"""What the artifact of a language model describes, as numpy arrays, and the shapes that follow from its sizes.

V words, E embedding width, P outputs of the last layer, D inputs of the output layer, C classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from karui.runtime import spec as limits
from karui.runtime.language_output import (
    AdaptiveOutput,
    ClassOutput,
    FullOutput,
    Output,
    OutputOutline,
    TreeOutput,
)
from karui.runtime.language_tokens import TOKENISATIONS
from karui.runtime.layers import (
    FIELDS,
    LayerOutline,
    RecurrentLayer,
    layer_from,
    layer_problem,
    outline_of_layer,
)

__all__ = [
    "AdaptiveOutput",
    "ClassOutput",
    "FullOutput",
    "LanguageModelSpec",
    "LanguageOutline",
    "TreeOutput",
]

MAX_CELLS = 1 << 28
CLASS_ROWS = 32  # an engine may fill up the words of each class to so many
FREE_CELLS, CELLS_PER_BYTE = (
    1 << 25,
    64,
)  # so many cells of memory may any file ask for, and so many more a byte


@dataclass
class LanguageModelSpec:
    """A language model; arrays are float32, the id of a word is its place in `words`.

    eos: id of the word that ends a line, "</s>". unk: id of the word that stands for those not in the list, or None.
    embedding (V, E); layers of one direction; projection_weight (D, P) and projection_bias (D,), both or neither.
    An output that shares the embedding's table has no weight of its own.
    """

    words: list[str]
    eos: int
    embedding: np.ndarray
    layers: list[RecurrentLayer]
    output: Output
    unk: int | None = None
    tokenisation: str = "blank-v1"
    lower: bool = False
    projection_weight: np.ndarray | None = None
    projection_bias: np.ndarray | None = None
    provenance: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LanguageOutline:
    """Everything that decides the shapes of the matrices."""

    n_words: int
    embedding_dim: int
    layers: tuple[LayerOutline, ...]
    projection: int | None
    output: OutputOutline

    @property
    def recurrent_size(self) -> int:
        """P."""
        return self.layers[-1].hidden_sizes[0] if self.layers else self.embedding_dim

    @property
    def output_inputs(self) -> int:
        """D."""
        return self.recurrent_size if self.projection is None else self.projection

    def records(self) -> Iterator[tuple[str, int, int]]:
        """Name, rows and columns of each matrix in the order of the file; vectors are one column."""
        yield "embedding", self.n_words, self.embedding_dim
        width = self.embedding_dim
        for number, layer in enumerate(self.layers):
            for part, rows, cols in layer.matrices(0, width):
                yield f"layers.{number}.{part}", rows, cols
            width = layer.hidden_sizes[0]
        if self.projection is not None:
            yield "projection_weight", self.projection, width
            yield "projection_bias", self.projection, 1
        yield from self.output.records(self.n_words, self.output_inputs)

    def problem(self) -> str | None:
        """Say which size is outside the limits of the format, or None."""
        if not 1 <= self.n_words <= limits.MAX_WORDS:
            return f"{self.n_words} words, 1 to {limits.MAX_WORDS} are allowed"
        if len(self.layers) > limits.MAX_LAYERS:
            return f"{len(self.layers)} layers, at most {limits.MAX_LAYERS} are allowed"
        widths = [self.embedding_dim, self.projection or 0, *self.output.widths]
        for layer in self.layers:
            if len(layer.directions) != 1:
                return "a layer of two directions, a language model reads forward only"
            sizes = layer.directions[0]
            widths += [sizes.hidden_size, sizes.num_stats, sizes.recur_size]
            if problem := layer.size_problem():
                return problem
        if max(widths) > limits.MAX_WIDTH:
            return f"a width of {max(widths)}, at most {limits.MAX_WIDTH} are allowed"
        if self.output.is_tied and self.output_inputs != self.embedding_dim:
            return f"one table for embeddings of {self.embedding_dim} and outputs of {self.output_inputs} numbers"
        if problem := self.output.problem(self.n_words):
            return problem
        total = 0
        for name, rows, cols in self.records():
            total += rows * cols
            if total > MAX_CELLS:
                return f"{name} of {rows} x {cols}; {MAX_CELLS} cells in all are allowed"
        return None

    @property
    def cells(self) -> int:
        """Cells of all matrices."""
        return sum(rows * cols for _, rows, cols in self.records())

    def memory_problem(self, num_bytes: int) -> str | None:
        """Say that the model is too large for a file of so many bytes, or None."""
        held = self.cells + CLASS_ROWS * self.output.n_classes * self.output_inputs
        if held > FREE_CELLS + CELLS_PER_BYTE * num_bytes:
            return f"{held} cells are too many for a file of {num_bytes} bytes"
        return None


def outline_of(spec: LanguageModelSpec) -> LanguageOutline:
    """Sizes of a description; `check_spec` tells whether its arrays agree with them."""
    layers = tuple(outline_of_layer(layer) for layer in spec.layers)
    projection = None if spec.projection_weight is None else len(spec.projection_weight)
    return LanguageOutline(
        len(spec.words), spec.embedding.shape[1], layers, projection, spec.output.outline()
    )


def arrays_of(spec: LanguageModelSpec) -> Iterator[tuple[str, np.ndarray]]:
    """Name and matrix of each record, in the order of `LanguageOutline.records`."""
    yield "embedding", spec.embedding
    for number, layer in enumerate(spec.layers):
        for part in FIELDS:
            value = getattr(layer.directions[0], part)
            if value is not None:
                yield f"layers.{number}.{part}", value
    if spec.projection_weight is not None and spec.projection_bias is not None:
        yield "projection_weight", spec.projection_weight
        yield "projection_bias", spec.projection_bias
    yield from spec.output.arrays()


def layers_from(outline: LanguageOutline, arrays: dict[str, np.ndarray]) -> list[RecurrentLayer]:
    """Put the matrices of the layers back together."""
    layers = []
    for number, layer in enumerate(outline.layers):
        start = f"layers.{number}."
        parts = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        layers.append(layer_from(layer, [parts]))
    return layers


def with_words_in(spec: LanguageModelSpec, order: list[int]) -> LanguageModelSpec:
    """The same language model with its words in another order: new word k is old word order[k]."""
    new_id = np.empty(len(order), np.int64)
    new_id[order] = np.arange(len(order))
    return replace(
        spec,
        words=[spec.words[number] for number in order],
        eos=int(new_id[spec.eos]),
        unk=None if spec.unk is None else int(new_id[spec.unk]),
        embedding=spec.embedding[order],
        output=spec.output.with_words_in(np.asarray(order, np.int64)),
    )


def check_spec(spec: LanguageModelSpec) -> None:
    """Raise `ValueError` that names the first thing in a description that does not fit."""
    if spec.tokenisation not in TOKENISATIONS:
        raise ValueError(f"tokenisation must be one of {TOKENISATIONS}, got {spec.tokenisation!r}")
    for name, number in (("eos", spec.eos), ("unk", spec.unk)):
        if number is not None and not 0 <= number < len(spec.words):
            raise ValueError(f"{name} must be in [0, {len(spec.words)}), got {number}")
    if (spec.projection_weight is None) != (spec.projection_bias is None):
        raise ValueError("projection_weight and projection_bias belong together: give both or neither")
    for number, layer in enumerate(spec.layers):
        if problem := layer_problem(layer):
            raise ValueError(f"layers.{number}: {problem}")
    for name, array in (("embedding", spec.embedding), ("projection_weight", spec.projection_weight)):
        if array is not None and array.ndim != 2:
            raise ValueError(f"{name} must be a matrix, got shape {array.shape}")
    if problem := spec.output.form_problem(len(spec.words)):
        raise ValueError(problem)
    outline = outline_of(spec)
    if problem := outline.problem():
        raise ValueError(problem)
    limits.check_arrays(arrays_of(spec), outline.records())
