"""The parts that every kind of artifact is written of (docs/format.md): texts, layers, word list, records, frame."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from karui import _native
from karui.runtime.layers import LayerOutline
from karui.runtime.pairs import CELLS_PER_PAIR, plain_numbers, word_hints
from karui.runtime.spec import MAX_PROVENANCE, MAX_TEXT_BYTES, MAX_WORD_BYTES, MAX_WORD_LIST_BYTES
from karui.runtime.values import (
    BY_ROWS,
    CELLS_PER_BYTE,
    FREE_CELLS,
    LAYOUTS,
    MAGIC,
    VALUE_BYTES,
    dequantize,
    hints_for,
    quantize,
    quantize_rows,
    raw_bytes,
    varint,
)

_QUICK_CELLS = 1 << 15
_TRIED_CELLS = 1 << 22  # larger matrices are not tried in coded form: decoding costs about 0.3 us a cell


@dataclass
class PartWriter:
    """Two streams: plain bytes, and the coded stream that follows them."""

    coding: bool
    layout: str | None
    quick: bool = False
    """Whether large matrices are coded only if most of their cells are zero: else it saves little and takes long."""

    plain: bytearray = field(default_factory=bytearray)
    coded: _native.Encoder = field(default_factory=_native.Encoder)
    coded_cells: int = 0
    known: dict[str, np.ndarray] = field(default_factory=dict)
    """Embedding and word scores as a reader will have them."""

    pairs: np.ndarray | None = None

    def text(self, value: str) -> None:
        """Write a label, or a key or value of the provenance."""
        data = value.encode()
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError(
                f"a label or provenance text has at most {MAX_TEXT_BYTES} bytes, got {value[:40]!r} ..."
            )
        self.plain += varint(len(data)) + data

    def provenance(self, entries: Mapping[str, str]) -> None:
        """Write short strings by name."""
        if len(entries) > MAX_PROVENANCE:
            raise ValueError(f"provenance has at most {MAX_PROVENANCE} entries, got {len(entries)}")
        self.plain += varint(len(entries))
        for key, value in entries.items():
            self.text(key)
            self.text(value)

    def layer(self, layer: LayerOutline) -> None:
        """Write kind and sizes of a recurrent layer."""
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
        """Write the word list."""
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
        """Write the pair list."""
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
        """Write a record in its smallest form; values is one of `VALUES` by number, or `BY_ROWS`."""
        array = array if array.ndim == 2 else array[:, None]
        head = b""
        if values == 0:
            codes, scale = quantize(array, levels, scale)
            head = int(np.float32(scale).view(np.uint32) >> 16).to_bytes(2, "little")
        elif values == 1:
            half = (np.clip(array, -65504, 65504) + 0.0).astype(np.float16)
            codes = (half + np.float16(0)).view(np.uint16).astype(np.int32)
        elif values == BY_ROWS:
            codes, scales = quantize_rows(array, levels)
            head = (scales.view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            codes = (array.astype(np.float32) + np.float32(0)).view(np.int32)
        codes, of_int8 = np.ascontiguousarray(codes), values in (0, BY_ROWS)
        largest = max(1, int(np.abs(codes).max(initial=1))) if of_int8 else 1
        hints = hints_for(name, self.known, self.pairs)
        if name in ("embedding", "word_scores") and values != BY_ROWS:
            self.known[name] = dequantize(codes, values, scale or 1.0)
        layouts = range(3) if self.layout is None else [LAYOUTS.index(self.layout)]
        options: list[tuple[float, int, bool, object]] = []
        for layout in layouts:
            if self.layout is not None or not _is_hopeless(codes, values, layout):
                raw = raw_bytes(codes, values, layout)
                options.append((8.0 * len(raw), layout, False, raw))
            if self.coding and self.is_worth_coding(codes, layout):
                trial = self.coded.copy()
                kind = 0 if of_int8 else values
                trial.matrix(codes, record=record, values=kind, largest=largest, layout=layout, hints=hints)
                options.append((trial.bits - self.coded.bits + 8 * of_int8, layout, True, trial))
        _, layout, coded, result = min(options, key=lambda option: option[:2])
        self.plain += bytes([layout | values << 2 | coded << 4]) + head
        if coded:
            self.plain += bytes([largest]) if of_int8 else b""
            self.coded = result
            self.coded_cells += codes.size
        else:
            self.plain += result  # pyright: ignore[reportOperatorIssue]

    def is_worth_coding(self, codes: np.ndarray, layout: int) -> bool:
        """Whether to try the coded form of a layout; every cell takes about 0.3 us, more where it is kept."""
        if self.quick and codes.size > _QUICK_CELLS:
            return (
                layout > 0 and codes.size <= _TRIED_CELLS and 8 * int(np.count_nonzero(codes)) <= codes.size
            )
        return codes.size <= (_TRIED_CELLS if layout > 0 else _TRIED_CELLS >> 2)

    def finish(self, version: int) -> bytes:
        """Return the bytes of the whole file."""
        data = MAGIC + varint(version) + varint(len(self.plain)) + bytes(self.plain) + self.coded.finish()
        return data + zlib.crc32(data).to_bytes(4, "little")

    def is_too_dense(self, data: bytes) -> bool:
        """Whether a reader would refuse the file because it takes too long to decode for its size."""
        return self.coded_cells > CELLS_PER_BYTE * len(data) + FREE_CELLS


def _is_hopeless(codes: np.ndarray, values: int, layout: int) -> bool:
    """Whether a plain layout cannot be smaller than the dense one; large tables need not be written to know."""
    kept, width = int(np.count_nonzero(codes)), VALUE_BYTES[values]
    least = (0, -(-codes.size // 8) + kept * width, len(codes) + kept * (1 + width))[layout]
    return layout > 0 and least >= codes.size * width


def sorted_words(words: list[str]) -> tuple[list[int], list[bytes]]:
    """Order of the words by their UTF-8 bytes, and these; `ValueError` names what the format does not allow."""
    found = [word.encode() for word in words]
    for word in found:
        if not 0 < len(word) <= MAX_WORD_BYTES or b"\0" in word:
            raise ValueError(f"a word must have 1 to {MAX_WORD_BYTES} bytes and no NUL, got {word[:40]!r}")
    if len(set(found)) != len(found) or sum(map(len, found)) > MAX_WORD_LIST_BYTES:
        raise ValueError(f"words must differ and have at most {MAX_WORD_LIST_BYTES} bytes together")
    order = sorted(range(len(found)), key=found.__getitem__)
    return order, [found[number] for number in order]
