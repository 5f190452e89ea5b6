"""A run that is killed: a task whose batch of a given step never comes."""

from pathlib import Path
from typing import Any

import pytest

from karui.train import TrainSettings, fit


class StoppedError(Exception):
    """Stands for a killed process."""


def fit_until(at: tuple[int, int], task: Any, settings: TrainSettings, folder: Path, **options: Any) -> None:
    """`karui.train.fit`, stopped where it asks for the batch of (epoch, step)."""
    batch_of = task.batch

    def batch(epoch: int, step: int) -> Any:
        if (epoch, step) == at:
            raise StoppedError
        return batch_of(epoch, step)

    task.batch = batch
    with pytest.raises(StoppedError):
        fit(task, settings, folder, **options)
