"""Pairs of adjacent words and their scores in an artifact (docs/format.md): order, plain form, what the coder is told.

K pairs, V words, C' outputs. Pairs are (K, 2) ids, 1 to V, sorted by the first word, then the second.
"""

from collections.abc import Sequence

import numpy as np

MAX_PAIRS = 1 << 20
CELLS_PER_PAIR = 16  # what decoding a pair costs, in cells of a matrix
MAX_HINT = (1 << 17) - 1


def pair_keys(pairs: np.ndarray, n_words: int) -> np.ndarray:
    """(K,) int64: one number a pair, above that of any single word and rising in the order of the file."""
    return pairs[:, 0].astype(np.int64) * (n_words + 1) + pairs[:, 1]


def find_pairs(pairs: np.ndarray, n_words: int, wanted: np.ndarray) -> np.ndarray:
    """Positions in sorted pairs of the wanted keys, -1 where there is no such pair."""
    if not len(pairs):
        return np.full(wanted.shape, -1)
    keys = pair_keys(pairs, n_words)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)


def sorted_pairs(pairs: np.ndarray) -> np.ndarray:
    """Positions (K,) of pairs in the order of the file."""
    return np.lexsort((pairs[:, 1], pairs[:, 0]))


def pairs_problem(pairs: np.ndarray, n_words: int) -> str | None:
    """Say what is wrong with the pairs of a description, or None."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        return f"pairs must be integers of shape (K, 2), got {pairs.dtype} of shape {pairs.shape}"
    if len(pairs) and (pairs.min() < 1 or pairs.max() > n_words):
        return f"pairs must hold ids from 1 to {n_words}, got {pairs.min()} to {pairs.max()}"
    is_rising = (np.diff(pair_keys(pairs, n_words)) > 0).all()
    return None if is_rising else "pairs must be sorted and differ"


def plain_numbers(pairs: np.ndarray) -> np.ndarray:
    """(K, 2) numbers that the plain form writes as varints."""
    before = np.concatenate([np.zeros((1, 2), pairs.dtype), pairs[:-1]])
    steps = pairs - before
    return np.stack([steps[:, 0], np.where(steps[:, 0] == 0, steps[:, 1], pairs[:, 1]) - 1], axis=1)


def word_hints(words: Sequence[bytes], scores: np.ndarray | None) -> np.ndarray:
    """(V,) int32: what the coder of pairs is told of each word, its bytes and its kept scores (V, C')."""
    kept = 0 if scores is None else np.minimum(np.count_nonzero(scores, axis=1), 7)
    lengths = np.fromiter((min(len(word), 15) for word in words), np.int32, len(words))
    return (lengths + 16 * kept).astype(np.int32)


def score_hints(pairs: np.ndarray, scores: np.ndarray | None) -> np.ndarray | None:
    """(K,) int32: what the scores (V, C') of its two words tell about the score of a pair; None without scores."""
    if scores is None:
        return None
    of_word = row_hints(scores).astype(np.int64)
    first, second = of_word[pairs.T - 1]
    return (first * (2 * scores.shape[1] + 1) + second & MAX_HINT).astype(np.int32)


def row_hints(table: np.ndarray) -> np.ndarray:
    """(V,) int32: place and sign of the largest value of each row, the first if equal; 0 for an empty row."""
    if not table.shape[1]:
        return np.zeros(len(table), np.int32)
    place = np.abs(table).argmax(axis=1)
    value = table[np.arange(len(table)), place]
    return np.where(value == 0, 0, 1 + 2 * place + (value < 0)).astype(np.int32)
