"""Batches of documents of similar length, and how they are padded.

Legend: N documents, B documents of a batch, T tokens of its longest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from karui.data.dataset import TextDataset
from karui.data.vocabulary import Vocabulary

BATCHES_PER_POOL = 50
"""Documents are shuffled, cut into pools of this many batches and sorted by length inside a pool only."""


class LengthBuckets:
    """Batches of indices such that little is padded; a pure function of (lengths, sizes, seed, epoch).

    `batch_size` caps the documents of a batch, `max_tokens` its padded size B * T; one of them must be given,
    both may be. A document longer than `max_tokens` is a batch of its own. Every index occurs once an epoch.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, *, batch_size: int = 0, max_tokens: int = 0, seed: int = 0
    ) -> None:
        if batch_size < 0 or max_tokens < 0 or batch_size + max_tokens == 0:
            raise ValueError(f"batch_size or max_tokens must be positive, got {batch_size} and {max_tokens}")
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.seed = seed
        self._last: tuple[int, list[np.ndarray]] | None = None

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch in training order; the last result is kept for the next call."""
        if self._last is None or self._last[0] != epoch:
            self._last = (epoch, self._build(epoch))
        return self._last[1]

    def _build(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        found = []
        for start in range(0, len(order), self._pool_size()):
            pool = order[start : start + self._pool_size()]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            found.extend(_cut(pool, self.lengths, self.batch_size, self.max_tokens))
        return [found[position] for position in random.permutation(len(found))]

    def _pool_size(self) -> int:
        per_batch = self.batch_size
        if not per_batch:
            per_batch = max(
                1, self.max_tokens // max(1, int(self.lengths.sum()) // max(1, len(self.lengths)))
            )
        return BATCHES_PER_POOL * per_batch


def ordered_batches(
    lengths: Sequence[int] | np.ndarray, *, batch_size: int = 0, max_tokens: int = 0
) -> list[np.ndarray]:
    """Return batches for evaluation: all documents once, shortest first, the same on every call."""
    if batch_size < 0 or max_tokens < 0 or batch_size + max_tokens == 0:
        raise ValueError(f"batch_size or max_tokens must be positive, got {batch_size} and {max_tokens}")
    lengths = np.asarray(lengths, dtype=np.int64)
    return _cut(np.argsort(lengths, kind="stable"), lengths, batch_size, max_tokens)


def _cut(order: np.ndarray, lengths: np.ndarray, batch_size: int, max_tokens: int) -> list[np.ndarray]:
    """Cut indices sorted by rising length into batches within both caps."""
    batches = []
    start = 0
    while start < len(order):
        stop = min(start + batch_size, len(order)) if batch_size else len(order)
        if max_tokens:
            # with rising lengths the padded size of order[start : start + n] is n times its last length
            sizes = np.arange(1, stop - start + 1) * lengths[order[start:stop]]
            stop = start + max(1, int(np.searchsorted(sizes, max_tokens, side="right")))
        batches.append(order[start:stop])
        start = stop
    return batches


def collate(ids_list: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pad B id arrays on the right with 0: `(ids (B, T) int64, lengths (B,) int64)`."""
    lengths = np.array([len(ids) for ids in ids_list], dtype=np.int64)
    padded = np.zeros((len(ids_list), int(lengths.max(initial=0))), dtype=np.int64)
    for row, ids in zip(padded, ids_list, strict=True):
        row[: len(ids)] = ids
    return padded, lengths


@dataclass
class EncodedDataset:
    """Documents as ids: `ids` int32 in a row, `offsets` (N + 1,) int64, `labels` (N,) int64."""

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, tokens of each document, at least 1."""
        return np.diff(self.offsets)

    def document(self, index: int) -> np.ndarray:
        """Return the ids of one document, int32 (T,)."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `(ids (B, T), lengths (B,), labels (B,))`, all int64, padded on the right with 0."""
        ids, lengths = collate([self.document(int(index)) for index in indices])
        return ids, lengths, self.labels[np.asarray(indices, dtype=np.int64)]


def encode_dataset(dataset: TextDataset, vocabulary: Vocabulary, max_tokens: int = 0) -> EncodedDataset:
    """Turn the texts into ids, keeping the first `max_tokens` tokens of each (0 = all)."""
    ids, offsets = vocabulary.encode_batch(dataset.texts, max_tokens)
    return EncodedDataset(np.asarray(ids, np.int32), np.asarray(offsets, np.int64), dataset.labels)
