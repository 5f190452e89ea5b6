"""What every reader returns: texts with integer labels, and the three splits of a set."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class TextDataset:
    """Texts with one label each.

    `labels` is (N,) int64, positions in `label_names`. `subset` is True when a part of the published training
    set is missing; whatever prints a figure from such a set says so. `source` names where it came from.
    """

    texts: list[str]
    labels: np.ndarray
    label_names: list[str]
    name: str = ""
    subset: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        self.labels = np.asarray(self.labels, dtype=np.int64)
        if len(self.texts) != len(self.labels):
            raise ValueError(f"{len(self.texts)} texts but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray, *, source: str | None = None) -> "TextDataset":
        """Return the examples at `indices`, in that order."""
        return TextDataset(
            texts=[self.texts[index] for index in indices],
            labels=self.labels[np.asarray(indices, dtype=np.int64)],
            label_names=self.label_names,
            name=self.name,
            subset=self.subset,
            source=self.source if source is None else source,
        )

    def class_counts(self) -> dict[str, int]:
        """Return how many examples each label has, in the order of `label_names`."""
        counts = np.bincount(self.labels, minlength=len(self.label_names))
        return {name: int(count) for name, count in zip(self.label_names, counts, strict=True)}


@dataclass
class Splits:
    """The parts of a set. `test` is None when the set has none; `valid` is never drawn from it."""

    train: TextDataset
    valid: TextDataset
    test: TextDataset | None
    label_names: list[str]
    name: str
    subset: bool = False
    notes: list[str] = field(default_factory=list)
