"""Polyphonic music: which of 88 notes sound next (Boulanger-Lewandowski, Bengio, Vincent 2012).

T time steps, B sequences of a batch. The loss of a step is the sum of 88 binary cross-entropies in nats; the metric is
its mean over all predicted steps. The first step of a sequence has no past: it is read, not predicted, and not counted,
as in the published figures of Bai, Kolter, Koltun 2018.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from karui.data.batching import LengthBuckets, ordered_batches
from karui.data.poly_music import NOTES, load_music
from karui.errors import UserError
from karui.tasks.sequence_model import SequenceModel
from karui.tasks.sequence_settings import LayerSettings, MusicData
from karui.tasks.sequence_task import SequenceTask
from karui.tasks.settings import DENSE, SparseSettings
from karui.tasks.sparse_task import make_sparse

EVALUATION_STEPS = 16_384
"""Padded time steps of an evaluation batch."""


class MusicTask(SequenceTask):
    """A `karui.train.Task`: next notes from the past, whole sequences or pieces of them."""

    def __init__(
        self, data: MusicData, model: LayerSettings, sparse: SparseSettings = DENSE, *, seed: int
    ) -> None:
        self.data, self.sparse, self.seed = data, sparse, seed
        torch.manual_seed(seed)
        self.model = make_sparse(SequenceModel(NOTES, NOTES, model, every_step=True), sparse)
        sequences = load_music(data.name, "train")
        if data.limit:
            order = np.random.default_rng(0).permutation(len(sequences))
            sequences = [sequences[index] for index in order[: data.limit]]
        self.pieces = [piece for sequence in sequences for piece in cut(sequence, data.piece_steps)]
        if not self.pieces:
            raise UserError(f"{data.name}: no training sequence is left; raise data.limit")
        self.num_examples = sum(len(piece) - 1 for piece in self.pieces)
        lengths = [len(piece) for piece in self.pieces]
        self.buckets = LengthBuckets(lengths, batch_size=data.batch_size, seed=seed)
        counts = f"{len(sequences):,} training sequences, {self.num_examples:,} predicted steps"
        self.notes = (f"{counts}; the first step of a sequence is read, not predicted",)

    def steps_per_epoch(self, epoch: int) -> int:
        """Number of batches of an epoch."""
        return len(self.buckets.batches(epoch))

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """(notes (T, B, 88) uint8, lengths (B,)): a pure function of the seed, the epoch and the step."""
        return collate([self.pieces[index] for index in self.buckets.batches(epoch)[step]])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean over the predicted steps, in nats."""
        total, count = self._nll(*batch)
        return total / count

    def held_out(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole sequences of "valid" or "test", shortest first."""
        sequences = load_music(self.data.name, "valid" if split == "valid" else "test")
        lengths = [len(sequence) for sequence in sequences]
        for indices in ordered_batches(lengths, batch_size=64, max_tokens=EVALUATION_STEPS):
            yield collate([sequences[index] for index in indices])

    def sums(self, batch: tuple[Tensor, Tensor]) -> dict[str, tuple[float, float]]:
        """Nats over the predicted steps."""
        total, count = self._nll(*batch)
        return {"nll": (float(total), float(count))}

    def _nll(self, notes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nats of all predicted steps and their number."""
        played = notes.float()
        logits = self.model(played[:-1])  # (T - 1, B, 88)
        nats = F.binary_cross_entropy_with_logits(logits.float(), played[1:], reduction="none").sum(2)
        is_there = torch.arange(1, len(notes), device=notes.device)[:, None] < lengths  # (T - 1, B)
        return (nats * is_there).sum(), is_there.sum()


def cut(sequence: np.ndarray, steps: int) -> list[np.ndarray]:
    """Cut (T, 88) into pieces that predict at most `steps` steps each; every step but the first is predicted once."""
    if not steps:
        return [sequence]
    return [sequence[start : start + steps + 1] for start in range(0, len(sequence) - 1, steps)]


def collate(sequences: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Pad sequences with silence behind their end: (T, B, 88) uint8 and lengths (B,)."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    padded = np.zeros((int(lengths.max()), len(sequences), NOTES), np.uint8)
    for column, sequence in enumerate(sequences):
        padded[: len(sequence), column] = sequence
    return torch.from_numpy(padded), torch.from_numpy(lengths)
