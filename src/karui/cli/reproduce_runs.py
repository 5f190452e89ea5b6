"""Runs behind the rows of `karui reproduce`: trained seed by seed, and their records."""

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from karui.cli.train import train_run

TRAINED_WITH = ("commit", "karui", "torch", "python", "hardware", "date")
"""What a record takes from a run's `results.json` where the run may be older than the call that records it."""

_KEPT = ("parameters", "best_epoch", "train_minutes")


class FinishedRun(NamedTuple):
    """A row that was trained with one seed."""

    row: Any
    """The row, such as `karui.recipes.images.ImageRow`."""
    recipe: Any
    """Its recipe as it was trained, the seed in it."""
    found: dict[str, Any]
    """What stands in `results.json`."""
    out: Path
    """The run folder."""


Recorder = Callable[[FinishedRun, Path], dict[str, Any]]
"""Writes the record of a run below the folder of all results; returns what a person is told, see `write_run`."""


def make_row(
    record: Recorder,
    row: Any,
    seeds: Sequence[int] | None,
    *,
    runs: Path,
    results: Path,
    accelerator: str,
    epochs: int | None,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Train a row for each seed and record it, one after the other; what is finished stays as it is.

    Raises:
        UserError: a run folder holds a run of other settings, or `record` refuses what the run came to.
    """
    made = []
    for seed in seeds or row.seeds:
        train = dataclasses.replace(row.recipe.train, seed=seed, accelerator=accelerator)
        if epochs is not None:
            train = dataclasses.replace(train, max_epochs=epochs)
        recipe = dataclasses.replace(row.recipe, train=train)
        out = runs / f"{recipe.name}-seed{seed}"
        made.append(record(FinishedRun(row, recipe, train_run(recipe, out, quiet=quiet), out), results))
    return made


def write_run(
    run: FinishedRun, results: Path, *, task: str, metrics: Mapping[str, Any], details: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the record of a run into a folder; return its row, seed, path and metrics."""
    from karui.report.records import write_record

    recipe = run.recipe
    path = write_record(
        results,
        task=task,
        data=recipe.data.name,
        subset=run.found["subset"],
        recipe=recipe.name,
        seed=recipe.train.seed,
        metrics=metrics,
        details=details,
    )
    return {"row": recipe.name, "seed": recipe.train.seed, "record": str(path), "metrics": metrics}


def details_of(run: FinishedRun, *budget: str, **own: Any) -> dict[str, Any]:
    """What else a record says of a run: when and where it was trained, `own`, its budget and settings."""
    from karui.recipes.base import to_dict

    return {
        **{name: run.found[name] for name in TRAINED_WITH},
        **own,
        "budget": budget_of(run, *budget),
        "settings": to_dict(run.recipe),
    }


def budget_of(run: FinishedRun, *more: str) -> dict[str, Any]:
    """Epochs of a run, and `more` of the settings of its training by their names."""
    train = run.recipe.train
    return {"epochs": train.max_epochs, **{name: getattr(train, name) for name in more}}


def recorded_metrics(run: FinishedRun) -> dict[str, Any]:
    """Scores of both parts, size and times of a run."""
    metrics = {
        name: value
        for name, value in run.found["metrics"].items()
        if name.startswith(("test_", "valid_")) or name in _KEPT
    }
    return {**metrics, "seconds_per_epoch": seconds_per_epoch(run.out / "metrics.jsonl")}


def times_of(run: FinishedRun) -> dict[str, float]:
    """Minutes of the training of a run, and seconds of one of its epochs."""
    return {
        "train_minutes": run.found["metrics"]["train_minutes"],
        "seconds_per_epoch": seconds_per_epoch(run.out / "metrics.jsonl"),
    }


def seconds_per_epoch(log: Path) -> float:
    """Return the median time of an epoch's training, without its evaluation, from `metrics.jsonl`."""
    began, last, done, spent = 0.0, 0.0, 0, []
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if line["split"] == "train":
            last = line["seconds"]
        else:  # an evaluation, behind one epoch or several
            spent.append((last - began) / (line["epoch"] + 1 - done))
            began, done = line["seconds"], line["epoch"] + 1
    return round(median(spent), 2)


def compact_run(run: Path, *, max_bytes: int | None = None, levels: int | None = None) -> dict[str, Any]:
    """Compact a run into `model.karui` beside it, as `karui compact` does; returns the figures of that file."""
    from karui.cli.compact import compact

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        compact(
            run,
            output=run / "model.karui",
            max_bytes=None if max_bytes is None else str(max_bytes),
            levels=levels,
            baseline=False,  # rivals have records of their own
            as_json=True,
        )
    return json.loads(said.getvalue())
