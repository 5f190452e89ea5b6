"""Counts of words and pairs of neighbouring words in documents: the features of the linear baseline.

Shapes: D documents, F features.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from karui.runtime.tokenise import WordIds, count_words


class NgramIndex:
    """The uni- and bigrams that occur in at least `min_documents` of some documents.

    A word keeps its id (1 to V); the pair (a, b) is the key `a * (V + 1) + b`, always above V. Id 0 (a rare word)
    takes part in no feature, so no pair spans a gap.
    """

    def __init__(self, texts: Sequence[str], *, min_documents: int) -> None:
        if min_documents < 1:
            raise ValueError(f"min_documents must be at least 1, got {min_documents}")
        counts = count_words(list(texts))
        self.min_documents = min_documents
        self.words = sorted(word for word, count in counts.items() if count >= min_documents)
        self._ids = WordIds(self.words)
        keys, _, frequencies, _ = self._document_keys(texts)
        unique, documents = np.unique(keys, return_counts=True)
        self.keys = unique[documents >= min_documents]
        del frequencies

    def __len__(self) -> int:
        return len(self.keys)

    def names(self, columns: np.ndarray) -> list[str]:
        """Return the features at `columns` as text: a word, or two words with a space between them."""
        base = len(self.words) + 1
        first, second = np.divmod(self.keys[columns], base)
        words = ["", *self.words]
        return [f"{words[a]} {words[b]}" if a else words[b] for a, b in zip(first, second, strict=True)]

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Return the column of each feature, the inverse of `names`.

        Raises:
            KeyError: a feature is not in the index.
        """
        ids = {word: position + 1 for position, word in enumerate(self.words)}
        base = len(self.words) + 1
        parts = (name.split(" ") for name in names)
        keys = np.array(
            [sum(ids[word] * base**k for k, word in enumerate(reversed(p))) for p in parts], np.int64
        )
        columns = _places(self.keys, keys)
        if (columns < 0).any():
            raise KeyError("a feature is not in the index")
        return columns

    def counts(self, texts: Sequence[str]) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Return how often each feature occurs in each document, (D, F) float64, and the words a document (D,)."""
        keys, documents, frequencies, lengths = self._document_keys(texts)
        columns = _places(self.keys, keys)
        known = columns >= 0
        shape = (len(texts), len(self.keys))
        entries = (frequencies[known].astype(np.float64), (documents[known], columns[known]))
        return sparse.csr_matrix(entries, shape=shape), lengths

    def _document_keys(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (key, document, times) of each feature in each document, sorted by key, and the lengths."""
        ids, offsets = self._ids.encode_batch(list(texts))
        return *ngram_keys(ids, offsets, len(self.words)), np.diff(offsets)


def ngram_keys(
    ids: np.ndarray, offsets: np.ndarray, n_words: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (key, document, times) of each feature in each document, sorted by key.

    ids: those of all documents in a row; document k begins at offsets[k], offsets is (D + 1,). Keys as in `NgramIndex`.
    """
    ids, base = ids.astype(np.int64), n_words + 1
    lengths = np.diff(offsets)
    documents = np.repeat(np.arange(len(lengths)), lengths)
    pair = (documents[:-1] == documents[1:]) & (ids[:-1] > 0) & (ids[1:] > 0)
    keys = np.concatenate([ids[ids > 0], (ids[:-1] * base + ids[1:])[pair]])
    owners = np.concatenate([documents[ids > 0], documents[:-1][pair]])
    both, frequencies = np.unique(keys * max(len(lengths), 1) + owners, return_counts=True)
    keys, owners = np.divmod(both, max(len(lengths), 1))
    return keys, owners, frequencies


def _places(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted key stands among rising keys, -1 where it does not."""
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def pair_counts(texts: Sequence[str], words: Sequence[str], pairs: np.ndarray) -> dict[str, int]:
    """Return how often each of sorted pairs (K, 2) of ids occurs in texts, by "first second"; word i has id i + 1."""
    ids, offsets = WordIds(list(words)).encode_batch(list(texts))
    found, _, times = ngram_keys(ids, offsets, len(words))
    rows = _places(pairs[:, 0].astype(np.int64) * (len(words) + 1) + pairs[:, 1], found)
    counts = np.bincount(rows[rows >= 0], weights=times[rows >= 0], minlength=len(pairs))
    return {f"{words[a - 1]} {words[b - 1]}": int(count) for (a, b), count in zip(pairs, counts, strict=True)}


def scaled(counts: sparse.csr_matrix, lengths: np.ndarray, length_power: float) -> sparse.csr_matrix:
    """Return `(1 + ln count) / length ** length_power` for every count, (D, F)."""
    values = counts.copy()
    values.data = 1 + np.log(values.data)
    rows = np.maximum(lengths, 1.0) ** -length_power
    return (sparse.diags(rows) @ values).tocsr() if length_power else values
