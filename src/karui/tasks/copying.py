"""The copy problem as a training task (Arjovsky, Shah, Bengio 2016).

B batch, T = delay + 20 time steps.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from karui.data.synthetic import COPY_LENGTH, COPY_SYMBOLS, COPY_VOCABULARY, copy_batch
from karui.tasks.sequence_model import SequenceModel
from karui.tasks.sequence_settings import CopyData, LayerSettings
from karui.tasks.sequence_task import SequenceTask
from karui.tasks.settings import DENSE, SparseSettings
from karui.tasks.sparse_task import make_sparse

_VALID, _TEST, _TRAIN = (
    1,
    2,
    3,
)  # streams of random numbers; those of valid and test do not depend on the run's seed


class CopyTask(SequenceTask):
    """A `karui.train.Task`: cross-entropy over all steps; accuracy over the ten symbols to be remembered."""

    def __init__(
        self, data: CopyData, model: LayerSettings, sparse: SparseSettings = DENSE, *, seed: int
    ) -> None:
        self.data, self.sparse, self.seed = data, sparse, seed
        torch.manual_seed(seed)
        self.model = make_sparse(
            SequenceModel(COPY_VOCABULARY, COPY_SYMBOLS + 1, model, every_step=True), sparse
        )
        self.num_examples = data.examples

    def steps_per_epoch(self, epoch: int) -> int:  # noqa: ARG002
        """Number of batches; the last may be smaller."""
        return -(-self.data.examples // self.data.batch_size)

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """(inputs (B, T), targets (B, T)): a pure function of the seed, the epoch and the step."""
        size = min(self.data.batch_size, self.data.examples - step * self.data.batch_size)
        return self._draw([_TRAIN, self.seed, epoch, step], size)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy in nats a step; 10 ln 8 / (delay + 20) without memory."""
        return F.cross_entropy(self._logits(batch[0]).flatten(0, 1), batch[1].t().flatten())

    def held_out(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same sequences at every call."""
        yield self._draw([_VALID if split == "valid" else _TEST], self.data.heldout_examples)

    def sums(self, batch: tuple[Tensor, Tensor]) -> dict[str, tuple[float, float]]:
        """Correct symbols of the ten, and nats over all steps."""
        logits, targets = self._logits(batch[0]).float(), batch[1].t()  # (T, B, 9), (T, B)
        nll = float(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
        correct = logits[-COPY_LENGTH:].argmax(2) == targets[-COPY_LENGTH:]
        return {"accuracy": (float(correct.sum()), correct.numel()), "nll": (nll, targets.numel())}

    def _logits(self, inputs: Tensor) -> Tensor:
        return self.model(F.one_hot(inputs.t(), COPY_VOCABULARY).float())

    def _draw(self, seed: list[int], size: int) -> tuple[Tensor, Tensor]:
        inputs, targets = copy_batch(np.random.default_rng(seed), size, self.data.delay)
        return torch.from_numpy(inputs), torch.from_numpy(targets)
