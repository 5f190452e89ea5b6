"""The parts that every kind of artifact is read from: every length and limit is checked before it is used."""

import zlib
from dataclasses import dataclass

import numpy as np

from karui import _native
from karui.runtime import spec as limits
from karui.runtime.layers import (
    ACTIVATIONS,
    CODES,
    KIND_ACTIVATIONS,
    MAX_ALPHAS,
    MAX_CODE,
    DirectionOutline,
    LayerOutline,
)
from karui.runtime.values import (
    BY_ROWS,
    CELLS_PER_BYTE,
    FREE_CELLS,
    LAYOUTS,
    MAGIC,
    VALUE_BYTES,
    VALUES,
    dequantize,
    hints_for,
)

DAMAGED = "copy the file again, or make it again with `karui compact`"
READ_VERSIONS = (1, 2)
VALUE_NAMES = (*VALUES, "int8 by rows")


class RefusedError(Exception):
    """What is wrong with a file, and what to do about it, in half a line each."""

    def __init__(self, message: str, remedy: str = DAMAGED) -> None:
        super().__init__(message)
        self.remedy = remedy


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


class PartReader:
    """Two streams: the plain part, read from `at` to `end`, and the coded one; the frame is checked at the start."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        if not data.startswith(MAGIC):
            raise RefusedError("this is no karui artifact", "give a file written by `karui compact`")
        self.data, self.at, self.end = data, len(MAGIC), self.size
        self.version = self.varint("format_version")
        if self.version not in READ_VERSIONS:
            raise RefusedError(
                f"its format_version is {self.version}, this karui reads versions 1 to {READ_VERSIONS[-1]}",
                "install a newer karui",
            )
        if self.size < self.at + 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise RefusedError("the checksum does not match, the file is cut or altered")
        self.end = self.size - 4
        plain = self.varint("length of the plain part")
        if plain > self.end - self.at:
            raise RefusedError("the plain part is longer than the file")
        self.coded = _native.Decoder(data[self.at + plain : self.end])
        self.end = self.at + plain
        self.sizes: dict[str, int] = {"frame": self.at}
        self.records: list[Record] = []
        self.counted = self.at
        self.coded_cells = 0
        self.arrays: dict[str, np.ndarray] = {}
        self.pairs: np.ndarray | None = None

    def take(self, count: int, what: str) -> bytes:
        """Return the next bytes of the plain part."""
        if count > self.end - self.at:
            raise RefusedError(f"{what} needs {count} bytes where {self.end - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, what: str, most: int = 0xFFFFFFFF) -> int:
        """Return a number in its shortest form, at most `most`."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1, what)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if not byte and shift:
                    raise RefusedError(f"{what} is not in its shortest form")
                if value > most:
                    raise RefusedError(f"{what} is {value}, at most {most} is allowed")
                return value
        raise RefusedError(f"{what} has too many bytes")

    def text(self, what: str) -> str:
        """Return a label, or a key or value of the provenance."""
        data = self.take(self.varint(f"length of {what}", limits.MAX_TEXT_BYTES), what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise RefusedError(f"{what} is not UTF-8") from None

    def count(self, part: str) -> int:
        """Book the bytes since the last call under a name."""
        place = self.at + self.coded.position
        spent, self.counted = place - self.counted, place
        self.sizes[part] = self.sizes.get(part, 0) + spent
        return spent

    def provenance(self) -> dict[str, str]:
        """Return short strings by name."""
        pairs = [
            (self.text("provenance"), self.text("provenance"))
            for _ in range(self.varint("provenance", limits.MAX_PROVENANCE))
        ]
        if len(dict(pairs)) != len(pairs):
            raise RefusedError("a key of the provenance is there twice")
        return dict(pairs)

    def finish(self) -> None:
        """Refuse what is left over in either part, and book the rest of the file."""
        if self.at != self.end:
            raise RefusedError(f"{self.end - self.at} bytes are left over after the last matrix")
        self.coded.check_end()
        self.sizes["frame"] += self.size - self.counted  # end of the coded stream and checksum

    def layer(self) -> LayerOutline:
        """Return kind and sizes of a recurrent layer."""
        code = self.varint("kind of a layer", MAX_CODE)
        number, activation = code & 3 | code >> 5 << 2, code >> 2 & 1 | (code >> 4 & 1) << 1
        kind = next((name for name, known in CODES.items() if known == number), None)
        if kind is None:
            raise RefusedError("a layer is of an unknown kind")
        if activation >= len(KIND_ACTIVATIONS[kind]):
            raise RefusedError(f"a layer of kind {kind} has the unknown activation {activation}")
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
        """Return the further sizes of a Statistical Recurrent Unit."""
        num_stats = self.varint("number of statistics", limits.MAX_WIDTH)
        recur_size = self.varint("recurrent size", limits.MAX_WIDTH)
        raw = self.take(4 * self.varint("number of scales", MAX_ALPHAS), "a scale")
        alphas = tuple(np.frombuffer(raw, "<f4").tolist())
        return DirectionOutline(hidden_size, num_stats, recur_size, alphas)

    def words(self, count: int) -> list[str]:
        """Return the word list."""
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
                    raise RefusedError("the word list is too long")
                found.append(before)
        if any(a >= b for a, b in zip([b"", *found], found, strict=False)) or any(
            b"\0" in word for word in found
        ):
            raise RefusedError("the words are not sorted, not different or empty")
        try:
            return [word.decode() for word in found]
        except UnicodeDecodeError:
            raise RefusedError("a word is not UTF-8") from None

    def take_cells(self, count: int, what: str) -> None:
        """Refuse what would take far longer to decode than a file of this size is worth."""
        self.coded_cells += count
        if self.coded_cells > CELLS_PER_BYTE * self.size + FREE_CELLS:
            raise RefusedError(f"{what} is too large for a file of {self.size} bytes")

    def scales(self, name: str, count: int) -> np.ndarray:
        """Upper halves of positive fp32 numbers."""
        bits = np.frombuffer(self.take(2 * count, name), "<u2").astype(np.uint32) << 16
        found = bits.view(np.float32)
        if not (np.isfinite(found).all() and (found > 0).all()):
            raise RefusedError(f"{name} has a scale that is not a positive number")
        return found

    def matrix(self, number: int, name: str, rows: int, cols: int) -> np.ndarray:
        """Return a record, float32 (rows, cols), and note how it was stored."""
        form = self.take(1, name)[0]
        layout, values, coded = form & 3, form >> 2 & 3, form >> 4
        of_int8 = values in (0, BY_ROWS)
        if layout > 2 or coded > 1 or (values == BY_ROWS and self.version == 1):
            raise RefusedError(f"{name} has the unknown form {form}")
        scale = self.scales(name, rows if values == BY_ROWS else 1) if of_int8 else np.ones(1, np.float32)
        if coded:
            self.take_cells(rows * cols, f"{name} of {rows} x {cols}")
            largest = self.take(1, name)[0] if of_int8 else 1
            if not 1 <= largest <= 127:
                raise RefusedError(f"{name} has a largest value of {largest}")
            hints = hints_for(name, self.arrays, self.pairs)
            codes = np.empty((rows, cols), np.int32)
            kind = 0 if of_int8 else values
            self.coded.matrix(
                codes, record=number & 255, values=kind, largest=largest, layout=layout, hints=hints
            )
        else:
            codes = self.plain_matrix(name, (rows, cols), values, layout)
        array = dequantize(codes, values, scale if values == BY_ROWS else float(scale[0]))
        if not np.all(np.isfinite(array)):
            raise RefusedError(f"{name} has values that are not finite")
        spent = self.count(name)
        kept = int(np.count_nonzero(codes))
        self.records.append(
            Record(name, (rows, cols), kept, VALUE_NAMES[values], LAYOUTS[layout], bool(coded), spent)
        )
        return array

    def plain_matrix(self, name: str, shape: tuple[int, int], values: int, layout: int) -> np.ndarray:
        """Return the codes of a record in a plain layout."""
        rows, cols = shape
        cells = rows * cols
        if layout == 0:
            places = slice(None)
            kept = cells
        elif layout == 1:
            bits = np.unpackbits(np.frombuffer(self.take(-(-cells // 8), name), np.uint8), bitorder="little")
            if bits[cells:].any():
                raise RefusedError(f"{name} has bits set behind its last cell")
            places = np.flatnonzero(bits[:cells])
            kept = len(places)
        else:
            found = []
            for row in range(rows):
                col = -1
                for _ in range(self.varint(name, cols)):
                    col += 1 + self.varint(name, cols)
                    if col >= cols:
                        raise RefusedError(f"{name} has a value outside its row")
                    found.append(row * cols + col)
            places = np.asarray(found, np.int64)
            kept = len(found)
        raw = np.frombuffer(self.take(kept * VALUE_BYTES[values], name), ("<i1", "<u2", "<u4", "<i1")[values])
        if layout and not raw.all():
            raise RefusedError(f"{name} has a kept value that is zero")
        if values in (0, BY_ROWS) and (raw == -128).any():
            raise RefusedError(f"{name} has the value -128")
        codes = np.zeros(cells, np.int32)
        codes[places] = raw.view(np.int32) if values == 2 else raw.astype(np.int32)
        return codes.reshape(shape)
