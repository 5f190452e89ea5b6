"""`karui train`: recipe, run folder, training, one evaluation on the test split, report."""

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from karui.errors import UserError
from karui.files import atomic_write

# Task of the command line -> the recipe it begins with, dense and sparse.
TASKS = {"classify": ("classification", "classification-sparse")}
CONFIG_FILE = "config.json"
RESULTS_FILE = "results.json"
FEW_STEPS = 300  # below, a model on easy texts is still near where it began, a sparse one more so


def _list_settings(wanted: bool) -> None:
    if not wanted:
        return
    from karui.recipes.base import fields_of
    from karui.recipes.classification import ClassificationRecipe

    for line in fields_of(ClassificationRecipe):
        typer.echo(f"{line.name}={line.default}  ({line.type})\n    {line.doc}")
    raise typer.Exit


def train(
    task: Annotated[str, typer.Argument(help="What to train: classify.")],
    *,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    data: Annotated[str | None, typer.Option(help="Named data set, file or folder.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Named recipe to begin with.")] = None,
    recurrent: Annotated[str | None, typer.Option(help="sru, lstm, gru or none.")] = None,
    directions: Annotated[int | None, typer.Option(help="1, or 2 to read backward as well.")] = None,
    sparse: Annotated[str | None, typer.Option(help="vd (sparse variational dropout) or none.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Any setting of the recipe.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training examples.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    list_settings: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--settings", callback=_list_settings, is_eager=True, help="List every setting for --set."
        ),
    ] = False,
) -> None:
    """Train a model into a run folder."""
    if task not in TASKS:
        raise UserError(f"cannot train {task!r}; the tasks are {', '.join(TASKS)}")
    options = {
        "data.name": data,
        "data.text": text,
        "data.label": label,
        "model.recurrent": recurrent,
        "model.directions": directions,
        "sparse.method": sparse,
        "train.max_epochs": epochs,
        "train.seed": seed,
    }
    overrides = [f"{name}={value}" for name, value in options.items() if value is not None]
    default = TASKS[task][sparse not in (None, "none")]
    chosen = _open_run(default, out, recipe, [*overrides, *(settings or [])], resume=resume)
    say = _silent if quiet else _say
    if (out / RESULTS_FILE).exists():
        say(f"{out} is already finished; nothing to do")
        results = json.loads((out / RESULTS_FILE).read_text(encoding="utf-8"))
    else:
        results = _train(chosen, out, resume=resume, quiet=quiet)
        _write_report(out)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in results["metrics"].items())
        say(f"{shown}\nnext: karui compact {out} -o model.karui")
    if as_json:
        typer.echo(json.dumps(results))


def _open_run(default: str, out: Path, name: str | None, overrides: list[str], *, resume: bool) -> Any:
    """Return the recipe of a new run, or of the one to continue; refuse a folder that holds something else.

    default: the recipe that a new run begins with where none is named.
    """
    from karui import recipes
    from karui.recipes import base
    from karui.train.differences import first_difference

    config = out / CONFIG_FILE
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out names a folder")
    is_used = out.is_dir() and any(out.iterdir())
    if is_used and not resume:
        raise UserError(f"{out} is not empty; add --resume to continue that run, or name another folder")
    begin = recipes.get(default if name is None else name)
    if not config.exists():
        out.mkdir(parents=True, exist_ok=True)  # before the data are read: a wrong --out shows at once
        return base.with_overrides(begin, overrides)
    stored = base.load(type(begin), config)
    chosen = base.with_overrides(stored if name is None else begin, overrides)
    difference = first_difference(base.to_dict(stored), base.to_dict(chosen))
    if difference is not None:
        raise UserError(
            f"cannot resume {out} with another recipe: {difference}; leave it out, or use a new folder"
        )
    return stored


def _train(recipe: Any, out: Path, *, resume: bool, quiet: bool) -> dict[str, Any]:
    """Train, open the test split once, and write `results.json`."""
    from karui.recipes.base import save
    from karui.report.records import surroundings
    from karui.tasks.classification import ClassificationTask
    from karui.train import fit
    from karui.train.device import make_fabric

    make_fabric(recipe.train)  # a device or precision that is missing, bad data: the folder stays empty
    task = ClassificationTask(recipe.data, recipe.model, recipe.sparse, seed=recipe.train.seed)
    for note in [] if quiet else task.splits.notes:
        _say(note)
    if not (out / CONFIG_FILE).exists():
        save(recipe, out / CONFIG_FILE)
    task.save_artifacts(out)
    # As it stands in the file: a setting that a later version of karui adds is no difference.
    config = json.loads((out / CONFIG_FILE).read_text(encoding="utf-8"))
    result = fit(task, recipe.train, out, resume=resume, recipe=config, quiet=quiet)
    metrics = {
        f"valid_{name}": value for name, value in result.metrics.items() if name in ("accuracy", "nll")
    }
    metrics |= {name: value for name, value in result.metrics.items() if f"valid_{name}" not in metrics}
    if task.splits.test is not None:
        metrics |= {f"test_{name}": value for name, value in _evaluate_test(task, recipe).items()}
    elif not quiet:
        _say(f"{recipe.data.name} has no test part: only validation figures are reported")
    if not quiet and result.steps < FEW_STEPS and not result.stopped_early:
        _say(f"{result.steps} steps are few; more --epochs or a smaller --set data.batch_size often help")
    metrics["best_epoch"] = result.epoch
    metrics["train_minutes"] = round(result.seconds / 60, 3)
    results = {
        "task": "classification",
        "data": recipe.data.name,
        "subset": bool(task.splits.subset),
        "recipe": recipe.name,
        "seed": recipe.train.seed,
        **surroundings(),
        "metrics": metrics,
    }
    atomic_write(out / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    return results


def _evaluate_test(task: Any, recipe: Any) -> dict[str, float]:
    import torch

    from karui.train.device import make_fabric

    task.model.eval()
    with torch.no_grad(), make_fabric(recipe.train).autocast():
        return task.evaluate("test")


def _write_report(out: Path) -> None:
    """Write report.html where the report is installed; an error there is only shown."""
    try:
        write_report = getattr(importlib.import_module("karui.report"), "write_report", None)
        if write_report is not None:
            write_report(out)
    except Exception as error:  # noqa: BLE001 - the run is finished and saved, whatever the report meets
        _say(f"report.html was not written: {type(error).__name__}: {error}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _silent(line: str) -> None:  # noqa: ARG001 - same form as _say
    return
