"""Writes the artifact of a language model: format version 2 of docs/format.md. `karui.runtime.reader` reads it."""

import numpy as np

from karui.runtime.language_output import (
    OUTPUTS,
    AdaptiveOutput,
    ClassOutput,
    FullOutput,
    Tail,
    TreeOutput,
    in_preorder,
    preorder,
)
from karui.runtime.language_spec import (
    LanguageModelSpec,
    LanguageOutline,
    arrays_of,
    check_spec,
    outline_of,
    with_words_in,
)
from karui.runtime.language_tokens import TOKENISATIONS
from karui.runtime.values import BY_ROWS, VALUES, varint
from karui.runtime.writer import PartWriter, sorted_words

__all__ = [
    "AdaptiveOutput",
    "ClassOutput",
    "FullOutput",
    "LanguageModelSpec",
    "Tail",
    "TreeOutput",
    "arrays_of",
    "encode_language_model",
    "in_preorder",
]

FORMAT_VERSION = 2
LANGUAGE_MODEL = 1  # kind
MAX_CODED_CELLS = 1 << 25


def encode_language_model(
    spec: LanguageModelSpec,
    *,
    values: str = "fp32",
    levels: int = 127,
    coding: bool = True,
    layout: str | None = None,
) -> bytes:
    """Write a description as the bytes of an artifact; the words are sorted, and their ids change with them.

    values: "fp32", "fp16", or "int8": matrices as integers with a scale for each row, vectors as fp16. levels: largest
    magnitude of the integers, 1 to 127. layout and coding: orders for tests; by default each record takes the
    smallest form. Raises `ValueError` for a description that does not fit together or the format.
    """
    if values not in VALUES:
        raise ValueError(f"values must be one of {VALUES}, got {values!r}")
    if not 1 <= levels <= 127:
        raise ValueError(f"levels must be in [1, 127], got {levels}")
    check_spec(spec)
    order, words = sorted_words(spec.words)
    spec = with_words_in(spec, order)
    if isinstance(spec.output, TreeOutput):
        children, old = in_preorder(spec.output.children)
        spec.output = TreeOutput(children, spec.output.weight[old], spec.output.bias[old])
    writer, outline = PartWriter(coding, layout, quick=True), outline_of(spec)
    _write_header(writer, spec, outline)
    writer.words(words)
    _write_word_table(writer, spec)
    for record, (name, array) in enumerate(arrays_of(spec)):
        form = VALUES.index(values)
        if form == 0:
            form = BY_ROWS if array.ndim == 2 else VALUES.index("fp16")
        writer.matrix(name, array, record & 255, form, levels, None)
    data = writer.finish(FORMAT_VERSION)
    if coding and (writer.is_too_dense(data) or writer.coded_cells > MAX_CODED_CELLS):
        return encode_language_model(spec, values=values, levels=levels, coding=False, layout=layout)
    if problem := outline.memory_problem(len(data)):
        raise ValueError(problem)
    return data


def _write_header(writer: PartWriter, spec: LanguageModelSpec, outline: LanguageOutline) -> None:
    writer.plain += varint(LANGUAGE_MODEL)
    writer.provenance(spec.provenance)
    writer.plain += varint(TOKENISATIONS.index(spec.tokenisation) + 4 * spec.lower)
    writer.plain += (
        varint(outline.n_words) + varint(spec.eos) + varint(0 if spec.unk is None else spec.unk + 1)
    )
    form = outline.output.is_tied + 2 * (outline.projection is not None)
    writer.plain += varint(outline.embedding_dim) + varint(form)
    if outline.projection is not None:
        writer.plain += varint(outline.projection)
    writer.plain += varint(len(outline.layers))
    for layer in outline.layers:
        writer.layer(layer)
    writer.plain += varint(OUTPUTS.index(outline.output.kind))
    if outline.output.kind == "classes":
        writer.plain += varint(outline.output.n_classes)
    elif outline.output.kind == "adaptive":
        writer.plain += varint(len(outline.output.widths)) + b"".join(map(varint, outline.output.widths))


def _write_word_table(writer: PartWriter, spec: LanguageModelSpec) -> None:
    output = spec.output
    if isinstance(output, ClassOutput):
        writer.plain += b"".join(map(varint, output.classes.tolist()))
    elif isinstance(output, AdaptiveOutput):
        writer.plain += b"".join(map(varint, output.tail_of.tolist()))
    elif isinstance(output, TreeOutput):
        shape, leaves = preorder(output.children)
        writer.plain += np.packbits(shape, bitorder="little").tobytes() + b"".join(
            map(varint, leaves.tolist())
        )
