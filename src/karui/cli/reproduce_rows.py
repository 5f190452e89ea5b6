"""Rows of `karui reproduce` whose settings are searched for: short trials on validation, then the runs themselves."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from karui.cli import reproduce_runs
from karui.cli.reproduce_runs import FinishedRun, budget_of, recorded_metrics, write_run
from karui.cli.task_table import make_task, task_of_recipe
from karui.errors import UserError
from karui.files import atomic_write

TABLES = {
    "pixel-mnist": "pixels",
    "music": "music",
    "language-model": "language",
    "sparse-images": "images",
    "sparse-imdb": "imdb_sparse",
    "output-comparison": "output_comparison",
}
"""Name of a table -> module of `karui.recipes` with its `ROWS` and `DEFAULT_ROWS`."""

SEARCH_FILE = "search.json"


def rows_of(table: str, row: str | None) -> dict[str, Any]:
    """Return the rows of a table by name: one, those whose names begin with `row` and a hyphen, or the default ones.

    Raises:
        UserError: no row has such a name.
    """
    import importlib

    module = importlib.import_module(f"karui.recipes.{TABLES[table]}")
    if row is None:
        return {name: module.ROWS[name] for name in module.DEFAULT_ROWS}
    chosen = {name: made for name, made in module.ROWS.items() if name == row}
    chosen = chosen or {name: made for name, made in module.ROWS.items() if name.startswith(f"{row}-")}
    if not chosen:
        raise UserError(f"no row {row!r} in {table}; the rows are {', '.join(module.ROWS)}")
    return chosen


def make_row(
    row: Any,
    seeds: Sequence[int] | None,
    *,
    runs: Path,
    results: Path,
    accelerator: str,
    epochs: int | None,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Search the settings of a row, train it for each seed, open the test part once a seed, write the records.

    Everything is resumed where it stopped; what is finished is taken as it is.
    """
    base = dataclasses.replace(
        row.recipe, train=dataclasses.replace(row.recipe.train, accelerator=accelerator)
    )
    chosen = search(base, row.search, runs / f"{base.name}-search", quiet=quiet)
    return reproduce_runs.make_row(
        lambda run, folder: _record(run, chosen, folder),
        dataclasses.replace(row, recipe=_with(base, chosen["values"])),
        seeds,
        runs=runs,
        results=results,
        accelerator=accelerator,
        epochs=epochs,
        quiet=quiet,
    )


def search(base: Any, settings: Any, folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Return `values`, the best of the trials on validation, `valid`, its score, and the `trials` themselves.

    The trials stand in `search.json` one after the other, so that a search goes on where it stopped.

    Raises:
        UserError: the folder holds the search of another recipe, or every trial diverged.
    """
    from karui.recipes.base import to_dict
    from karui.train.search import Trial, best, propose

    path = folder / SEARCH_FILE
    asked = {"recipe": to_dict(base), "search": to_dict(settings)}
    done: list[dict[str, Any]] = []
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        done = stored.pop("trials")
        if stored != asked:
            raise UserError(
                f"{folder} holds a search of other settings; name another --runs folder or remove it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    monitor = base.train.monitor
    sign = -1.0 if monitor == "accuracy" else 1.0
    while True:
        trials = [
            Trial(each["values"], None if each["valid"] is None else sign * each["valid"]) for each in done
        ]
        if len(done) >= settings.trials:
            break
        values = propose(settings.ranges, trials, seed=settings.seed)
        number = len(done)
        valid = _trial(base, settings, values, folder / f"trial-{number:02d}")
        done.append({"values": values, "valid": valid})
        atomic_write(path, json.dumps({**asked, "trials": done}, indent=1) + "\n")
        if not quiet:
            shown = "  ".join(f"{name} {value:g}" for name, value in values.items())
            score = "diverged" if valid is None else f"{monitor} {valid:.4f}"
            sys.stderr.write(f"{base.name} trial {number + 1}/{settings.trials}  {score}  {shown}\n")
    chosen = best(trials)
    if chosen is None:
        raise UserError(f"{folder}: every trial diverged; lower the range of train.lr")
    return {"values": chosen.values, "valid": sign * (chosen.value or 0.0), "trials": done}


def _trial(base: Any, settings: Any, values: dict[str, float], out: Path) -> float | None:
    """Train one short run and return its validation score; None where the loss became infinite."""
    from karui.recipes.base import to_dict
    from karui.train import fit

    recipe = _with(base, values)
    train = dataclasses.replace(recipe.train, max_epochs=settings.epochs, seed=settings.seed, patience=0)
    recipe = dataclasses.replace(recipe, train=train)
    if settings.examples:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, limit=settings.examples))
    task = make_task(task_of_recipe(recipe), recipe)
    try:
        result = fit(task, train, out, resume=True, recipe=to_dict(recipe), quiet=True, tensorboard=False)
    except UserError as error:
        if "loss is" in str(error) or "no longer finite" in str(error):
            return None
        raise
    return result.metrics[train.monitor]


def _with(recipe: Any, values: dict[str, float]) -> Any:
    from karui.recipes.base import with_overrides

    return with_overrides(recipe, [f"{name}={value}" for name, value in values.items()])


def _record(run: FinishedRun, chosen: dict[str, Any], results: Path) -> dict[str, Any]:
    settings = run.row.search
    details = {
        "layer": _layer(run.recipe),
        "budget": {
            "trials": settings.trials,
            "trial_epochs": settings.epochs,
            "trial_examples": settings.examples,  # 0 = all
            **budget_of(run, "threads", "accelerator"),
        },
        "search": {
            "chosen": chosen["values"],
            "valid": chosen["valid"],
            "ranges": {name: list(limits) for name, limits in settings.ranges.items()},
            "trials": chosen["trials"],
        },
    }
    return write_run(run, results, task=run.recipe.task, metrics=recorded_metrics(run), details=details)


def _layer(recipe: Any) -> dict[str, Any]:
    """What a table says about the layer: its kind, sizes and, where it has them, its scales."""
    model = recipe.model
    layer: dict[str, Any] = {
        "recurrent": model.recurrent,
        "hidden_size": model.hidden_size,
        "num_layers": model.num_layers,
    }
    if model.recurrent == "statistical-ru":
        layer |= {"num_stats": model.num_stats, "recur_size": model.recur_size, "alphas": list(model.alphas)}
    return layer


def line_of(made: dict[str, Any]) -> str:
    """What a person reads about one run."""
    metrics = made["metrics"]
    scores = "  ".join(f"{name} {metrics[name]:.4f}" for name in metrics if name.startswith("test_"))
    return (
        f"{made['row']} seed {made['seed']}: {scores}  ({metrics['parameters']:,} weights,"
        f" {metrics['seconds_per_epoch']:.1f} s an epoch)"
    )
