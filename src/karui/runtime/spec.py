"""What an artifact describes: a text classifier as numpy arrays, and the shapes that follow from its sizes.

C' outputs: 1 for two labels (probability of labels[1] = sigmoid), else the number of labels (softmax).
E embedding width, H hidden units of one direction, I inputs of a layer, P pooled features.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from karui.runtime.layers import (
    FIELDS,
    Direction,
    LayerOutline,
    RecurrentLayer,
    layer_from,
    layer_problem,
    outline_of_layer,
)
from karui.runtime.pairs import MAX_PAIRS, pairs_problem, sorted_pairs

__all__ = ["ClassifierSpec", "Direction", "LayerOutline", "Outline", "RecurrentLayer", "check_spec"]

NORMALISATIONS = ("words-v1",)
POOLINGS = ("last", "mean", "max", "mean+max")

MAX_WORDS = 1 << 20
MAX_WORD_BYTES = 1024
MAX_WORD_LIST_BYTES = 1 << 24
MAX_LABELS = 1 << 16
MAX_TEXT_BYTES = 1024  # of a label, or of a key or value of the provenance
MAX_PROVENANCE = 64
MAX_LAYERS = 16
MAX_WIDTH = (1 << 14) - 1  # E and H
MAX_CELLS = 1 << 24  # of a matrix
MAX_TOTAL_CELLS = 1 << 25  # of all matrices
MAX_TOKENS = (1 << 31) - 1


@dataclass
class ClassifierSpec:
    """A text classifier; arrays are float32 with zeros where weights are pruned.

    embedding (n_words + 1, E) and word_scores (n_words + 1, C') have a zero row 0: words that are not in the list.
    output_weight (C', P), output_bias (C',). pairs (K, 2), ids of two words in a row, sorted and distinct, with
    pair_scores (K, C'); both or neither. Without layers the pooled features are the embeddings themselves.
    """

    words: list[str]
    labels: list[str]
    embedding: np.ndarray
    layers: list[RecurrentLayer]
    pooling: str
    output_weight: np.ndarray
    output_bias: np.ndarray
    word_scores: np.ndarray | None = None
    pairs: np.ndarray | None = None
    pair_scores: np.ndarray | None = None
    normalisation: str = "words-v1"
    max_tokens: int = 0
    provenance: dict[str, str] = field(default_factory=dict)

    def pair_names(self) -> list[str]:
        """The words of each pair, with a space between them."""
        if self.pairs is None:
            return []
        return [f"{self.words[first - 1]} {self.words[second - 1]}" for first, second in self.pairs]


@dataclass(frozen=True)
class Outline:
    """Everything that decides the shapes of the matrices."""

    n_words: int
    n_labels: int
    embedding_dim: int
    pooling: str
    has_scores: bool
    layers: tuple[LayerOutline, ...]
    n_pairs: int = 0

    @property
    def n_outputs(self) -> int:
        """C'."""
        return 1 if self.n_labels == 2 else self.n_labels

    @property
    def pooled_size(self) -> int:
        """P."""
        width = sum(self.layers[-1].hidden_sizes) if self.layers else self.embedding_dim
        return width * (2 if self.pooling == "mean+max" else 1)

    def records(self) -> Iterator[tuple[str, int, int]]:
        """Name, rows and columns of each matrix in the order of the file; vectors are one column."""
        yield "embedding", self.n_words, self.embedding_dim
        if self.has_scores:
            yield "word_scores", self.n_words, self.n_outputs
        width = self.embedding_dim
        for number, layer in enumerate(self.layers):
            for direction in range(len(layer.directions)):
                name = f"layers.{number}.{'reverse' if direction else 'forward'}."
                for part, rows, cols in layer.matrices(direction, width):
                    yield name + part, rows, cols
            width = sum(layer.hidden_sizes)
        yield "output_weight", self.n_outputs, self.pooled_size
        yield "output_bias", self.n_outputs, 1
        if self.n_pairs:
            yield "pair_scores", self.n_pairs, self.n_outputs


def outline_of(spec: ClassifierSpec) -> Outline:
    """Sizes of a description; `check_spec` tells whether its arrays agree with them."""
    layers = tuple(outline_of_layer(layer) for layer in spec.layers)
    scores, pairs = spec.word_scores is not None, 0 if spec.pairs is None else len(spec.pairs)
    width = spec.embedding.shape[1]
    return Outline(len(spec.words), len(spec.labels), width, spec.pooling, scores, layers, pairs)


def with_words_in(spec: ClassifierSpec, order: Sequence[int] | np.ndarray) -> ClassifierSpec:
    """The same classifier with its words in another order: new word k is old word order[k]."""
    rows = np.concatenate([[0], np.asarray(order, np.int64) + 1])
    scores, pairs, pair_scores = spec.word_scores, spec.pairs, spec.pair_scores
    if pairs is not None and pair_scores is not None:
        place = np.empty(len(rows), np.int64)
        place[rows] = np.arange(len(rows))
        pairs = place[pairs]
        by_id = sorted_pairs(pairs)
        pairs, pair_scores = pairs[by_id], pair_scores[by_id]
    return replace(
        spec,
        words=[spec.words[number] for number in order],
        embedding=spec.embedding[rows],
        word_scores=None if scores is None else scores[rows],
        pairs=pairs,
        pair_scores=pair_scores,
    )


def arrays_of(spec: ClassifierSpec) -> Iterator[tuple[str, np.ndarray]]:
    """Name and matrix of each record, in the order of `Outline.records`; tables of words without row 0."""
    yield "embedding", spec.embedding[1:]
    if spec.word_scores is not None:
        yield "word_scores", spec.word_scores[1:]
    for number, layer in enumerate(spec.layers):
        for place, direction in enumerate(layer.directions):
            name = f"layers.{number}.{'reverse' if place else 'forward'}."
            for part in FIELDS:
                value = getattr(direction, part)
                if value is not None:
                    yield name + part, value
    yield "output_weight", spec.output_weight
    yield "output_bias", spec.output_bias
    if spec.pair_scores is not None and len(spec.pair_scores):
        yield "pair_scores", spec.pair_scores


def spec_from(
    outline: Outline,
    words: list[str],
    labels: list[str],
    arrays: dict[str, np.ndarray],
    pairs: np.ndarray | None = None,
) -> ClassifierSpec:
    """Put matrices back into a description; the inverse of `arrays_of`."""

    def with_zero_row(name: str) -> np.ndarray:
        return np.concatenate([np.zeros((1, arrays[name].shape[1]), np.float32), arrays[name]])

    layers = []
    for number, layer in enumerate(outline.layers):
        names = [f"layers.{number}.{place}." for place in ("forward", "reverse")[: len(layer.directions)]]
        parts = [
            {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            for start in names
        ]
        layers.append(layer_from(layer, parts))
    return ClassifierSpec(
        words=words, labels=labels, embedding=with_zero_row("embedding"), layers=layers, pooling=outline.pooling,
        output_weight=arrays["output_weight"], output_bias=arrays["output_bias"].reshape(-1),
        word_scores=with_zero_row("word_scores") if outline.has_scores else None,
        pairs=pairs, pair_scores=arrays.get("pair_scores"),
    )  # fmt: skip


def size_problem(outline: Outline) -> str | None:
    """Say which size is outside the limits of the format, or None."""
    directions = [direction for layer in outline.layers for direction in layer.directions]
    sizes = [size for d in directions for size in (d.hidden_size, d.num_stats, d.recur_size)]
    if outline.n_words > MAX_WORDS:
        return f"{outline.n_words} words, at most {MAX_WORDS} are allowed"
    if outline.n_pairs > min(MAX_PAIRS, outline.n_words**2):
        most = min(MAX_PAIRS, outline.n_words**2)
        return f"{outline.n_pairs} pairs of {outline.n_words} words, at most {most} are allowed"
    if not 2 <= outline.n_labels <= MAX_LABELS:
        return f"{outline.n_labels} labels, 2 to {MAX_LABELS} are allowed"
    if len(outline.layers) > MAX_LAYERS:
        return f"{len(outline.layers)} layers, at most {MAX_LAYERS} are allowed"
    if max([outline.embedding_dim, *sizes]) > MAX_WIDTH:
        return f"a width of {max([outline.embedding_dim, *sizes])}, at most {MAX_WIDTH} are allowed"
    for layer in outline.layers:
        if problem := layer.size_problem():
            return problem
    total = 0
    for name, rows, cols in outline.records():
        total += rows * cols
        if rows * cols > MAX_CELLS or total > MAX_TOTAL_CELLS:
            return f"{name} of {rows} x {cols}; {MAX_CELLS} cells a matrix and {MAX_TOTAL_CELLS} in all are allowed"
    return None


def check_spec(spec: ClassifierSpec) -> None:
    """Raise `ValueError` that names the first thing in a description that does not fit."""
    for value, allowed, name in (
        (spec.normalisation, NORMALISATIONS, "normalisation"),
        (spec.pooling, POOLINGS, "pooling"),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    if not 0 <= spec.max_tokens <= MAX_TOKENS:
        raise ValueError(f"max_tokens must be in [0, {MAX_TOKENS}], got {spec.max_tokens}")
    for number, layer in enumerate(spec.layers):
        if problem := layer_problem(layer):
            raise ValueError(f"layers.{number}: {problem}")
    outline = outline_of(spec)
    problem = size_problem(outline)
    if problem:
        raise ValueError(problem)
    for name in ("embedding", "word_scores"):
        table = getattr(spec, name)
        if table is not None and (len(table) != len(spec.words) + 1 or np.any(table[0])):
            raise ValueError(
                f"{name} must have {len(spec.words) + 1} rows and zeros in row 0, got shape {table.shape}"
            )
    if (spec.pairs is None) != (spec.pair_scores is None):
        raise ValueError("pairs and pair_scores belong together: give both or neither")
    if spec.pairs is not None and (problem := pairs_problem(spec.pairs, len(spec.words))):
        raise ValueError(problem)
    check_arrays(arrays_of(spec), outline.records())


def check_arrays(arrays: Iterable[tuple[str, np.ndarray]], records: Iterable[tuple[str, int, int]]) -> None:
    """Raise `ValueError` that names the first array of another shape than its record, or with a value not finite."""
    wanted = {name: (rows, cols) for name, rows, cols in records}
    for name, array in arrays:
        shape = wanted[name] if array.ndim == 2 else (wanted[name][0],)
        if array.shape != shape or (array.ndim == 1 and wanted[name][1] != 1):
            raise ValueError(f"{name} must have shape {wanted[name]}, got {array.shape}")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} has values that are not finite")
