"""Text to words, normalisation "words-v1": the one tokeniser of training and of answering (docs/format.md).

`tokenise_reference` is the specification in plain Python; everything else here is the native core.
"""

from functools import cache

import numpy as np

from karui.runtime.unicode_table import CLASS_RANGES, LOWER_RUNS

NORMALISATION = "words-v1"
_SEPARATOR, _WORD, _SINGLE, _MARK, _APOSTROPHE = range(5)
_TAGS = ("<br>", "<br/>", "<br />")


@cache
def _tables() -> tuple[dict[int, int], dict[int, int]]:
    """Class and lower-case code point of every code point that has one."""
    classes = {code: kind for first, last, kind in CLASS_RANGES for code in range(first, last + 1)}
    lower = {code: code + delta for first, last, step, delta in LOWER_RUNS for code in range(first, last + 1, step)}
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


tokenise = tokenise_reference


def count_words(texts: list[str]) -> dict[str, int]:
    """How often each word occurs in the texts."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in tokenise(text):
            counts[word] = counts.get(word, 0) + 1
    return counts


class WordIds:
    """Ids of words: the word at position i of the list has id i + 1, every other word has id 0."""

    def __init__(self, words: list[str]) -> None:
        self.words = list(words)
        self._ids = {word: number for number, word in enumerate(words, 1)}

    def encode(self, text: str, max_tokens: int = 0) -> np.ndarray:
        """Ids of a text, int32 (T,); a text without words is one token of id 0. `max_tokens` 0 is no limit."""
        ids = [self._ids.get(word, 0) for word in tokenise(text)] or [0]
        return np.asarray(ids[: max_tokens or None], dtype=np.int32)

    def encode_batch(self, texts: list[str], max_tokens: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts one after the other, int32, and offsets int64 (len(texts) + 1,) of their beginnings."""
        parts = [self.encode(text, max_tokens) for text in texts]
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return np.concatenate([np.zeros(0, np.int32), *parts]), offsets
