"""The linear baseline as one byte string: n-grams, int8 weights, scale, bias and labels, packed tightly.

Layout: text coder and weight coder (4 bits each), length power in hundredths (1 byte); label count and labels;
scale and biases (float32 each); n-gram count; length of the coded n-grams, the coded n-grams; the coded weights.
Counts and lengths are LEB128. C' is 1 for two labels, else the number of labels.
"""

import math
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from karui import _native
from karui.runtime.tokenise import tokenise


@dataclass
class LinearModel:
    """A linear classifier over uni- and bigrams.

    score = bias + sum over n-grams in the text of `weights * scale * (1 + ln count) / words ** length_power`;
    `ngrams` are sorted, `weights` is (n, C') int8, `bias` is (C',) float32.
    """

    ngrams: list[str]
    weights: np.ndarray
    scale: float
    bias: np.ndarray
    labels: list[str]
    length_power: float

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores (D, C') of raw texts."""
        score = self.reader()
        return np.stack([score(text) for text in texts])

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Return the label position (D,) of each raw text."""
        return best_label(self.logits(texts))

    def reader(self) -> Callable[[str], np.ndarray]:
        """Return a function from a raw text to its scores (C',), with the tables it needs already built."""
        rows = dict(zip(self.ngrams, self.weights.astype(np.float64) * self.scale, strict=True))

        def score(text: str) -> np.ndarray:
            words = tokenise(text)
            pairs = map(" ".join, pairwise(words))
            found = Counter(ngram for ngram in (*words, *pairs) if ngram in rows)
            total = np.zeros(len(self.bias))
            for ngram, count in found.items():
                total += rows[ngram] * (1 + math.log(count))
            return total / max(len(words), 1) ** self.length_power + self.bias

        return score


def best_label(logits: np.ndarray) -> np.ndarray:
    """Return the label position of each row of (D, C') scores; one column means label 1 where it is positive."""
    return (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(1)


def quantize(weights: np.ndarray, levels: int) -> tuple[np.ndarray, float]:
    """Return int8 weights in [-levels, levels] and the scale that restores them."""
    scale = float(np.float32(np.abs(weights).max(initial=0.0) / levels)) or 1.0
    return np.rint(weights / scale).astype(np.int8), scale


def encode(model: LinearModel, *, coded_ngrams: tuple[int, bytes] | None = None) -> bytes:
    """Return the bytes of a model; `coded_ngrams` (from `code_ngrams`) saves coding the same list again."""
    text_coder, text = coded_ngrams or code_ngrams(model.ngrams)
    weight_coder, weights = _smallest(model.weights.astype(np.int8), _WEIGHT_CODERS)
    labels = b"".join(_varint(len(name.encode())) + name.encode() for name in model.labels)
    head = bytes([text_coder << 4 | weight_coder, round(model.length_power * 100)])
    numbers = struct.pack(f"<{1 + len(model.bias)}f", model.scale, *model.bias)
    size = _varint(len(model.ngrams)) + _varint(len(text))
    return head + _varint(len(model.labels)) + labels + numbers + size + text + weights


def decode(data: bytes) -> LinearModel:
    """Return the model that `encode` wrote."""
    text_coder, weight_coder = divmod(data[0], 16)
    length_power = data[1] / 100
    n_labels, position = _read_varint(data, 2)
    labels = []
    for _ in range(n_labels):
        length, position = _read_varint(data, position)
        labels.append(data[position : position + length].decode())
        position += length
    n_scores = 1 if n_labels <= 2 else n_labels
    scale, *bias = struct.unpack_from(f"<{1 + n_scores}f", data, position)
    n_ngrams, position = _read_varint(data, position + 4 * (1 + n_scores))
    n_text, position = _read_varint(data, position)
    ngrams = _TEXT_CODERS[text_coder][1](data[position : position + n_text], n_ngrams)
    weights = _WEIGHT_CODERS[weight_coder][1](data[position + n_text :], (n_ngrams, n_scores))
    return LinearModel(ngrams, weights, scale, np.array(bias, np.float32), labels, length_power)


def code_ngrams(ngrams: list[str]) -> tuple[int, bytes]:
    """Return the number of the coder that makes the sorted list smallest, and its bytes."""
    return _smallest(ngrams, _TEXT_CODERS)


def _smallest(value: object, coders: Sequence[tuple[Callable, Callable]]) -> tuple[int, bytes]:
    coded = [write(value) for write, _ in coders]
    best = min(range(len(coded)), key=lambda index: len(coded[index]))
    return best, coded[best]


def _deflate(ngrams: list[str]) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress("\n".join(ngrams).encode()) + compressor.flush()


def _from_deflate(data: bytes, n: int) -> list[str]:
    return zlib.decompress(data, -15).decode().split("\n") if n else []


def _adaptive(ngrams: list[str]) -> bytes:
    """Write the list with the adaptive coder that the `.karui` file itself uses: the rival packs as tightly."""
    coder = _native.Encoder()
    coder.words([ngram.encode() for ngram in ngrams])
    return coder.finish()


def _from_adaptive(data: bytes, n: int) -> list[str]:
    return [ngram.decode() for ngram in _native.Decoder(data).words(n, 1 << 16, 1 << 28)]


def _adaptive_weights(weights: np.ndarray) -> bytes:
    """Write the largest value, then the matrix; the coder needs to know what it cannot meet."""
    largest = max(int(np.abs(weights.astype(np.int64)).max(initial=0)), 1)
    if largest > 127:
        raise ValueError(f"weights must be in [-127, 127], got one of size {largest}")
    coder = _native.Encoder()
    cells = np.ascontiguousarray(weights, np.int32)
    coder.matrix(cells, record=0, values=0, largest=largest, layout=0)
    return bytes([largest]) + coder.finish()


def _from_adaptive_weights(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    cells = np.zeros(shape, np.int32)
    _native.Decoder(data[1:]).matrix(cells, record=0, values=0, largest=data[0], layout=0)
    return cells.astype(np.int8)


# Writers and readers by number; lzma and front coding were tried and never came out smallest.
_TEXT_CODERS: list[tuple[Callable[[list[str]], bytes], Callable[[bytes, int], list[str]]]] = [
    (_deflate, _from_deflate),
    (_adaptive, _from_adaptive),
]
_WEIGHT_CODERS: list[tuple[Callable[[np.ndarray], bytes], Callable[[bytes, tuple[int, int]], np.ndarray]]] = [
    (lambda weights: weights.tobytes(), lambda data, shape: np.frombuffer(data, np.int8).reshape(shape)),
    (_adaptive_weights, _from_adaptive_weights),
]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        number |= (byte & 0x7F) << shift
        shift, position = shift + 7, position + 1
        if byte < 0x80:
            return number, position
