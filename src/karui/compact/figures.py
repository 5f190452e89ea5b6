"""Figures of a classifier from its logits; numpy alone, so that an artifact is judged without torch.

N documents, C outputs (1 for two classes), K classes.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassFigures:
    """One class: how many documents have it, and how well they are found."""

    label: str
    documents: int
    recall: float
    precision: float


def spread(count: int, most: int) -> list[int]:
    """At most `most` positions of `count`, evenly spread, the first and the last among them."""
    return sorted({int(position) for position in np.linspace(0, count - 1, min(most, count))})


def predictions(logits: np.ndarray) -> np.ndarray:
    """(N, C) to class positions (N,): one output says the second class where it is positive."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(np.int64)
    return logits.argmax(axis=1)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(N, C) to (N, K) in fp64: sigmoid of one output, softmax of more."""
    logits = logits.astype(np.float64)
    if logits.shape[1] == 1:
        second = 1.0 / (1.0 + np.exp(-np.clip(logits, -700.0, 700.0)))
        return np.concatenate([1.0 - second, second], axis=1)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Correct / all; NaN without documents."""
    return float((predictions(logits) == labels).mean()) if len(labels) else float("nan")


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats a document; NaN without documents."""
    if not len(labels):
        return float("nan")
    logits = logits.astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    top = logits.max(axis=1, keepdims=True)
    log_z = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return float((log_z - logits[np.arange(len(labels)), labels]).mean())


def confusion(logits: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(K, K) counts: row = true class, column = answer."""
    table = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(table, (labels, predictions(logits)), 1)
    return table


def by_class(table: np.ndarray, labels: list[str]) -> list[ClassFigures]:
    """Recall and precision of each class of a confusion table; a class that never occurs has NaN."""
    right, true, answered = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    return [
        ClassFigures(label, int(true[k]), _share(right[k], true[k]), _share(right[k], answered[k]))
        for k, label in enumerate(labels)
    ]


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")
