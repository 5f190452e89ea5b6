"""Writes the artifact: one `.karui` file, specified in docs/format.md. `karui.runtime.reader` reads it."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from karui import _native
from karui.runtime.layers import (
    FIELDS,
    Direction,
    LayerOutline,
    RecurrentLayer,
    bias_blocks,
    weight_blocks,
)
from karui.runtime.pairs import CELLS_PER_PAIR, plain_numbers, row_hints, score_hints, word_hints
from karui.runtime.spec import (
    MAX_PROVENANCE,
    MAX_TEXT_BYTES,
    MAX_WORD_BYTES,
    MAX_WORD_LIST_BYTES,
    NORMALISATIONS,
    POOLINGS,
    ClassifierSpec,
    Outline,
    arrays_of,
    check_spec,
    outline_of,
    with_words_in,
)

__all__ = [
    "FIELDS",
    "ClassifierSpec",
    "Direction",
    "RecurrentLayer",
    "bias_blocks",
    "encode",
    "round_scale",
    "weight_blocks",
]

MAGIC = b"\x9dkru"
FORMAT_VERSION = 1
VALUES = ("int8", "fp16", "fp32")
LAYOUTS = ("dense", "bitmap", "row-sparse")
VALUE_BYTES = (1, 2, 4)
CELLS_PER_BYTE = (
    1024  # a file may hold this many coded cells a byte: a tiny file cannot ask for hours of decoding
)
FREE_CELLS = 1 << 16
_TRIED_CELLS = 1 << 22  # larger matrices are not tried in coded form: decoding costs about 0.3 us a cell


def varint(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def round_scale(scale: float) -> float:
    """Smallest storable scale (8 significant bits, as bfloat16) that is not below `scale`."""
    bits = int(np.float32(max(scale, 1e-30)).view(np.uint32))
    return float(np.uint32((bits + 0xFFFF) & 0xFFFF0000).view(np.float32))


def quantize(array: np.ndarray, levels: int, scale: float | None = None) -> tuple[np.ndarray, float]:
    """Integers of magnitude <= levels and their scale: the given one, else the one of the least squared error."""
    array = np.asarray(array, dtype=np.float64)
    largest = float(np.abs(array).max(initial=0.0))
    if scale is not None:
        scales = [round_scale(scale)]
    else:
        shares = (1.0,) if levels >= 127 else np.linspace(1.0, 0.5, 26)
        scales = [round_scale(largest * share / levels) for share in shares]
    best, best_error = None, np.inf
    for candidate in scales:
        codes = np.clip(np.rint(array / candidate), -levels, levels)
        error = float(np.square(codes * candidate - array).sum())
        if error < best_error:
            best, best_error = (codes.astype(np.int32), candidate), error
    assert best is not None
    return best


def raw_bytes(codes: np.ndarray, values: int, layout: int) -> bytes:
    """A matrix of codes in a plain layout (docs/format.md, "Plain layouts")."""
    dtype = ("<i1", "<u2", "<u4")[values]
    kept = codes if layout == 0 else codes[codes != 0]
    body = (
        kept.astype(np.int64).astype(dtype).tobytes()
        if values == 0
        else (kept.astype(np.int64) & 0xFFFFFFFF).astype(dtype).tobytes()
    )
    if layout == 0:
        return body
    if layout == 1:
        return np.packbits(codes.ravel() != 0, bitorder="little").tobytes() + body
    head = bytearray()
    for row in codes:
        columns = np.flatnonzero(row)
        head += varint(len(columns))
        for gap in np.diff(columns, prepend=-1) - 1:
            head += varint(int(gap))
    return bytes(head) + body


def dequantize(codes: np.ndarray, values: int, scale: float) -> np.ndarray:
    """Float32 values of a matrix of codes (`VALUES[values]`)."""
    if values == 0:
        with np.errstate(over="ignore"):
            return codes.astype(np.float32) * np.float32(scale)
    return (
        codes.astype(np.uint16).view(np.float16).astype(np.float32) if values == 1 else codes.view(np.float32)
    )


def hints_for(name: str, known: Mapping[str, np.ndarray], pairs: np.ndarray | None) -> np.ndarray | None:
    """What the records read so far, as stored, tell about each row of a record: one number a row, or None."""
    if name == "word_scores":
        return row_hints(known["embedding"])
    if name == "pair_scores" and pairs is not None:
        return score_hints(pairs, known.get("word_scores"))
    return None


@dataclass
class _Writer:
    """Two streams: plain bytes, and the coded stream that follows them."""

    coding: bool
    layout: str | None
    plain: bytearray = field(default_factory=bytearray)
    coded: _native.Encoder = field(default_factory=_native.Encoder)
    coded_cells: int = 0
    known: dict[str, np.ndarray] = field(default_factory=dict)
    """Embedding and word scores as a reader will have them."""

    pairs: np.ndarray | None = None

    def text(self, value: str) -> None:
        data = value.encode()
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError(
                f"a label or provenance text has at most {MAX_TEXT_BYTES} bytes, got {value[:40]!r} ..."
            )
        self.plain += varint(len(data)) + data

    def header(self, spec: ClassifierSpec, outline: Outline) -> None:
        self.plain += varint(NORMALISATIONS.index(spec.normalisation)) + varint(spec.max_tokens)
        self.plain += varint(len(spec.labels))
        for label in spec.labels:
            self.text(label)
        if len(spec.provenance) > MAX_PROVENANCE:
            raise ValueError(f"provenance has at most {MAX_PROVENANCE} entries, got {len(spec.provenance)}")
        self.plain += varint(len(spec.provenance))
        for key, value in spec.provenance.items():
            self.text(key)
            self.text(value)
        self.plain += varint(outline.n_words) + varint(outline.embedding_dim)
        flags = outline.has_scores << 2 | (outline.n_pairs > 0) << 3
        self.plain += varint(POOLINGS.index(spec.pooling) | flags) + varint(len(outline.layers))
        for layer in outline.layers:
            self.layer(layer)
        if outline.n_pairs:
            self.plain += varint(outline.n_pairs)

    def layer(self, layer: LayerOutline) -> None:
        self.plain += varint(layer.code)
        for size in layer.hidden_sizes:
            self.plain += varint(size)
        if layer.kind == "statistical":
            for sizes in layer.directions:
                self.plain += varint(sizes.num_stats) + varint(sizes.recur_size) + varint(len(sizes.alphas))
                self.plain += np.asarray(sizes.alphas, "<f4").tobytes()
        elif layer.kind == "qrnn":
            self.plain += varint(layer.window - 1 + 2 * layer.output_gate)

    def words(self, words: list[bytes]) -> None:
        raw, before = bytearray(), b""
        for word in words:
            shared = next(
                (i for i, (a, b) in enumerate(zip(word, before, strict=False)) if a != b),
                min(len(word), len(before)),
            )
            raw += varint(shared) + varint(len(word) - shared) + word[shared:]
            before = word
        trial = self.coded.copy()
        trial.words(words)
        self.list(trial, raw)

    def pair_list(self, pairs: np.ndarray, words: list[bytes]) -> None:
        raw = b"".join(varint(int(number)) for number in plain_numbers(pairs).ravel())
        trial = self.coded.copy()
        hints = word_hints(words, self.known.get("word_scores"))
        trial.pairs(np.ascontiguousarray(pairs, np.int32), hints=hints)
        if self.list(trial, raw):
            self.coded_cells += CELLS_PER_PAIR * len(pairs)
        self.pairs = pairs

    def list(self, trial: _native.Encoder, raw: bytes | bytearray) -> bool:
        """Write a list in its shorter form; whether it is the coded one."""
        coded = self.coding and trial.bits - self.coded.bits < 8 * len(raw)
        if coded:
            self.coded = trial
        self.plain += b"\x01" if coded else b"\x00" + raw
        return coded

    def matrix(
        self, name: str, array: np.ndarray, record: int, values: int, levels: int, scale: float | None
    ) -> None:
        array = array if array.ndim == 2 else array[:, None]
        head = b""
        if values == 0:
            codes, scale = quantize(array, levels, scale)
            head = int(np.float32(scale).view(np.uint32) >> 16).to_bytes(2, "little")
        elif values == 1:
            half = (np.clip(array, -65504, 65504) + 0.0).astype(np.float16)
            codes = (half + np.float16(0)).view(np.uint16).astype(np.int32)
        else:
            codes = (array.astype(np.float32) + np.float32(0)).view(np.int32)
        codes = np.ascontiguousarray(codes)
        largest = max(1, int(np.abs(codes).max(initial=1))) if values == 0 else 1
        hints = hints_for(name, self.known, self.pairs)
        if name in ("embedding", "word_scores"):
            self.known[name] = dequantize(codes, values, scale or 1.0)
        layouts = range(3) if self.layout is None else [LAYOUTS.index(self.layout)]
        options: list[tuple[float, int, bool, object]] = []
        for layout in layouts:
            raw = raw_bytes(codes, values, layout)
            options.append((8.0 * len(raw), layout, False, raw))
            if self.coding and codes.size <= _TRIED_CELLS and (layout > 0 or codes.size <= _TRIED_CELLS >> 2):
                trial = self.coded.copy()
                trial.matrix(codes, record=record, values=values, largest=largest, layout=layout, hints=hints)
                options.append((trial.bits - self.coded.bits + 8 * (values == 0), layout, True, trial))
        _, layout, coded, result = min(options, key=lambda option: option[:2])
        self.plain += bytes([layout | values << 2 | coded << 4]) + head
        if coded:
            self.plain += bytes([largest]) if values == 0 else b""
            self.coded = result
            self.coded_cells += codes.size
        else:
            self.plain += result  # pyright: ignore[reportOperatorIssue]

    def finish(self) -> bytes:
        data = (
            MAGIC + varint(FORMAT_VERSION) + varint(len(self.plain)) + bytes(self.plain) + self.coded.finish()
        )
        return data + zlib.crc32(data).to_bytes(4, "little")


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
    words = [word.encode() for word in spec.words]
    for word in words:
        if not 0 < len(word) <= MAX_WORD_BYTES or b"\0" in word:
            raise ValueError(f"a word must have 1 to {MAX_WORD_BYTES} bytes and no NUL, got {word[:40]!r}")
    if len(set(words)) != len(words) or sum(map(len, words)) > MAX_WORD_LIST_BYTES:
        raise ValueError(f"words must differ and have at most {MAX_WORD_LIST_BYTES} bytes together")
    order = sorted(range(len(words)), key=words.__getitem__)
    spec, words = with_words_in(spec, order), [words[number] for number in order]
    writer = _Writer(coding, layout)
    writer.header(spec, outline_of(spec))
    writer.words(words)
    for record, (name, array) in enumerate(arrays_of(spec)):
        if name == "pair_scores" and spec.pairs is not None:
            writer.pair_list(spec.pairs, words)
        vector = array.ndim == 1
        most = levels.get(name, 127) if isinstance(levels, Mapping) else 127 if vector else levels
        if not 1 <= most <= 127:
            raise ValueError(f"levels must be in [1, 127], got {most} for {name}")
        writer.matrix(name, array, record, VALUES.index(values), most, (scales or {}).get(name))
    data = writer.finish()
    if coding and writer.coded_cells > CELLS_PER_BYTE * len(data) + FREE_CELLS:
        return encode(spec, values=values, levels=levels, scales=scales, coding=False, layout=layout)
    return data
