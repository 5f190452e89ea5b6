"""int8 values with fewer levels for some matrices, and what the rounding itself makes superfluous.

Rounding turns small weights into zeros, so words, columns and units can die of it: the rounded description is shrunk
again, and written with the same scales, so that the file holds exactly these numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from karui.compact.shrink import shrink
from karui.compact.weights import named_arrays
from karui.runtime.format import FIELDS, ClassifierSpec, encode, quantize

GROUPS = ("embedding", "word_scores", "pair_scores", "recurrent", "output")
MAX_LEVELS = 127


def group_of(name: str) -> str | None:
    """The group of matrices whose levels are set together; None for vectors, which keep all 127."""
    last = name.rpartition(".")[2]
    if last in ("embedding", "word_scores", "pair_scores"):
        return last
    if last in ("weight_ih", "weight_hh", "weight_r", "weight_phi", "weight_o"):
        return "recurrent"
    return "output" if last == "output_weight" else None


def groups(spec: ClassifierSpec) -> Iterator[str]:
    """Groups with a weight to round."""
    found = {group_of(name) for name, array in named_arrays(spec) if array.any()}
    return (group for group in GROUPS if group in found)


def rounded(spec: ClassifierSpec, levels: Mapping[str, int]) -> tuple[ClassifierSpec, dict[str, float]]:
    """Return the description that an int8 file holds, shrunk again, and the scale of each of its records.

    levels: largest magnitude by group, 127 where a group is not named.
    """
    scales: dict[str, float] = {}

    def values(name: str, array: np.ndarray) -> np.ndarray:
        codes, scales[name] = quantize(array, levels.get(group_of(name) or "", MAX_LEVELS))
        return codes.astype(np.float32) * np.float32(scales[name])

    arrays = {name: values(name, array) for name, array in named_arrays(spec)}
    layers = []
    for k, layer in enumerate(spec.layers):
        directions = []
        for place, direction in zip(("forward", "reverse"), layer.directions, strict=False):
            start = f"layers.{k}.{place}."
            parts = {field: arrays[start + field] for field in FIELDS if start + field in arrays}
            directions.append(replace(direction, **parts))
        layers.append(replace(layer, directions=directions))
    small = shrink(
        replace(
            spec,
            layers=layers,
            embedding=arrays["embedding"],
            output_weight=arrays["output_weight"],
            output_bias=arrays["output_bias"],
            word_scores=arrays.get("word_scores"),
            pair_scores=arrays.get("pair_scores"),
        ),
        fold=False,
    )
    dropped = len(layers) - len(small.layers)  # shrinking removes layers from the first one on
    return small, {_renumber(name, dropped): scale for name, scale in scales.items()}


def without_words(spec: ClassifierSpec, dropped: Sequence[int] | np.ndarray) -> ClassifierSpec:
    """Return the description in which the words at these positions are unknown; shrinking takes them off the list.

    Their pairs go with them.
    """
    rows = np.asarray(dropped, np.int64) + 1
    embedding, scores = spec.embedding.copy(), spec.word_scores
    embedding[rows] = 0.0
    if scores is not None:
        scores = scores.copy()
        scores[rows] = 0.0
    spec = replace(spec, embedding=embedding, word_scores=scores)
    if spec.pairs is None:
        return spec
    return without_pairs(spec, np.flatnonzero(np.isin(spec.pairs, rows).any(axis=1)))


def without_pairs(spec: ClassifierSpec, dropped: Sequence[int] | np.ndarray) -> ClassifierSpec:
    """Return the description in which the pairs at these positions have no score; shrinking takes them off the list."""
    if spec.pair_scores is None:
        return spec
    scores = spec.pair_scores.copy()
    scores[np.asarray(dropped, np.int64)] = 0.0
    return replace(spec, pair_scores=scores)


def _renumber(name: str, dropped: int) -> str:
    if not name.startswith("layers."):
        return name
    _, number, rest = name.split(".", 2)
    return f"layers.{int(number) - dropped}.{rest}"


def encode_rounded(spec: ClassifierSpec, levels: Mapping[str, int]) -> bytes:
    """The bytes of an int8 file with these levels."""
    small, scales = rounded(spec, levels)
    return encode(small, values="int8", scales=scales)
