"""What the sequence tasks share: a model, metrics on held-out batches, nothing random outside of them."""

from collections.abc import Iterator
from typing import Any

import torch

from karui.tasks.sparse_task import SparseTask


class SequenceTask(SparseTask):
    """Base of the sequence tasks, each a `karui.train.Task`.

    A subclass sets `model` and `num_examples`, cuts an epoch into batches, and gives the sums its metrics are made of.
    """

    subset = False
    notes: tuple[str, ...] = ()

    def held_out(self, split: str) -> Iterator[Any]:
        """Yield the batches of "valid" or "test"; only this method opens the test part."""
        raise NotImplementedError

    def sums(self, batch: Any) -> dict[str, tuple[float, float]]:
        """Return metric -> (sum over the batch, what it is divided by), both added up over all batches."""
        raise NotImplementedError

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        """Return the metrics of "valid" or "test"; the mode of the model is the caller's."""
        device = next(self.model.parameters()).device
        totals: dict[str, list[float]] = {}
        for batch in self.held_out(split):
            for name, (value, count) in self.sums(tuple(part.to(device) for part in batch)).items():
                total = totals.setdefault(name, [0.0, 0.0])
                total[0] += value
                total[1] += count
        return {name: value / count for name, (value, count) in totals.items()}
