"""What the verbs that read a run folder share: its recipe, its model, answers to raw texts, timing."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from karui.cli.task_table import task_of_run
from karui.errors import UserError

TIMED_DOCUMENTS = 200
TIMED_PASSES = 3


@dataclass
class TrainedRun:
    """A finished run: `model` is as it was trained, sparse layers included."""

    path: Path
    recipe: Any
    model: Any
    words: list[str]
    labels: list[str]

    @property
    def is_sparse(self) -> bool:
        """Whether the recipe made weights zero."""
        return self.recipe.sparse.method != "none"

    @property
    def max_tokens(self) -> int:
        """Tokens of a document that are read; 0 = all."""
        return self.recipe.data.max_tokens

    def masked(self) -> Any:
        """The plain model with pruned weights at zero."""
        from karui.sparse import harden

        return harden(self.model).eval()

    def dense(self) -> Any:
        """The plain model with every weight kept."""
        from karui.sparse import dense_copy

        return dense_copy(self.model)

    def answers(self, model: Any) -> Callable[[Sequence[str]], np.ndarray]:
        """Return a function from raw texts to the logits (N, C) of a plain model."""
        from karui.data.batching import encode_dataset
        from karui.data.dataset import TextDataset
        from karui.data.vocabulary import Vocabulary
        from karui.tasks.classification import predict_logits

        vocabulary = Vocabulary(self.words)

        def answer(texts: Sequence[str]) -> np.ndarray:
            dataset = TextDataset(list(texts), np.zeros(len(texts), np.int64), self.labels)
            return predict_logits(model, encode_dataset(dataset, vocabulary, self.max_tokens)).numpy()

        return answer


def open_run(run_dir: Path) -> TrainedRun:
    """Read a run folder that `karui train classify` finished.

    Raises:
        UserError: there is no such folder, the run is not finished, or a file is damaged.
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is no run folder; karui train classify ... --out {run_dir} makes one")
    refuse_sequences(run_dir)
    from karui.recipes import base
    from karui.recipes.classification import ClassificationRecipe
    from karui.tasks.classification import load_run_model
    from karui.train.checkpoint import FINAL, check_matches, load_weights

    recipe = base.load(ClassificationRecipe, run_dir / "config.json")
    weights = load_weights(run_dir)
    model, words, labels = load_run_model(run_dir, recipe.model, recipe.sparse)
    check_matches(weights, model.state_dict(), run_dir / "checkpoints" / FINAL)
    model.load_state_dict(weights)
    return TrainedRun(run_dir, recipe, model.eval(), words, labels)


def refuse_sequences(run_dir: Path) -> None:
    """Raise UserError for a run of a task that makes no .karui file."""
    if (task := task_of_run(run_dir)) != "classify":
        raise UserError(
            f"{run_dir} is a run of karui train {task}: only text classifiers and language models become .karui files;"
            f" karui eval {run_dir} measures it"
        )


def us_per_document(answer: Callable[[list[str]], Any], texts: Sequence[str]) -> float | None:
    """Microseconds a document, one at a time, tokenisation included: best of three passes; None without texts."""
    from karui.compact.figures import spread

    chosen = [texts[i] for i in spread(len(texts), TIMED_DOCUMENTS)]
    if not chosen:
        return None
    answer(chosen[:1])
    best = float("inf")
    for _ in range(TIMED_PASSES):
        start = time.perf_counter()
        for text in chosen:
            answer([text])
        best = min(best, time.perf_counter() - start)
    return round(best / len(chosen) * 1e6, 2)


def on_one_thread(function: Callable[[], Any]) -> Any:
    """Call a function with torch held to one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function()
    finally:
        torch.set_num_threads(threads)
