"""Writes the artifact of a text classifier, specified in docs/format.md. `karui.runtime.reader` reads it."""

from collections.abc import Mapping

from karui.runtime.layers import FIELDS, Direction, RecurrentLayer, bias_blocks, weight_blocks
from karui.runtime.pairs import row_hints
from karui.runtime.spec import (
    NORMALISATIONS,
    POOLINGS,
    ClassifierSpec,
    Outline,
    arrays_of,
    check_spec,
    outline_of,
    with_words_in,
)
from karui.runtime.values import LAYOUTS, MAGIC, VALUES, quantize, round_scale, varint
from karui.runtime.writer import PartWriter, sorted_words

__all__ = [
    "FIELDS",
    "LAYOUTS",
    "MAGIC",
    "VALUES",
    "ClassifierSpec",
    "Direction",
    "RecurrentLayer",
    "bias_blocks",
    "encode",
    "quantize",
    "round_scale",
    "row_hints",
    "varint",
    "weight_blocks",
]

FORMAT_VERSION = 1


def encode(
    spec: ClassifierSpec, *, values: str = "fp32", levels: int | Mapping[str, int] = 127,
    scales: Mapping[str, float] | None = None, coding: bool = True, layout: str | None = None,
) -> bytes:  # fmt: skip
    """Write a description as the bytes of an artifact; the words are sorted and their rows move with them.

    values: "fp32", "fp16", or "int8" with one scale a matrix. levels: largest magnitude of the int8 integers, 1 to 127
    (15 is 31 levels): a number for all matrices, while vectors keep 127, or a mapping from record names (as in
    `Outline.records`) to numbers, 127 elsewhere. scales: int8 scales by record name, rounded by `round_scale`.
    layout and coding: orders for tests; by default each matrix takes the smallest of dense, bitmap and row-sparse,
    plain or entropy coded. Raises `ValueError` for a description that does not fit together or the format.
    """
    if values not in VALUES:
        raise ValueError(f"values must be one of {VALUES}, got {values!r}")
    check_spec(spec)
    order, words = sorted_words(spec.words)
    spec = with_words_in(spec, order)
    writer = PartWriter(coding, layout)
    _write_header(writer, spec, outline_of(spec))
    writer.words(words)
    for record, (name, array) in enumerate(arrays_of(spec)):
        if name == "pair_scores" and spec.pairs is not None:
            writer.pair_list(spec.pairs, words)
        vector = array.ndim == 1
        most = levels.get(name, 127) if isinstance(levels, Mapping) else 127 if vector else levels
        if not 1 <= most <= 127:
            raise ValueError(f"levels must be in [1, 127], got {most} for {name}")
        writer.matrix(name, array, record, VALUES.index(values), most, (scales or {}).get(name))
    data = writer.finish(FORMAT_VERSION)
    if coding and writer.is_too_dense(data):
        return encode(spec, values=values, levels=levels, scales=scales, coding=False, layout=layout)
    return data


def _write_header(writer: PartWriter, spec: ClassifierSpec, outline: Outline) -> None:
    writer.plain += varint(NORMALISATIONS.index(spec.normalisation)) + varint(spec.max_tokens)
    writer.plain += varint(len(spec.labels))
    for label in spec.labels:
        writer.text(label)
    writer.provenance(spec.provenance)
    writer.plain += varint(outline.n_words) + varint(outline.embedding_dim)
    flags = outline.has_scores << 2 | (outline.n_pairs > 0) << 3
    writer.plain += varint(POOLINGS.index(spec.pooling) | flags) + varint(len(outline.layers))
    for layer in outline.layers:
        writer.layer(layer)
    if outline.n_pairs:
        writer.plain += varint(outline.n_pairs)
