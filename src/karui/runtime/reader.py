"""Reads the artifact of docs/format.md. Every length and limit is checked before it is used; no code is in the file."""

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from karui import _native
from karui.errors import ArtifactError
from karui.runtime import spec as limits
from karui.runtime.format import (
    CELLS_PER_BYTE,
    FORMAT_VERSION,
    FREE_CELLS,
    LAYOUTS,
    MAGIC,
    VALUE_BYTES,
    VALUES,
    dequantize,
    hints_for,
)
from karui.runtime.layers import (
    ACTIVATIONS,
    CODES,
    KIND_ACTIVATIONS,
    MAX_ALPHAS,
    MAX_CODE,
    DirectionOutline,
    LayerOutline,
)
from karui.runtime.pairs import CELLS_PER_PAIR, MAX_PAIRS, pairs_problem, word_hints
from karui.runtime.spec import NORMALISATIONS, POOLINGS, ClassifierSpec, Outline, spec_from

_DAMAGED = "copy the file again, or make it again with `karui compact`"


@dataclass(frozen=True)
class Record:
    """How one matrix is stored: name, (rows, columns), kept cells, values, layout, entropy coded or not, bytes."""

    name: str
    shape: tuple[int, int]
    kept: int
    values: str
    layout: str
    coded: bool
    num_bytes: int


@dataclass
class Artifact:
    """A read file: description, bytes by part (they sum to the file's size), and how each matrix is stored."""

    spec: ClassifierSpec
    sizes: dict[str, int]
    records: list[Record] = field(default_factory=list)


def read(source: str | os.PathLike[str] | bytes) -> ClassifierSpec:
    """Description of an artifact, given by path or as bytes; raises `ArtifactError` with one line."""
    return read_artifact(source).spec


def read_artifact(source: str | os.PathLike[str] | bytes) -> Artifact:
    """Description, byte table and records of an artifact; raises `ArtifactError` with one line."""
    name = "artifact" if isinstance(source, bytes) else os.fspath(source)
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = Path(source).read_bytes()
        except FileNotFoundError:
            raise ArtifactError(f"{name}: there is no such file; check the path") from None
        except IsADirectoryError:
            raise ArtifactError(
                f"{name}: this is a folder, not a .karui file; `karui compact` makes one from a run folder"
            ) from None
        except OSError as error:
            raise ArtifactError(
                f"{name}: cannot be read ({error.strerror}); check the path and its permissions"
            ) from None
    try:
        return _Reader(data).run()
    except _RefusedError as error:
        raise ArtifactError(f"{name}: {error}; {error.remedy}") from None
    except _native.BadStream as error:
        raise ArtifactError(f"{name}: {error}; {_DAMAGED}") from None


class _RefusedError(Exception):
    def __init__(self, message: str, remedy: str = _DAMAGED) -> None:
        super().__init__(message)
        self.remedy = remedy


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        if not data.startswith(MAGIC):
            raise _RefusedError("this is no karui artifact", "give a file written by `karui compact`")
        self.data, self.at, self.end = data, len(MAGIC), self.size
        version = self.varint("format_version")
        if version != FORMAT_VERSION:
            raise _RefusedError(
                f"its format_version is {version}, this karui reads version {FORMAT_VERSION}",
                "install a newer karui",
            )
        if self.size < self.at + 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise _RefusedError("the checksum does not match, the file is cut or altered")
        self.end = self.size - 4
        plain = self.varint("length of the plain part")
        if plain > self.end - self.at:
            raise _RefusedError("the plain part is longer than the file")
        self.coded = _native.Decoder(data[self.at + plain : self.end])
        self.end = self.at + plain
        self.sizes: dict[str, int] = {"frame": self.at}
        self.records: list[Record] = []
        self.counted = self.at
        self.coded_cells = 0
        self.arrays: dict[str, np.ndarray] = {}
        self.pairs: np.ndarray | None = None

    def take(self, count: int, what: str) -> bytes:
        if count > self.end - self.at:
            raise _RefusedError(f"{what} needs {count} bytes where {self.end - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, what: str, most: int = 0xFFFFFFFF) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1, what)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if not byte and shift:
                    raise _RefusedError(f"{what} is not in its shortest form")
                if value > most:
                    raise _RefusedError(f"{what} is {value}, at most {most} is allowed")
                return value
        raise _RefusedError(f"{what} has too many bytes")

    def text(self, what: str) -> str:
        data = self.take(self.varint(f"length of {what}", limits.MAX_TEXT_BYTES), what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _RefusedError(f"{what} is not UTF-8") from None

    def count(self, part: str) -> int:
        """Book the bytes since the last call under a name."""
        place = self.at + self.coded.position
        spent, self.counted = place - self.counted, place
        self.sizes[part] = self.sizes.get(part, 0) + spent
        return spent

    def run(self) -> Artifact:
        normalisation = NORMALISATIONS[self.varint("normalisation", len(NORMALISATIONS) - 1)]
        max_tokens = self.varint("max_tokens", limits.MAX_TOKENS)
        n_labels = self.varint("number of labels", limits.MAX_LABELS)
        self.count("header")
        labels = [self.text("a label") for _ in range(n_labels)]
        self.count("labels")
        pairs = [
            (self.text("provenance"), self.text("provenance"))
            for _ in range(self.varint("provenance", limits.MAX_PROVENANCE))
        ]
        if len(dict(pairs)) != len(pairs):
            raise _RefusedError("a key of the provenance is there twice")
        self.count("provenance")
        outline = self.outline(n_labels)
        self.count("header")
        words = self.words(outline.n_words)
        self.count("words")
        for number, (name, rows, cols) in enumerate(outline.records()):
            if name == "pair_scores":
                self.pairs = self.pair_list(rows, words)
                self.count("pairs")
            self.arrays[name] = self.matrix(number, name, rows, cols)
        if self.at != self.end:
            raise _RefusedError(f"{self.end - self.at} bytes are left over after the last matrix")
        self.coded.check_end()
        self.sizes["frame"] += self.size - self.counted  # end of the coded stream and checksum
        spec = spec_from(outline, words, labels, self.arrays, self.pairs)
        spec.normalisation, spec.max_tokens, spec.provenance = normalisation, max_tokens, dict(pairs)
        return Artifact(spec, self.sizes, self.records)

    def outline(self, n_labels: int) -> Outline:
        n_words = self.varint("number of words", limits.MAX_WORDS)
        width = self.varint("embedding width", limits.MAX_WIDTH)
        flags = self.varint("pooling", 15)
        layers = []
        for _ in range(self.varint("number of layers", limits.MAX_LAYERS)):
            layers.append(self.layer())
        n_pairs = self.varint("number of pairs", MAX_PAIRS) if flags >> 3 else 0
        if flags >> 3 and not n_pairs:
            raise _RefusedError("it declares pairs and has none")
        has_scores, pooling = bool(flags >> 2 & 1), POOLINGS[flags & 3]
        outline = Outline(n_words, n_labels, width, pooling, has_scores, tuple(layers), n_pairs)
        problem = limits.size_problem(outline)
        if problem:
            raise _RefusedError(problem)
        return outline

    def layer(self) -> LayerOutline:
        code = self.varint("kind of a layer", MAX_CODE)
        number, activation = code & 3 | code >> 5 << 2, code >> 2 & 1 | (code >> 4 & 1) << 1
        kind = next((name for name, known in CODES.items() if known == number), None)
        if kind is None:
            raise _RefusedError("a layer is of an unknown kind")
        if activation >= len(KIND_ACTIVATIONS[kind]):
            raise _RefusedError(f"a layer of kind {kind} has the unknown activation {activation}")
        sizes = [self.varint("hidden size", limits.MAX_WIDTH) for _ in range(1 + (code >> 3 & 1))]
        window, output_gate = 1, True
        if kind == "statistical":
            directions = [self.statistics(size) for size in sizes]
        else:
            directions = [DirectionOutline(size) for size in sizes]
        if kind == "qrnn":
            form = self.varint("window and gate", 3)
            window, output_gate = 1 + (form & 1), bool(form >> 1)
        return LayerOutline(kind, ACTIVATIONS[activation], tuple(directions), window, output_gate)

    def statistics(self, hidden_size: int) -> DirectionOutline:
        num_stats = self.varint("number of statistics", limits.MAX_WIDTH)
        recur_size = self.varint("recurrent size", limits.MAX_WIDTH)
        raw = self.take(4 * self.varint("number of scales", MAX_ALPHAS), "a scale")
        alphas = tuple(np.frombuffer(raw, "<f4").tolist())
        return DirectionOutline(hidden_size, num_stats, recur_size, alphas)

    def words(self, count: int) -> list[str]:
        coded = self.varint("form of the word list", 1)
        if coded:
            found = self.coded.words(count, limits.MAX_WORD_BYTES, limits.MAX_WORD_LIST_BYTES)
        else:
            found, before, total = [], b"", 0
            for _ in range(count):
                shared = self.varint("shared prefix", len(before))
                before = before[:shared] + self.take(
                    self.varint("length of a word", limits.MAX_WORD_BYTES - shared), "a word"
                )
                total += len(before)
                if total > limits.MAX_WORD_LIST_BYTES:
                    raise _RefusedError("the word list is too long")
                found.append(before)
        if any(a >= b for a, b in zip([b"", *found], found, strict=False)) or any(
            b"\0" in word for word in found
        ):
            raise _RefusedError("the words are not sorted, not different or empty")
        try:
            return [word.decode() for word in found]
        except UnicodeDecodeError:
            raise _RefusedError("a word is not UTF-8") from None

    def pair_list(self, count: int, words: list[str]) -> np.ndarray:
        if self.varint("form of the pair list", 1):
            self.take_cells(CELLS_PER_PAIR * count, f"a list of {count} pairs")
            pairs = np.empty((count, 2), np.int32)
            hints = word_hints([word.encode() for word in words], self.arrays.get("word_scores"))
            self.coded.pairs(pairs, hints=hints)
            return pairs.astype(np.int64)
        found, first, second = [], 0, 0
        for _ in range(count):
            step = self.varint("first word of a pair", len(words) - first)
            second = 0 if step else second
            first += step
            second += 1 + self.varint("second word of a pair", len(words))
            found.append((first, second))
        pairs = np.asarray(found, np.int64)
        if problem := pairs_problem(pairs, len(words)):
            raise _RefusedError(problem)
        return pairs

    def take_cells(self, count: int, what: str) -> None:
        """Refuse what would take far longer to decode than a file of this size is worth."""
        self.coded_cells += count
        if self.coded_cells > CELLS_PER_BYTE * self.size + FREE_CELLS:
            raise _RefusedError(f"{what} is too large for a file of {self.size} bytes")

    def matrix(self, number: int, name: str, rows: int, cols: int) -> np.ndarray:
        form = self.take(1, name)[0]
        layout, values, coded = form & 3, form >> 2 & 3, form >> 4
        if layout > 2 or values > 2 or coded > 1:
            raise _RefusedError(f"{name} has the unknown form {form}")
        scale = np.frombuffer(b"\0\0" + self.take(2, name), "<f4")[0] if values == 0 else np.float32(1)
        if not (np.isfinite(scale) and scale > 0):
            raise _RefusedError(f"{name} has a scale that is not a positive number")
        if coded:
            self.take_cells(rows * cols, f"{name} of {rows} x {cols}")
            largest = self.take(1, name)[0] if values == 0 else 1
            if not 1 <= largest <= 127:
                raise _RefusedError(f"{name} has a largest value of {largest}")
            hints = hints_for(name, self.arrays, self.pairs)
            codes = np.empty((rows, cols), np.int32)
            self.coded.matrix(
                codes, record=number, values=values, largest=largest, layout=layout, hints=hints
            )
        else:
            codes = self.plain_matrix(name, (rows, cols), values, layout)
        array = dequantize(codes, values, float(scale))
        if not np.all(np.isfinite(array)):
            raise _RefusedError(f"{name} has values that are not finite")
        spent = self.count(name)
        kept = int(np.count_nonzero(codes))
        self.records.append(
            Record(name, (rows, cols), kept, VALUES[values], LAYOUTS[layout], bool(coded), spent)
        )
        return array

    def plain_matrix(self, name: str, shape: tuple[int, int], values: int, layout: int) -> np.ndarray:
        rows, cols = shape
        cells = rows * cols
        if layout == 0:
            places = slice(None)
            kept = cells
        elif layout == 1:
            bits = np.unpackbits(np.frombuffer(self.take(-(-cells // 8), name), np.uint8), bitorder="little")
            if bits[cells:].any():
                raise _RefusedError(f"{name} has bits set behind its last cell")
            places = np.flatnonzero(bits[:cells])
            kept = len(places)
        else:
            found = []
            for row in range(rows):
                col = -1
                for _ in range(self.varint(name, cols)):
                    col += 1 + self.varint(name, cols)
                    if col >= cols:
                        raise _RefusedError(f"{name} has a value outside its row")
                    found.append(row * cols + col)
            places = np.asarray(found, np.int64)
            kept = len(found)
        raw = np.frombuffer(self.take(kept * VALUE_BYTES[values], name), ("<i1", "<u2", "<u4")[values])
        if layout and not raw.all():
            raise _RefusedError(f"{name} has a kept value that is zero")
        if values == 0 and (raw == -128).any():
            raise _RefusedError(f"{name} has the value -128")
        codes = np.zeros(cells, np.int32)
        codes[places] = raw.astype(np.int32) if values < 2 else raw.view(np.int32)
        return codes.reshape(shape)
