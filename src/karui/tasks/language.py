"""Language modelling: the next word, or character, of a running text; truncated back-propagation with a carried state.

T steps of a piece, B columns, N tokens of a part, V words. The stream of a part begins behind the end of a line: its
first token is predicted from `</s>`, and so all N tokens are predicted.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from karui.data.language import LanguageCorpus
from karui.data.language_sets import load_language
from karui.errors import UserError
from karui.files import atomic_write
from karui.optim import parameter_groups
from karui.sparse import harden
from karui.tasks.language_model import LanguageModel, build_language_model
from karui.tasks.language_settings import LanguageData, LanguageModelSettings
from karui.tasks.sequence_task import SequenceTask
from karui.tasks.settings import DENSE, SparseSettings

EVALUATION_STEPS = 2048
"""Steps of an evaluation piece; the state is carried, so that the figure does not depend on it."""

RESET_CHARACTERS = 100
VOCABULARY_FILE = "vocabulary.json"


class LanguageBatch(NamedTuple):
    """One step of training."""

    inputs: Tensor
    """(T, B) int64"""
    targets: Tensor
    """(T, B) int64, the token behind each input."""
    begins: bool
    """The first piece of an epoch: the state is zero."""
    finish: bool
    """The epoch belongs to the last share, which `output_finish` trains."""
    share: float
    """Weight of the loss: T / bptt_len with random lengths, else 1."""


class LanguageTask(SequenceTask):
    """A `karui.train.Task`: B columns of the training text side by side, in pieces of T steps.

    The state is carried from piece to piece without its gradient, and back to zero at the start of an epoch. The last
    tokens, which would not fill all columns, are left out of training; held-out parts are read whole, in one column.
    """

    model: LanguageModel

    def __init__(
        self,
        data: LanguageData,
        model: LanguageModelSettings,
        sparse: SparseSettings = DENSE,
        *,
        seed: int,
        max_epochs: int = 0,
        corpus: LanguageCorpus | None = None,
    ) -> None:
        self.data, self.sparse, self.seed = data, sparse, seed
        self.corpus = load_corpus(data) if corpus is None else corpus
        self.subset = self.corpus.subset or bool(data.limit)
        self.finish_epoch = max_epochs - round(model.finish_share * max_epochs) if max_epochs else 0
        torch.manual_seed(seed)
        self.model = build_language_model(torch.from_numpy(self.corpus.counts), model, sparse)
        self.num_steps = len(self.corpus.train) // data.batch_size
        if not self.num_steps:
            raise UserError(
                f"{data.name}: {len(self.corpus.train)} training tokens do not fill data.batch_size={data.batch_size}"
                " columns; lower it"
            )
        self.num_examples = self.num_steps * data.batch_size
        stream = with_first(self.corpus.train, self.corpus.eos)
        self._inputs = columns(stream[: self.num_examples], data.batch_size)
        self._targets = columns(stream[1 : self.num_examples + 1], data.batch_size)
        self.notes = self.corpus.notes
        self._state: Any = None
        self._starts: tuple[int, np.ndarray] | None = None

    def starts(self, epoch: int) -> np.ndarray:
        """(pieces + 1,) int64: the first step of each piece of an epoch, and the end of the last."""
        if self._starts is None or self._starts[0] != epoch:
            length = self.data.bptt_len
            if self.data.random_lengths:
                cuts = random_cuts(self.num_steps, length, np.random.default_rng([self.seed, epoch]))
            else:
                cuts = np.append(np.arange(0, self.num_steps, length), self.num_steps)
            self._starts = (epoch, cuts)
        return self._starts[1]

    def steps_per_epoch(self, epoch: int) -> int:
        """Number of pieces of an epoch."""
        return len(self.starts(epoch)) - 1

    def batch(self, epoch: int, step: int) -> LanguageBatch:
        """One piece of all columns: a pure function of the seed, the epoch and the step."""
        start, end = self.starts(epoch)[step : step + 2].tolist()
        return LanguageBatch(
            inputs=torch.from_numpy(self._inputs[start:end]).long(),
            targets=torch.from_numpy(self._targets[start:end]).long(),
            begins=step == 0,
            finish=epoch >= self.finish_epoch,
            share=(end - start) / self.data.bptt_len if self.data.random_lengths else 1.0,
        )

    def loss(self, batch: LanguageBatch) -> Tensor:
        """Mean training loss of a piece's tokens (cross-entropy in nats for a normalised output)."""
        hidden, state = self.model(batch.inputs, None if batch.begins else self._state)
        self._state = detached(state)
        loss = self.model.output_of(finish=batch.finish)(hidden, batch.targets)
        return loss if batch.share == 1.0 else loss * batch.share

    def parameter_groups(self, settings: Any) -> list[dict[str, Any]]:
        """Matrices with weight decay, vectors without, and tables with sparse gradients by a rule of rows."""
        return parameter_groups(
            self.model,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            rule=settings.optimizer,
            sparse_lr=settings.sparse_lr,
            own=self.gate_group(settings),
        )

    def training_state(self) -> dict[str, Tensor]:
        """The carried state and that of the target's control, for a checkpoint: by name."""
        found = super().training_state()
        if self._state is None:
            return found
        if isinstance(self._state, Tensor):
            return {**found, "state": self._state}
        return found | {f"state{k}": part for k, part in enumerate(self._state)}

    def load_training_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue with what `training_state` returned."""
        super().load_training_state(tensors)
        device = next(self.model.parameters()).device
        found = {name: tensor.to(device) for name, tensor in tensors.items() if name.startswith("state")}
        if not found:
            self._state = None
        elif "state" in found:
            self._state = found["state"]
        else:
            self._state = tuple(found[f"state{k}"] for k in range(len(found)))

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        """Figures of "valid" or "test": nll (nats a token), and perplexity (words) or bpc (characters).

        The state is carried over the whole part. The test part of a text of characters is also measured as
        `bpc_reset_100`: a zero state every 100 characters, whose first is read and not predicted.
        """
        tokens = self.corpus.split("valid" if split == "valid" else "test")
        # A sparse model's masked weights are made once, instead of at each call.
        model: Any = self.model if self.sparse.method == "none" else harden(self.model).eval()
        with torch.autocast(
            next(self.model.parameters()).device.type, enabled=False
        ):  # figures are of full precision
            nll = carried_nll(model, tokens, self.corpus.eos)
            if self.corpus.level == "word":
                return {"nll": nll, "perplexity": perplexity(nll)}
            found = {"nll": nll, "bpc": nll / math.log(2)}
            if split != "valid" and len(tokens) >= RESET_CHARACTERS:
                found["bpc_reset_100"] = reset_nll(model, tokens, RESET_CHARACTERS) / math.log(2)
            return found

    def save_artifacts(self, run_dir: Path) -> None:
        """Write the words and what else rebuilds the model beside the recipe."""
        corpus = self.corpus
        content = {
            "level": corpus.level,
            "tokens": corpus.tokens,
            "lower": corpus.lower,
            "subset": self.subset,
            "unk": corpus.unk,
            "eos": corpus.eos,
            "words": corpus.words,
            "counts": corpus.counts.tolist(),
        }
        atomic_write(run_dir / VOCABULARY_FILE, json.dumps(content, ensure_ascii=False))


def load_corpus(data: LanguageData) -> LanguageCorpus:
    """Read the text that the settings name."""
    return load_language(
        data.name,
        level=data.level,
        tokens=data.tokens,
        lower=data.lower,
        min_count=data.min_count,
        max_words=data.max_words,
        valid_fraction=data.valid_fraction,
        limit=data.limit,
        text=data.text,
    )


def with_first(tokens: np.ndarray, first: int) -> np.ndarray:
    """The tokens (N,) behind a first one, (N + 1,) int32."""
    return np.concatenate([np.array([first], np.int32), tokens])


def columns(tokens: np.ndarray, count: int) -> np.ndarray:
    """(N,) to (N / count, count): column b holds the b-th part of the text."""
    return np.ascontiguousarray(tokens.reshape(count, -1).T)


def random_cuts(num_steps: int, length: int, random: np.random.Generator) -> np.ndarray:
    """Cuts between pieces: normal around `length`, or its half one time in twenty, with deviation 5, at least 5."""
    draws = 2 + 2 * (num_steps // 5)
    mean = np.where(random.random(draws) < 0.95, float(length), length / 2)
    ends = np.cumsum(np.maximum(5, random.normal(mean, 5.0).astype(np.int64)))
    return np.concatenate([[0], ends[ends < num_steps], [num_steps]])


def detached(state: Any) -> Any:
    """A recurrent layer's state without its gradient."""
    if isinstance(state, Tensor):
        return state.detach()
    return None if state is None else tuple(detached(part) for part in state)


def carried_nll(model: LanguageModel, tokens: np.ndarray, eos: int) -> float:
    """Mean nats of all tokens (N,), the state carried from the first to the last, exact softmax."""
    device = next(model.parameters()).device
    stream = torch.from_numpy(with_first(tokens, eos)).long()
    state, total = None, 0.0
    for start in range(0, len(tokens), EVALUATION_STEPS):
        piece = stream[start : start + EVALUATION_STEPS + 1].to(device).unsqueeze(1)
        hidden, state = model(piece[:-1], state)
        total += float(model.output.nll(hidden, piece[1:], reduction="sum"))
    return total / len(tokens)


def reset_nll(model: LanguageModel, tokens: np.ndarray, length: int) -> float:
    """Mean nats of the last `length` - 1 tokens of each whole piece of `length`, which begins from a zero state."""
    device = next(model.parameters()).device
    pieces = torch.from_numpy(columns(tokens[: len(tokens) // length * length], len(tokens) // length)).long()
    total, count = 0.0, 0
    for part in pieces.split(512, dim=1):
        inputs = part.to(device)
        hidden, _ = model(inputs[:-1])
        total += float(model.output.nll(hidden, inputs[1:], reduction="sum"))
        count += inputs[1:].numel()
    return total / count


def perplexity(nll: float) -> float:
    """exp(nats a token), infinite where that is too large for a float."""
    return math.exp(nll) if nll < 700 else math.inf
