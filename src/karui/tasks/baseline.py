"""What a user would take instead of a karui model, from the same words and the same splits, in whole-file bytes.

The linear model is always measured; fastText where its Python module is installed. Settings are chosen on the
validation split alone; the test split is read once, for the chosen files, from their decoded bytes.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from karui.files import atomic_write
from karui.tasks.fasttext_baseline import fasttext_files, installed
from karui.tasks.linear_baseline import Candidate, LinearPath, pick
from karui.tasks.linear_file import decode

MAX_BYTES = [1000, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 8000, 10000, 15000, 20000, 25000, 35000, 50000]
LINEAR = "L1 logistic regression, int8"
FASTTEXT = "fastText, quantised"
_TIMED_DOCUMENTS = 200


@dataclass
class BaselinePoint:
    """One file of a rival: its bytes, how it did, and the settings that made it.

    Accuracies are fractions; `test_accuracy` is None where the set has no test split. `us_per_document` is the
    median time of one raw text in Python on one thread, tokenisation included.
    """

    name: str
    artifact_bytes: int
    valid_accuracy: float
    test_accuracy: float | None
    us_per_document: float
    settings: dict[str, Any] = field(default_factory=dict)


def baselines(
    splits: Any, *, max_bytes: Sequence[int] = MAX_BYTES, seed: int = 0, fasttext: bool = True
) -> list[BaselinePoint]:
    """Return, for each rival and each budget in bytes, the file that is best on the validation split.

    `splits` has `train`, `valid` and `test` (or None), each with `texts`, `labels` (D,) and `label_names`
    (`karui.data.Splits`). A file that is best for several budgets appears once. With fewer than two labels in the
    train split there is nothing to compare and the list is empty.
    """
    if not max_bytes or len(np.unique(splits.train.labels)) < 2:
        return []
    points = linear_points(splits, max_bytes=max_bytes, seed=seed)
    if fasttext and installed():
        points += fasttext_points(splits, max_bytes=max_bytes, seed=seed)
    return points


def linear_points(splits: Any, *, max_bytes: Sequence[int], seed: int) -> list[BaselinePoint]:
    """Return the points of the linear model, each measured from the bytes of its file."""
    path = LinearPath(splits.train, splits.valid, seed=seed)
    chosen = pick(list(path.candidates(max_bytes=max(max_bytes))), max_bytes)
    test = (
        None
        if splits.test is None
        else (*path.index.counts(splits.test.texts), np.asarray(splits.test.labels))
    )
    timed = (splits.test or splits.valid).texts[:_TIMED_DOCUMENTS]
    return [_linear_point(path, candidate, test, timed) for candidate in chosen]


def _linear_point(path: LinearPath, candidate: Candidate, test: Any, timed: list[str]) -> BaselinePoint:
    model = decode(candidate.data)
    answer = model.reader()
    seconds = []
    for text in timed:
        begin = time.perf_counter()
        answer(text)
        seconds.append(time.perf_counter() - begin)
    return BaselinePoint(
        name=LINEAR,
        artifact_bytes=len(candidate.data),
        valid_accuracy=candidate.valid_accuracy,
        test_accuracy=None if test is None else path.accuracy(candidate.data, *test),
        us_per_document=round(float(np.median(seconds)) * 1e6, 1),
        settings=candidate.settings,
    )


def fasttext_points(splits: Any, *, max_bytes: Sequence[int], seed: int) -> list[BaselinePoint]:
    """Return the points of quantised fastText models; needs the `fasttext` module."""
    files = fasttext_files(splits, max_bytes=max(max_bytes), seed=seed)
    chosen: list[BaselinePoint] = []
    for budget in sorted(max_bytes):
        fitting = [file for file in files if file.artifact_bytes <= budget]
        if fitting:
            best = max(fitting, key=lambda file: (file.valid_accuracy, -file.artifact_bytes))
            point = BaselinePoint(FASTTEXT, **asdict(best))
            if point not in chosen:
                chosen.append(point)
    return chosen


def save_baselines(run_dir: Path, points: Sequence[BaselinePoint], *, seed: int) -> Path:
    """Write `baselines.json` into a run folder and return its path; the schema is in `karui.report.schema`."""
    notes = [] if any(point.name == FASTTEXT for point in points) else [fasttext_note()]
    content = {"seed": seed, "points": [asdict(point) for point in points], "notes": notes}
    path = Path(run_dir) / "baselines.json"
    atomic_write(path, json.dumps(content, indent=1) + "\n")
    return path


def fasttext_note() -> str:
    """Return the line that stands where fastText's numbers are missing."""
    return "fastText: not measured" if installed() else "fastText: not installed"
