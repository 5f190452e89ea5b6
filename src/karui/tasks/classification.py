"""Text classification: named or own data, the text classifier, accuracy.

N documents, B of a batch, T tokens of its longest one, C outputs (1 for two classes).
"""

import io
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.data import Splits, TextDataset, load_splits
from karui.data.batching import EncodedDataset, LengthBuckets, encode_dataset, ordered_batches
from karui.data.vocabulary import Vocabulary
from karui.errors import UserError
from karui.files import atomic_write
from karui.sparse import words_kept
from karui.tasks.linear_scores import LinearScores, fingerprint, fit_scores, load_scores
from karui.tasks.pair_scores import PairScores
from karui.tasks.settings import DataSettings, ModelSettings, SparseSettings
from karui.tasks.sparse_task import SparseTask, make_sparse
from karui.tasks.teacher import linear_teacher
from karui.tasks.text_classifier import TextClassifier

EVALUATION_TOKENS = 32_768  # padded tokens of an evaluation batch
TRAINING_TOKENS = 65_536  # of a training batch: one text of a megabyte must not be padded 64 times over
VOCABULARY_FILE = "vocabulary.json"
TEACHER_FILE = "teacher.npy"
LINEAR_FILE = "linear.npz"


def build_model(n_words: int, n_classes: int, model: ModelSettings, sparse: SparseSettings) -> nn.Module:
    """The untrained model of a recipe: a TextClassifier, made sparse unless `sparse.method` is "none"."""
    classifier = TextClassifier(
        n_words,
        n_classes,
        recurrent=model.recurrent,
        embedding_dim=model.embedding_dim,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        directions=model.directions,
        pooling=model.pooling,
        word_scores=model.word_scores,
        activation=model.activation,
        options=model.options(),
        linear_share=model.linear_share,
        embedding_dropout=model.embedding_dropout,
        dropout=model.dropout,
        word_dropout=model.word_dropout,
    )
    return make_sparse(classifier, sparse)


def load_run_model(
    run_dir: Path, model: ModelSettings, sparse: SparseSettings
) -> tuple[nn.Module, list[str], list[str]]:
    """The untrained model, the words and the labels of a run folder; its weights are the caller's to load.

    Raises UserError when the folder holds no vocabulary, or not the linear model that the settings ask for.
    """
    path = run_dir / VOCABULARY_FILE
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        words, labels = list(saved["words"]), list(saved["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path}: no readable vocabulary ({error}); give the folder of a run made by `karui train classify`"
        raise UserError(message) from error
    found = build_model(len(words), len(labels), model, sparse)
    if model.linear_share:
        load_linear(found, load_scores(run_dir / LINEAR_FILE, n_words=len(words), n_classes=len(labels)))
    return found, words, labels


def load_linear(model: nn.Module, scores: LinearScores) -> None:
    """Give the linear part of a TextClassifier, sparse or not, its values."""
    part = getattr(model, "linear", None)
    if not isinstance(part, PairScores):
        raise TypeError(f"{type(model).__name__} has no linear part: build it with linear_share")
    part.load(scores)


class ClassificationTask(SparseTask):
    """A `karui.train.Task`: documents with one label each.

    The vocabulary is made from the training part alone; the test part is read by `evaluate("test")` only.
    """

    def __init__(
        self,
        data: DataSettings,
        model: ModelSettings,
        sparse: SparseSettings,
        *,
        seed: int,
        splits: Splits | None = None,
    ) -> None:
        self.data, self.sparse = data, sparse
        self.splits = splits if splits is not None else load_data(data)
        train = self.splits.train
        self.label_names = self.splits.label_names
        self.vocabulary = Vocabulary.from_texts(train.texts, data.max_words, data.min_count)
        if not len(self.vocabulary):
            raise UserError(
                f"{data.name}: no word occurs {data.min_count} times in the training texts: lower min_count"
            )
        torch.manual_seed(seed)
        self.model = build_model(len(self.vocabulary), len(self.label_names), model, sparse)
        self.train_set = encode_dataset(train, self.vocabulary, data.max_tokens)
        self.num_examples = len(self.train_set)
        self.buckets = LengthBuckets(
            self.train_set.lengths, batch_size=data.batch_size, max_tokens=TRAINING_TOKENS, seed=seed
        )
        self.seed = seed
        self._targets: Tensor | None = None
        self._linear_weights = model.linear_weights if model.linear_share else 0

    @cached_property
    def valid_set(self) -> EncodedDataset:
        """The validation documents as ids."""
        return encode_dataset(self.splits.valid, self.vocabulary, self.data.max_tokens)

    def targets(self, teacher_file: Path | None = None) -> Tensor:
        """What the training texts should be called, (N,) int64, or (N, classes) shares when a teacher has a say.

        teacher_file: where the teacher's opinion is kept, so that a resumed run need not ask again.
        """
        if self._targets is not None:
            return self._targets
        labels, n_classes = torch.from_numpy(self.train_set.labels), len(self.label_names)
        if self.data.teacher == "none":
            self._targets = labels
            return labels
        if teacher_file is not None and teacher_file.exists():
            opinion = np.load(teacher_file, allow_pickle=False)
        else:
            opinion = linear_teacher(
                self.splits.train.texts, self.train_set.labels, n_classes, seed=self.seed
            )
            if teacher_file is not None:
                buffer = io.BytesIO()
                np.save(buffer, opinion, allow_pickle=False)
                atomic_write(teacher_file, buffer.getvalue())
        if opinion.shape != (len(labels), n_classes):
            expected = f"({len(labels)}, {n_classes})"
            raise UserError(
                f"{teacher_file}: has shape {opinion.shape}, expected {expected}; delete it and resume"
            )
        share = self.data.teacher_share
        self._targets = share * torch.from_numpy(opinion) + (1.0 - share) * F.one_hot(labels, n_classes)
        return self._targets

    def ready_linear(self, file: Path | None = None) -> None:
        """Give the linear part of the model, where it has one, its values: from `file`, or by a fit that goes there.

        A file of other documents or another number of weights, left by another run, is written anew.
        """
        if not self._linear_weights:
            return
        documents, weights, scores = self.train_set, self._linear_weights, None
        sizes = {"n_words": len(self.vocabulary), "n_classes": len(self.label_names)}
        if file is not None and file.exists():
            scores = load_scores(file, **sizes)
        if scores is None or not np.array_equal(scores.origin, fingerprint(documents, weights)):
            scores = fit_scores(documents, **sizes, weights=weights)
            if file is not None:
                scores.save(file)
        load_linear(self.model, scores)
        self._linear_weights = 0

    def split(self, name: str) -> TextDataset:
        """The texts of "train", "valid" or "test"; raises UserError where the set has no such part."""
        part = getattr(self.splits, name)
        if part is None:
            raise UserError(f"{self.splits.name}: the set has no {name} part")
        return part

    def steps_per_epoch(self, epoch: int) -> int:
        """Number of batches of an epoch."""
        return len(self.buckets.batches(epoch))

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """(ids (B, T), lengths (B,), targets): a pure function of the seed, the epoch and the step."""
        indices = self.buckets.batches(epoch)[step]
        ids, lengths, _ = tensors(self.train_set, indices)
        return ids, lengths, self.targets()[torch.from_numpy(indices)]

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy in nats."""
        ids, lengths, targets = batch
        return cross_entropy(self.model(ids, lengths), targets)

    def evaluate(self, split: str) -> dict[str, float]:
        """Accuracy (0 to 1) and nll (nats a document) of "valid" or "test"."""
        self.ready_linear()
        documents = self.valid_set
        if split != "valid":
            documents = encode_dataset(self.split(split), self.vocabulary, self.data.max_tokens)
        logits = predict_logits(self.model, documents)
        labels = torch.from_numpy(documents.labels)
        return {"accuracy": accuracy(logits, labels), "nll": float(cross_entropy(logits, labels))}

    def status(self) -> dict[str, float]:
        """Density and words kept of a sparse model, and how it stands to its target."""
        found = super().status()
        return {**found, "words_kept": float(words_kept(self.model))} if found else found

    def parameter_groups(self, settings: Any) -> list[dict[str, Any]]:
        """All parameters at one learning rate, gates at their own."""
        self.ready_linear()  # the tensors of the model are complete before the loop looks at them
        return super().parameter_groups(settings)

    def save_artifacts(self, run_dir: Path) -> None:
        """Write words and labels, which rebuild the model beside the recipe, the teacher's opinion, the linear part."""
        content = {"words": self.vocabulary.words, "labels": self.label_names, "subset": self.splits.subset}
        atomic_write(run_dir / VOCABULARY_FILE, json.dumps(content, ensure_ascii=False))
        self.targets(run_dir / TEACHER_FILE)
        self.ready_linear(run_dir / LINEAR_FILE)


def load_data(data: DataSettings) -> Splits:
    """Read the splits that the settings name."""
    return load_splits(
        data.name,
        text=data.text,
        label=data.label,
        valid_fraction=data.valid_fraction,
        fold=data.fold,
        phrases=None if data.phrases else False,
    )


def tensors(documents: EncodedDataset, indices: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """A padded batch as torch tensors: ids (B, T), lengths (B,), labels (B,)."""
    ids, lengths, labels = documents.batch(indices)
    return torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(labels)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean loss in nats: sigmoid for one output column (two classes), softmax otherwise.

    targets: labels (B,) int64 or shares of the classes (B, classes).
    """
    if logits.shape[1] > 1:
        return F.cross_entropy(logits, targets)
    share = targets if targets.dim() == 1 else targets[:, 1]
    return F.binary_cross_entropy_with_logits(logits[:, 0], share.to(logits.dtype))


def predictions(logits: Tensor) -> Tensor:
    """(N, C) to class positions (N,)."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Correct / all."""
    return float((predictions(logits) == labels).double().mean())


@torch.no_grad()
def predict_logits(model: nn.Module, documents: EncodedDataset) -> Tensor:
    """Logits (N, C) of all documents in their order; the model's mode and device are the caller's."""
    device = next(model.parameters()).device
    result: Tensor | None = None
    for indices in ordered_batches(documents.lengths, batch_size=512, max_tokens=EVALUATION_TOKENS):
        ids, lengths, _ = tensors(documents, indices)
        logits: Tensor = model(ids.to(device), lengths.to(device)).float().cpu()
        if result is None:
            result = logits.new_empty(len(documents), logits.shape[1])
        result[torch.from_numpy(indices)] = logits
    assert result is not None, "no documents"
    return result
