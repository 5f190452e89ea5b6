"""Which words a model knows, chosen by count; ids as in `karui.runtime.tokenise`."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from karui.runtime.tokenise import WordIds, count_words


class Vocabulary:
    """An ordered list of words. Word i of the list has id i + 1; id 0 is every other word, and padding."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], max_size: int = 0, min_count: int = 1) -> "Vocabulary":
        """Keep the `max_size` most frequent words (0 = all) that occur `min_count` times or more.

        The order is by falling count, equal counts alphabetically: the same counts give the same ids.
        """
        if max_size < 0 or min_count < 1:
            raise ValueError(f"max_size must be >= 0 and min_count >= 1, got {max_size} and {min_count}")
        kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls([word for _, word in kept[: max_size or None]])

    @classmethod
    def from_texts(cls, texts: Iterable[str], max_size: int = 0, min_count: int = 1) -> "Vocabulary":
        """Count the words of the texts, then choose as `from_counts` does."""
        return cls.from_counts(count_words(texts), max_size, min_count)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _ids(self) -> WordIds:
        return WordIds(self.words)

    def encode(self, text: str, max_tokens: int = 0) -> np.ndarray:
        """Return the ids of a text, int32 (T,), T >= 1: a text without words is one token of id 0."""
        return self._ids.encode(text, max_tokens)

    def encode_batch(self, texts: Iterable[str], max_tokens: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts in a row, int32, and where each begins, int64 (N + 1,)."""
        return self._ids.encode_batch(texts, max_tokens)
