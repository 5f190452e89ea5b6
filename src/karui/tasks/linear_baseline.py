"""L1 logistic regression over uni- and bigrams, from strong to weak penalty: what a careful user ships instead.

The L1 penalty picks the n-grams; weights are those of the same fit or of an L2 refit on the picked n-grams, rounded to
a few int8 levels. Every combination is a candidate file, judged on the validation split only.
Shapes: D documents, F features, C' scores (1 for two labels).
"""

import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from karui.tasks.linear_file import LinearModel, best_label, code_ngrams, decode, encode, quantize
from karui.tasks.ngrams import NgramIndex, scaled

LENGTH_POWERS = (0.25, 0.0)
SHORT = 100  # words of a typical document below which its length hardly matters: one power is enough
REFIT_C = (0.1, 0.5)
REFIT_NGRAMS = 4000  # above, L2 refits were never the best file of a budget, and cost the most
LEVELS = (127, 31, 11)
PATH_START = 3.0  # times the smallest C that keeps any feature
PATH_FACTOR = 1.6
PATH_PATIENCE = 3  # steps without a better file before the path ends
LARGE_SET = 4000  # one more document is asked of a feature for every so many documents
_TOLERANCE = 1e-2


@dataclass
class Candidate:
    """One file of the path and how it did on the validation split."""

    data: bytes
    valid_accuracy: float
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Features:
    """Scaled features of the train and validation splits, (D, F) each, and their labels (D,)."""

    index: NgramIndex
    train: sparse.csr_matrix
    valid: sparse.csr_matrix
    train_labels: np.ndarray
    valid_labels: np.ndarray
    length_power: float
    typical: float


class LinearPath:
    """Fits the path once; `candidates` yields its files, `accuracy` judges any of them on other texts."""

    def __init__(self, train: Any, valid: Any, *, seed: int) -> None:
        """Take two splits with `texts`, `labels` (D,) and `label_names`."""
        self.labels = list(train.label_names)
        self.seed = seed
        self._train, self._valid = train, valid
        self.index = NgramIndex(train.texts, min_documents=max(2, len(train.texts) // LARGE_SET))
        self._counts = self.index.counts(train.texts), self.index.counts(valid.texts)

    def candidates(self, *, max_bytes: int) -> Iterator[Candidate]:
        """Yield every file of at most `max_bytes`, for each way to scale by length."""
        if not len(self.index):
            return
        is_short = np.median(self._counts[0][1]) < SHORT
        for length_power in LENGTH_POWERS[:1] if is_short else LENGTH_POWERS:
            features = self._features(length_power)
            strength = PATH_START * smallest_c(features.train, features.train_labels, len(self.labels))
            best, stale = 0.0, 0
            while stale < PATH_PATIENCE:
                fitting = [c for c in self._at(features, strength) if len(c.data) <= max_bytes]
                yield from fitting
                accuracy = max((c.valid_accuracy for c in fitting), default=0.0)
                best, stale = max(best, accuracy), 0 if accuracy > best else stale + 1
                strength *= PATH_FACTOR

    def accuracy(
        self, data: bytes, counts: sparse.csr_matrix, lengths: np.ndarray, labels: np.ndarray
    ) -> float:
        """Return the accuracy of the decoded file on counted documents (`self.index.counts(texts)`)."""
        model = decode(data)
        columns = self.index.columns(model.ngrams)
        weights = model.weights.astype(np.float64) * model.scale
        logits = scaled(counts[:, columns], lengths, model.length_power) @ weights + model.bias
        return float((best_label(logits) == labels).mean())

    def _features(self, length_power: float) -> Features:
        (train, train_lengths), (valid, valid_lengths) = self._counts
        typical = (
            float(max(np.median(train_lengths), 1.0)) ** length_power
        )  # keeps values near 1, so that C means the same
        return Features(
            self.index,
            scaled(train, train_lengths, length_power) * typical,
            scaled(valid, valid_lengths, length_power) * typical,
            np.asarray(self._train.labels),
            np.asarray(self._valid.labels),
            length_power,
            typical,
        )

    def _at(self, features: Features, strength: float) -> Iterator[Candidate]:
        """Yield the files of one L1 fit: kept or refitted weights, in several precisions."""
        weights, bias = fit_l1(features.train, features.train_labels, len(self.labels), strength, self.seed)
        picked = np.flatnonzero(weights.any(1))
        if not len(picked):
            return
        names = self.index.names(picked)
        order = sorted(range(len(names)), key=names.__getitem__)
        picked, names = picked[order], [names[k] for k in order]
        coded = code_ngrams(names)
        train, valid = features.train[:, picked], features.valid[:, picked]
        fits: list[tuple[float | None, np.ndarray, np.ndarray]] = [(None, weights[picked], bias)]
        if len(names) <= REFIT_NGRAMS:
            fits += [(c, *fit_l2(train, features.train_labels, len(self.labels), c)) for c in REFIT_C]
        for refit, w, b in fits:
            for levels in LEVELS:
                rounded, scale = quantize(w, levels)
                logits = valid @ (rounded * scale) + b
                model = LinearModel(
                    names,
                    rounded,
                    scale * features.typical,
                    b.astype(np.float32),
                    self.labels,
                    features.length_power,
                )
                yield Candidate(
                    encode(model, coded_ngrams=coded),
                    float((best_label(logits) == features.valid_labels).mean()),
                    {
                        "ngrams": len(names),
                        "l1_c": float(f"{strength:.4g}"),
                        "refit_c": refit,
                        "levels": levels,
                        "length_power": features.length_power,
                        "min_documents": self.index.min_documents,
                    },
                )


def smallest_c(features: sparse.csr_matrix, labels: np.ndarray, n_labels: int) -> float:
    """Return the smallest C at which L1 logistic regression keeps a feature for some label."""
    signs = np.stack([np.where(labels == k, 1.0, -1.0) for k in range(n_labels)])
    return 2.0 / max(float(np.abs(signs @ features).max()), 1e-12)


def fit_l1(
    features: sparse.csr_matrix, labels: np.ndarray, n_labels: int, strength: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (F, C') and biases (C',) of one fit a label (one fit alone for two labels)."""
    targets = [labels == 1] if n_labels <= 2 else [labels == k for k in range(n_labels)]
    weights, biases = [], []
    for target in targets:
        if target.all() or not target.any():  # a label the train split lacks
            weights.append(np.zeros(features.shape[1]))  # pyright: ignore[reportOptionalSubscript]
            biases.append(10.0 if target.all() else -10.0)
            continue
        fit = _logistic(
            l1=True, solver="liblinear", C=strength, tol=_TOLERANCE, max_iter=30, random_state=seed
        )
        _fit_quietly(fit, features, target)
        weights.append(fit.coef_[0])
        biases.append(fit.intercept_[0])
    return np.stack(weights, 1), np.array(biases)


def fit_l2(
    features: sparse.csr_matrix, labels: np.ndarray, n_labels: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (F, C') and biases (C',) of the smooth refit; a label the train split lacks is never answered."""
    fit = _logistic(l1=False, solver="lbfgs", C=strength, tol=1e-3, max_iter=60)
    _fit_quietly(fit, features, labels)
    weights, bias = fit.coef_.T, fit.intercept_
    if n_labels <= 2:
        return weights, bias
    if weights.shape[1] == 1:  # only two of many labels occur
        weights, bias = np.hstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    all_weights, all_bias = np.zeros((len(weights), n_labels)), np.full(n_labels, bias.min() - 10.0)
    all_weights[:, fit.classes_], all_bias[fit.classes_] = weights, bias
    return all_weights, all_bias


def _logistic(*, l1: bool, **settings: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    # scikit-learn 1.8 renamed penalty="l1" to l1_ratio=1
    renamed = inspect.signature(LogisticRegression).parameters["penalty"].default == "deprecated"
    penalty = {"l1_ratio": float(l1)} if renamed else {"penalty": "l1" if l1 else "l2"}
    return LogisticRegression(**penalty, **settings)


def _fit_quietly(fit: Any, features: sparse.csr_matrix, target: np.ndarray) -> None:
    """Fit without the warning about an early stop: the validation split judges the result, not the optimiser."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit.fit(features, target)


def pick(candidates: Sequence[Candidate], max_bytes: Sequence[int]) -> list[Candidate]:
    """Return, for each budget in bytes, the file that is best on the validation split; each file once."""
    chosen: list[Candidate] = []
    for budget in sorted(max_bytes):
        fitting = [c for c in candidates if len(c.data) <= budget]
        if fitting:
            best = max(fitting, key=lambda c: (c.valid_accuracy, -len(c.data)))
            if best not in chosen:
                chosen.append(best)
    return chosen
