"""Logistic regression on words and pairs of adjacent words: the linear part of a text classifier, fitted by itself.

Averaged with a recurrent network it corrects some of that network's mistakes, which pair scores trained together with
the network do not. D documents, V words, K pairs, C outputs (1 for two classes), F features.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy import sparse

from karui.data.batching import EncodedDataset
from karui.errors import UserError
from karui.files import atomic_write
from karui.tasks.linear_baseline import fit_l2
from karui.tasks.ngrams import ngram_keys

INVERSE_PENALTY = 10.0  # scikit-learn's C
LARGE_SET = 10_000  # documents from which a word or pair must occur in more of them
MIN_DOCUMENTS, MIN_DOCUMENTS_LARGE = 2, 5
MAX_PAIRS = 200_000  # that are fitted: the most frequent


@dataclass(frozen=True)
class LinearScores:
    """words (V + 1, C), pairs (K, C) and bias (C,), float32; keys (K,) int64, rising: first * (V + 1) + second.

    origin: `fingerprint` of what it was fitted on, (32,) uint8.
    """

    words: np.ndarray
    keys: np.ndarray
    pairs: np.ndarray
    bias: np.ndarray
    origin: np.ndarray

    def save(self, path: Path) -> None:
        """Write the arrays as .npz."""
        buffer = io.BytesIO()
        np.savez(buffer, **vars(self))
        atomic_write(path, buffer.getvalue())


def load_scores(path: Path, *, n_words: int, n_classes: int) -> LinearScores:
    """Read what `LinearScores.save` wrote.

    Raises:
        UserError: the file is missing, damaged, or of another model.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("words", "keys", "pairs", "bias")}
            origin = (
                file["origin"] if "origin" in file else np.zeros(32, np.uint8)
            )  # not said: fitted again on resume
            found = LinearScores(**arrays, origin=origin)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(
            f"{path}: no readable linear model ({error}); delete it and resume the run"
        ) from error
    outputs, K = 1 if n_classes == 2 else n_classes, found.keys.size
    wanted = {
        "words": (n_words + 1, outputs),
        "keys": (K,),
        "pairs": (K, outputs),
        "bias": (outputs,),
        "origin": (32,),
    }
    kinds = {"keys": np.int64, "origin": np.uint8}
    fits = all(
        array.shape == wanted[name] and array.dtype == kinds.get(name, np.float32)
        for name, array in vars(found).items()
    )
    if not fits or (np.diff(found.keys) <= 0).any():
        raise UserError(f"{path}: is no linear model of {n_words} words; delete it and resume the run")
    return found


def fit_scores(documents: EncodedDataset, *, n_words: int, n_classes: int, weights: int) -> LinearScores:
    """Fit on the words and pairs of encoded documents and keep the `weights` largest weights.

    Multinomial (two classes: binary) logistic regression on counts / sqrt(length), with an L2 penalty. Words and
    pairs that few documents have are left out, and so are pairs around an unknown word.
    """
    counts, features = _counts(documents, n_words)
    outputs = 1 if n_classes == 2 else n_classes
    found, bias = np.zeros((len(features), outputs), np.float32), np.zeros(outputs, np.float32)
    if len(features) and len(np.unique(documents.labels)) > 1:
        fitted = fit_l2(counts, documents.labels, n_classes, INVERSE_PENALTY)
        found, bias = (array.astype(np.float32) for array in fitted)
    kept = np.argsort(-np.abs(found), axis=None, kind="stable")[:weights]
    pruned = np.zeros_like(found)
    pruned.flat[kept] = found.flat[kept]
    words = np.zeros((n_words + 1, len(bias)), np.float32)
    is_word = features <= n_words
    words[features[is_word]] = pruned[is_word]
    used = ~is_word & pruned.any(axis=1)
    return LinearScores(words, features[used], pruned[used], bias, fingerprint(documents, weights))


def fingerprint(documents: EncodedDataset, weights: int) -> np.ndarray:
    """(32,) uint8 that tell documents, labels and `weights` from others: SHA-256."""
    digest = hashlib.sha256(str(weights).encode())
    for array in (documents.ids, documents.offsets, documents.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _counts(documents: EncodedDataset, n_words: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Scaled counts (D, F) and the key of each feature (F,), rising: the id of a word, or that of a pair."""
    keys, owners, times = ngram_keys(documents.ids, documents.offsets, n_words)
    features, columns, in_documents = np.unique(keys, return_inverse=True, return_counts=True)
    least = MIN_DOCUMENTS_LARGE if len(documents) >= LARGE_SET else MIN_DOCUMENTS
    kept = in_documents >= least
    pairs = np.flatnonzero(kept & (features > n_words))
    if len(pairs) > MAX_PAIRS:
        kept[pairs[np.argsort(-in_documents[pairs], kind="stable")[MAX_PAIRS:]]] = False
    values = times / np.sqrt(documents.lengths[owners])
    shape = (len(documents), len(features))
    return sparse.csr_matrix((values, (owners, columns)), shape=shape)[:, kept], features[kept]
