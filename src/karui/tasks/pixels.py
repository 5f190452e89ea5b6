"""Images read pixel by pixel (Le, Jaitly, Hinton 2015): one pixel a step, the class after the last.

N images, B of a batch, S side, T = S * S steps.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from karui.data.mnist import CLASSES, load_mnist, pooled
from karui.tasks.sequence_model import SequenceModel
from karui.tasks.sequence_settings import LayerSettings, PixelData
from karui.tasks.sequence_task import SequenceTask
from karui.tasks.settings import DENSE, SparseSettings
from karui.tasks.sparse_task import make_sparse

PERMUTATION_SEED = 20150403
"""Seed of the one order in which permuted pixels are read."""

EVALUATION_IMAGES = 500


class PixelTask(SequenceTask):
    """A `karui.train.Task`: 28 by 28 pixels in raster order, or 14 by 14 means; values in [0, 1]."""

    def __init__(
        self, data: PixelData, model: LayerSettings, sparse: SparseSettings = DENSE, *, seed: int
    ) -> None:
        self.data, self.sparse, self.seed = data, sparse, seed
        torch.manual_seed(seed)
        self.model = make_sparse(SequenceModel(1, CLASSES, model), sparse)
        images, labels = load_mnist("train")
        order = np.random.default_rng(data.split_seed).permutation(len(labels))
        chosen = order[data.valid_examples :][: data.limit or None]
        self.train_set = self._sequences(images[chosen], labels[chosen])
        self.valid_set = self._sequences(
            images[order[: data.valid_examples]], labels[order[: data.valid_examples]]
        )
        self.num_examples = len(chosen)
        counts = f"{self.num_examples:,} training and {data.valid_examples:,} validation images"
        self.notes = (f"{counts} of the published {len(labels):,}, {self.train_set[0].shape[1]} steps each",)
        self._order: tuple[int, Tensor] | None = None

    def steps_per_epoch(self, epoch: int) -> int:  # noqa: ARG002
        """Number of batches; the last may be smaller."""
        return -(-self.num_examples // self.data.batch_size)

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """(pixels (B, T), labels (B,)): a pure function of the seed, the epoch and the step."""
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_examples)
            self._order = (epoch, torch.from_numpy(order))
        rows = self._order[1][step * self.data.batch_size : (step + 1) * self.data.batch_size]
        return self.train_set[0][rows], self.train_set[1][rows]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(self._logits(batch[0]), batch[1])

    def held_out(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Validation images, or the 10,000 published test images."""
        pixels, labels = self.valid_set
        if split != "valid":
            images, numbers = load_mnist("test")
            pixels, labels = self._sequences(images, numbers)
        for start in range(0, len(labels), EVALUATION_IMAGES):
            rows = slice(start, start + EVALUATION_IMAGES)
            yield pixels[rows], labels[rows]

    def sums(self, batch: tuple[Tensor, Tensor]) -> dict[str, tuple[float, float]]:
        """Correct answers and nats, over images."""
        pixels, labels = batch
        logits = self._logits(pixels).float()
        nll = float(F.cross_entropy(logits, labels, reduction="sum"))
        return {
            "accuracy": (float((logits.argmax(1) == labels).sum()), len(labels)),
            "nll": (nll, len(labels)),
        }

    def _logits(self, pixels: Tensor) -> Tensor:
        return self.model(pixels.t().unsqueeze(2))  # from (B, T) to (T, B, 1)

    def _sequences(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        smaller = pooled(images) if self.data.side == 14 else images.astype(np.float32)
        pixels = smaller.reshape(len(images), -1) / np.float32(255)
        if self.data.permuted:
            pixels = pixels[:, permutation(pixels.shape[1])]
        return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels)


def permutation(steps: int) -> np.ndarray:
    """Return the fixed order in which permuted pixels are read."""
    return np.random.default_rng(PERMUTATION_SEED).permutation(steps)
