"""Whole images and their classes: MNIST, CIFAR-10 and CIFAR-100, with the networks of the L0 paper.

N images, B of a batch, C channels, S side.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.data.catalogue import SETS
from karui.data.catalogue_images import SUBSET
from karui.data.cifar import load_cifar
from karui.data.mnist import load_mnist
from karui.errors import UserError
from karui.sparse.control import Control
from karui.sparse.flops import FlopCount
from karui.tasks.image_models import build_network
from karui.tasks.image_settings import ImageData, ImageModel, ImageSparse
from karui.tasks.image_sparsity import LayerControls, make_layers_sparse
from karui.tasks.sequence_task import SequenceTask

EVALUATION_IMAGES = 500
PADDING = 4
"""Black pixels around an image that is cropped."""

# mean and standard deviation of each channel, of values from 0 to 255, as in the code of the L0 paper
_SCALES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.0,), (255.0,)),
    "cifar10": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar10_subset": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": ((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
}


class ImageTask(SequenceTask):
    """A `karui.train.Task`: images with one label each; the whole set lies in memory as bytes.

    The network is sparse as the settings say; `hold` brings it to their target.
    """

    control: Control | LayerControls | None = None

    def __init__(
        self, data: ImageData, model: ImageModel, sparse: ImageSparse | None = None, *, seed: int
    ) -> None:
        self.data, self.seed = data, seed
        self.sparse = sparse or ImageSparse()
        images, labels = _load(data.name, "train")
        if data.valid_examples >= len(labels):
            raise UserError(
                f"data.valid_examples must be below {len(labels)}, the training images of {data.name}, "
                f"got {data.valid_examples}"
            )
        kept = len(labels) - data.valid_examples
        self.valid_set = (images[kept:], labels[kept:])
        kept = min(kept, data.limit or kept)
        self.num_examples = kept
        self.train_labels = labels[:kept]
        self.train_images = F.pad(images[:kept], (PADDING,) * 4) if data.augment else images[:kept]
        self.subset = data.name == SUBSET
        self.example = self.inputs(images[:1])
        """One image as the network reads it: (1, C, S, S)."""
        self.notes = (self._note(len(labels)),)
        torch.manual_seed(seed)
        network = dense_network(data, model, self.example)
        self.flops = FlopCount(network, self.example)
        self.model = make_layers_sparse(network, self.sparse)
        self._order: tuple[int, Tensor] | None = None

    def hold(self, measure: Callable[[nn.Module], float] | None = None) -> None:
        """Hold the model, or each of its layers, to the target of the settings; see `SparseTask.hold`."""
        if self.sparse.layer_densities:
            self.control = LayerControls(self.model, self.sparse, num_examples=self.num_examples)
        else:
            super().hold(measure)

    def penalty(self) -> Tensor | None:
        """What the method adds to the loss (nats, summed); None without one, and where a target decides instead."""
        return None if self.sparse.has_target else super().penalty()

    def status(self) -> dict[str, float]:
        """Densities of a sparse network and its FLOPs over those of the dense one."""
        found = super().status()
        return {**found, **self.flops.shares(self.model)} if found else found

    def steps_per_epoch(self, epoch: int) -> int:  # noqa: ARG002
        """Number of batches; the last may be smaller."""
        return -(-self.num_examples // self.data.batch_size)

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """(images (B, C, S, S) uint8, labels (B,)): a pure function of the seed, the epoch and the step."""
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_examples)
            self._order = (epoch, torch.from_numpy(order))
        rows = self._order[1][step * self.data.batch_size : (step + 1) * self.data.batch_size]
        labels = self.train_labels[rows]
        if not self.data.augment:
            return self.train_images[rows], labels
        return crops(self.train_images, rows, np.random.default_rng([self.seed, epoch, step])), labels

    def inputs(self, images: Tensor) -> Tensor:
        """Bytes (B, C, S, S) as the network reads them: MNIST in [0, 1], CIFAR of mean 0 and variance 1 a channel."""
        mean, deviation = (
            torch.tensor(values, device=images.device).view(-1, 1, 1) for values in _SCALES[self.data.name]
        )
        return ((images.float() - mean) / deviation).contiguous(memory_format=torch.channels_last)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(self.model(self.inputs(batch[0])), batch[1])

    def held_out(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Validation images, or the published test images."""
        images, labels = self.valid_set if split == "valid" else _load(self.data.name, "test")
        for start in range(0, len(labels), EVALUATION_IMAGES):
            rows = slice(start, start + EVALUATION_IMAGES)
            yield images[rows], labels[rows]

    def sums(self, batch: tuple[Tensor, Tensor]) -> dict[str, tuple[float, float]]:
        """Correct answers and nats, over images."""
        images, labels = batch
        logits = self.model(self.inputs(images)).float()
        nll = float(F.cross_entropy(logits, labels, reduction="sum"))
        return {
            "accuracy": (float((logits.argmax(1) == labels).sum()), len(labels)),
            "nll": (nll, len(labels)),
        }

    def _note(self, published: int) -> str:
        data = self.data
        counts = f"{self.num_examples:,} training and {data.valid_examples:,} validation images"
        if not self.subset:
            return f"{counts} of the published {published:,}"
        return (
            f"{counts}: train is a SUBSET, {published:,} of the published {SETS['cifar10'].counts['train']:,}"
        )


def dense_network(data: ImageData, model: ImageModel, example: Tensor) -> nn.Module:
    """An untrained network for images like the example (1, C, S, S)."""
    classes = len(SETS[data.name].label_names)
    return build_network(model, channels=example.shape[1], side=example.shape[2], classes=classes)


def crops(padded: Tensor, rows: Tensor, random: np.random.Generator) -> Tensor:
    """Return images (B, C, S, S) cut at random out of padded (N, C, S + 2 P, S + 2 P), half of them mirrored.

    rows: (B,) of the images to take.
    """
    C, width = padded.shape[1], padded.shape[2]
    S, B = width - 2 * PADDING, len(rows)
    top, left = torch.from_numpy(random.integers(0, 2 * PADDING + 1, (2, B)))
    is_mirrored = torch.from_numpy(random.integers(0, 2, B).astype(bool))
    along = torch.arange(S)
    columns = left[:, None] + torch.where(is_mirrored[:, None], along.flip(0), along)  # (B, S)
    lines = top[:, None] + along
    index = rows[:, None] * C + torch.arange(C)  # (B, C): which plane
    index = (index[:, :, None] * width + lines[:, None, :])[..., None] * width + columns[:, None, None, :]
    return padded.reshape(-1).take(index)


def _load(name: str, split: str) -> tuple[Tensor, Tensor]:
    """Return images (N, C, S, S) uint8 and labels (N,)."""
    part = "train" if split == "train" else "test"
    images, labels = load_mnist(part) if name == "mnist" else load_cifar(name, part)
    if images.ndim == 3:
        images = images[:, None]
    return torch.from_numpy(np.array(images)), torch.from_numpy(labels)
