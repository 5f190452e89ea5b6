"""Text to words, normalisation "words-v1": the one tokeniser of training and of answering (docs/format.md).

`tokenise_reference` is the specification in plain Python; everything else here is the native core.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from karui import _native
from karui.runtime.unicode_table import CLASS_RANGES, LOWER_RUNS

NORMALISATION = "words-v1"
_SEPARATOR, _WORD, _SINGLE, _MARK, _APOSTROPHE = range(5)
_TAGS = ("<br>", "<br/>", "<br />")


@cache
def _tables() -> tuple[dict[int, int], dict[int, int]]:
    """Class and lower-case code point of every code point that has one."""
    classes = {code: kind for first, last, kind in CLASS_RANGES for code in range(first, last + 1)}
    lower = {
        code: code + delta for first, last, step, delta in LOWER_RUNS for code in range(first, last + 1, step)
    }
    return classes, lower


def tokenise_reference(text: str) -> list[str]:
    """Words of a text, the slow and readable way; equals `tokenise` on every string."""
    classes, lower = _tables()
    words: list[str] = []
    word = ""  # the run being read; it may end in an apostrophe that waits for the next letter
    position = 0
    while position < len(text):
        tag = next((tag for tag in _TAGS if text[position : position + len(tag)].lower() == tag), "")
        code = ord(text[position])
        kind = _SEPARATOR if tag else classes.get(code, _SEPARATOR)
        position += len(tag) or 1
        if kind == _WORD:
            word += chr(lower.get(code, code))
        elif kind == _APOSTROPHE and word and not word.endswith("'"):
            word += "'"
        else:
            if word:
                words.append(word.rstrip("'"))
                word = ""
            if kind in (_SINGLE, _MARK):
                words.append(chr(lower.get(code, code)))
    if word:
        words.append(word.rstrip("'"))
    return words


def tokenise(text: str) -> list[str]:
    """Words of a text; `TypeError` names anything that is not a str."""
    return _native.tokenise(text)


def tokenise_spans(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Words of a text, and for each its (start, end) in code points of the text."""
    return _native.tokenise_spans(text)


def settled_length(text: str) -> int:
    """How many leading code points have words that no later text can change; the rest may be half a word or tag."""
    return _native.settled_length(text)


def count_words(texts: Iterable[str]) -> dict[str, int]:
    """How often each word occurs in the texts, in order of first appearance."""
    return _native.count_words(list(texts))


class WordIds:
    """Ids of words: the word at position i of the list has id i + 1, every other word has id 0.

    Raises `ValueError` for a word that is listed twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._native = _native.WordIds(self.words)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, max_tokens: int = 0) -> np.ndarray:
        """Ids of a text, int32 (T,); a text without words is one token of id 0. `max_tokens` 0 is no limit."""
        return self._native.encode(text, max_tokens)

    def encode_batch(self, texts: Iterable[str], max_tokens: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts one after the other, int32, and offsets int64 (number of texts + 1,) of their beginnings."""
        return self._native.encode_batch(list(texts), max_tokens)
