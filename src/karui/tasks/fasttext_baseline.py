"""Quantised fastText classifiers of several sizes, where the Python module `fasttext` is installed.

It reads karui's words, one document a line, so that both sides see the same tokens. fastText's random numbers
follow its seed only with one thread.
"""

import importlib
import importlib.util
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from karui.runtime.tokenise import tokenise

DIMS = (
    4,
    10,
)  # with pairs of words; single words and dim 2 were behind at every size on IMDb, AG News and TREC
CUTOFFS = (300, 1000, 2500, 8000)
TRAINING = {"lr": 0.1, "wordNgrams": 2, "minCount": 2, "bucket": 200_000, "thread": 1, "verbose": 0}
EPOCHS, EPOCHS_SMALL = 10, 25
SMALL_SET = 10_000  # documents
_TIMED_DOCUMENTS = 200


@dataclass
class FasttextFile:
    """One quantised file: whole-file bytes, accuracies as fractions, microseconds a document in Python."""

    artifact_bytes: int
    valid_accuracy: float
    test_accuracy: float | None
    us_per_document: float
    settings: dict[str, Any] = field(default_factory=dict)


def installed() -> bool:
    """Tell whether the `fasttext` module can be imported."""
    return importlib.util.find_spec("fasttext") is not None


def fasttext_files(splits: Any, *, max_bytes: int, seed: int) -> list[FasttextFile]:
    """Return every quantised model of the grid whose file is at most `max_bytes`."""
    fasttext: Any = importlib.import_module("fasttext")
    fasttext.FastText.eprint = _silent  # load_model warns about its own return type each time
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("train", "valid", "test"):
            if (part := getattr(splits, split)) is not None:
                order = np.arange(len(part.texts))
                if split == "train":  # fastText reads the file in order, and a set may come sorted by label
                    order = np.random.default_rng(seed).permutation(order)
                write_lines(folder / f"{split}.txt", [part.texts[i] for i in order], part.labels[order])
        epoch = EPOCHS_SMALL if len(splits.train.texts) < SMALL_SET else EPOCHS
        timed = [" ".join(tokenise(text)) + "\n" for text in splits.valid.texts[:_TIMED_DOCUMENTS]]
        return [
            file
            for dim in DIMS
            for file in _sizes(fasttext, folder, timed, seed=seed, dim=dim, epoch=epoch)
            if file.artifact_bytes <= max_bytes
        ]


def _silent(*_: object) -> None:
    return


def write_lines(path: Path, texts: Sequence[str], labels: np.ndarray) -> None:
    """Write fastText's input: a label and the words of a document a line."""
    with path.open("w", encoding="utf-8") as file:
        for text, label in zip(texts, labels, strict=True):
            file.write(f"__label__{int(label)} {' '.join(tokenise(text))}\n")


def _sizes(
    fasttext: Any, folder: Path, timed: list[str], *, seed: int, **shape: int
) -> Iterator[FasttextFile]:
    """Train once, then quantise to each cut-off from the same trained file."""
    train = str(folder / "train.txt")
    full = str(folder / "full.bin")
    try:
        fasttext.train_supervised(train, seed=seed, **shape, **TRAINING).save_model(full)
    except RuntimeError:  # fastText stops at a NaN loss
        return
    small = folder / "small.ftz"
    for cutoff in CUTOFFS:
        model = fasttext.load_model(full)
        try:
            model.quantize(
                train, qnorm=True, retrain=True, cutoff=cutoff, thread=1, verbose=-1
            )  # 0 is read as unset
        except (RuntimeError, ValueError):  # fewer features than the code books need
            continue
        model.save_model(str(small))
        model = fasttext.load_model(str(small))
        test = folder / "test.txt"
        yield FasttextFile(
            artifact_bytes=small.stat().st_size,
            valid_accuracy=_accuracy(model, folder / "valid.txt"),
            test_accuracy=_accuracy(model, test) if test.exists() else None,
            us_per_document=_us_per_document(model, timed),
            settings={**shape, "cutoff": cutoff, "lr": TRAINING["lr"], "wordNgrams": TRAINING["wordNgrams"]},
        )


def _accuracy(model: Any, path: Path) -> float:
    """Return the share of right answers; a document without known words, which `test` skips, counts as wrong."""
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    answered, precision, _ = model.test(str(path))
    return float(answered * precision / max(lines, 1))


def _us_per_document(model: Any, lines: list[str]) -> float:
    seconds = []
    for line in lines:
        begin = time.perf_counter()
        model.f.predict(line, 1, 0.0, "strict")  # model.predict fails with numpy 2
        seconds.append(time.perf_counter() - begin)
    return round(float(np.median(seconds)) * 1e6, 1) if seconds else 0.0
