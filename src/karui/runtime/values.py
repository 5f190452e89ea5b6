"""How the values of a matrix are stored in an artifact (docs/format.md, "Record"): integers and scales, or floats."""

from collections.abc import Mapping

import numpy as np

from karui.runtime.pairs import row_hints, score_hints

MAGIC = b"\x9dkru"
VALUES = ("int8", "fp16", "fp32")
BY_ROWS = 3  # int8 with a scale for each row: the form of values after those three, of version 2
LAYOUTS = ("dense", "bitmap", "row-sparse")
VALUE_BYTES = (1, 2, 4, 1)
CELLS_PER_BYTE = (
    1024  # a file may hold this many coded cells a byte: a tiny file cannot ask for hours of decoding
)
FREE_CELLS = 1 << 16


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


def quantize_rows(array: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers of magnitude <= levels and the scale of each row, float32 (rows,): its largest value is `levels`."""
    largest = np.abs(array).max(axis=1, initial=0.0).astype(np.float64) / levels
    bits = np.maximum(largest, 1e-30).astype(np.float32).view(np.uint32)
    scales = ((bits.astype(np.int64) + 0xFFFF) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    codes = np.clip(np.rint(array / scales[:, None]), -levels, levels)
    return codes.astype(np.int32), scales


def raw_bytes(codes: np.ndarray, values: int, layout: int) -> bytes:
    """A matrix of codes in a plain layout (docs/format.md, "Plain layouts")."""
    dtype = ("<i1", "<u2", "<u4", "<i1")[values]
    kept = codes if layout == 0 else codes[codes != 0]
    body = (
        kept.astype(np.int64).astype(dtype).tobytes()
        if values in (0, BY_ROWS)
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


def dequantize(codes: np.ndarray, values: int, scale: float | np.ndarray) -> np.ndarray:
    """Float32 values of a matrix of codes (`VALUES[values]`); scale is one number, or one a row (`BY_ROWS`)."""
    if values == BY_ROWS:
        with np.errstate(over="ignore"):
            return codes.astype(np.float32) * np.asarray(scale, np.float32)[:, None]
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
