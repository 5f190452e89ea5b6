"""The adding problem as a training task (Hochreiter and Schmidhuber 1997)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from karui.data.synthetic import adding_batch
from karui.tasks.sequence_model import SequenceModel
from karui.tasks.sequence_settings import AddingData, LayerSettings
from karui.tasks.sequence_task import SequenceTask
from karui.tasks.settings import DENSE, SparseSettings
from karui.tasks.sparse_task import make_sparse

_VALID, _TEST, _TRAIN = (
    1,
    2,
    3,
)  # streams of random numbers; those of valid and test do not depend on the run's seed


class AddingTask(SequenceTask):
    """A `karui.train.Task`: the answer of the last step is the sum; mean squared error, 1/6 for a constant answer."""

    def __init__(
        self, data: AddingData, model: LayerSettings, sparse: SparseSettings = DENSE, *, seed: int
    ) -> None:
        self.data, self.sparse, self.seed = data, sparse, seed
        torch.manual_seed(seed)
        self.model = make_sparse(SequenceModel(2, 1, model), sparse)
        self.num_examples = data.examples

    def steps_per_epoch(self, epoch: int) -> int:  # noqa: ARG002
        """Number of batches; the last may be smaller."""
        return -(-self.data.examples // self.data.batch_size)

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """(inputs (B, T, 2), sums (B,)): a pure function of the seed, the epoch and the step."""
        size = min(self.data.batch_size, self.data.examples - step * self.data.batch_size)
        return self._draw([_TRAIN, self.seed, epoch, step], size)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(self._answers(batch[0]), batch[1])

    def held_out(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same sequences at every call."""
        yield self._draw([_VALID if split == "valid" else _TEST], self.data.heldout_examples)

    def sums(self, batch: tuple[Tensor, Tensor]) -> dict[str, tuple[float, float]]:
        """Squared errors over sequences."""
        error = F.mse_loss(self._answers(batch[0]).float(), batch[1], reduction="sum")
        return {"mse": (float(error), len(batch[1]))}

    def _answers(self, inputs: Tensor) -> Tensor:
        return self.model(inputs.transpose(0, 1)).squeeze(1)

    def _draw(self, seed: list[int], size: int) -> tuple[Tensor, Tensor]:
        inputs, sums = adding_batch(np.random.default_rng(seed), size, self.data.steps)
        return torch.from_numpy(inputs), torch.from_numpy(sums)
