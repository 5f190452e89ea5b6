"""`karui train`: recipe, run folder, training, one evaluation on the test split, report."""

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from karui.cli.task_table import (
    CLASSIFY_ONLY,
    LANGUAGE_ONLY,
    TASKS,
    entry_of,
    hold,
    make_task,
    recipe_class,
    task_of_recipe,
    task_of_run,
)
from karui.errors import UserError
from karui.files import atomic_write

CONFIG_FILE = "config.json"
RESULTS_FILE = "results.json"
SCORES = ("accuracy", "nll", "mse", "perplexity", "bpc")
USUAL_METHOD = "vd"  # of a target without --sparse
FEW_STEPS = 300  # below, a model on easy texts is still near where it began, a sparse one more so


def _list_settings(task: str) -> None:
    from karui.recipes.base import fields_of

    for line in fields_of(recipe_class(task)):
        typer.echo(f"{line.name}={line.default}  ({line.type})\n    {line.doc}")


def train(
    task: Annotated[
        str | None, typer.Argument(help=f"What to train: {', '.join(TASKS)}.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="Run folder to write; required.")] = None,
    data: Annotated[str | None, typer.Option(help="Named data set, file or folder.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Named recipe to begin with.")] = None,
    recurrent: Annotated[
        str | None, typer.Option(help="sru, statistical-ru, lstm, gru, qrnn, mingru, or none.")
    ] = None,
    directions: Annotated[int | None, typer.Option(help="1, or 2 to read backward as well.")] = None,
    level: Annotated[str | None, typer.Option(help="lm: word or char.")] = None,
    output: Annotated[
        str | None, typer.Option(help="lm: output layer and loss, such as full, sampled, nce or adaptive.")
    ] = None,
    sparse: Annotated[
        str | None,
        typer.Option(help="l0 (hard concrete gates), vd (sparse variational dropout), magnitude, or none."),
    ] = None,
    target_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="At most so many bytes in the file of karui compact, such as 50kB."
        ),
    ] = None,
    target_density: Annotated[
        float | None, typer.Option(help="Kept weights / weights that can be pruned (no biases, no norms).")
    ] = None,
    target_params: Annotated[
        int | None, typer.Option(help="Numbers stored: kept weights, and all biases, norms and dense layers.")
    ] = None,
    target_flops: Annotated[
        float | None,
        typer.Option(help="FLOPs of one step's matrix products (a token, a pixel), two a kept weight."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Any setting of the recipe.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training examples.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    list_settings: Annotated[
        bool, typer.Option("--settings", help="List every setting of the task for --set.")
    ] = False,
) -> None:
    """Train a model into a run folder.

    classify: labelled texts. pixels: MNIST, one pixel a step. music: the next notes of piano rolls. adding, copy:
    problems of long memory. lm: a language model of a running text. --label and --directions are for classify,
    --level and --output for lm, --text for both. A --target, one at most, takes the place of the penalty's weight:
    what is measured and kept has this size; without --sparse it prunes by vd.
    """
    if list_settings:
        _list_settings(task or "classify")
        return
    if task is None:
        raise UserError(f"train: name a task; the tasks are {', '.join(TASKS)} (karui train --help)")
    entry = entry_of(task)
    if out is None:
        raise UserError("train: missing option '--out', the run folder to write (karui train --help)")
    options = {
        "data.name": data,
        "data.text": text,
        "data.label": label,
        "model.recurrent": recurrent,
        "model.directions": directions,
        "data.level": level,
        "model.output": output,
        "sparse.method": sparse,
        "sparse.target_size": target_size,
        "sparse.target_density": target_density,
        "sparse.target_params": target_params,
        "sparse.target_flops": target_flops,
        "train.max_epochs": epochs,
        "train.seed": seed,
    }
    given = {name: value for name, value in options.items() if value is not None}
    for owner, names in (("classify", CLASSIFY_ONLY), ("lm", LANGUAGE_ONLY)):
        wrong = [name for name in names if name in given and task != owner]
        wrong = [name for name in wrong if (task, name) != ("lm", "data.text")]
        if wrong:
            raise UserError(f"{wrong[0]} is a setting of {owner}; {task} has none of that name")
    overrides = [f"{name}={value}" for name, value in given.items()]
    has_target = any(name.startswith("sparse.target_") for name in given)
    is_sparse = has_target if sparse is None else sparse != "none"
    default = (entry.sparse_recipe if is_sparse else None) or entry.recipe
    chosen = _open_run(default, out, recipe, [*overrides, *(settings or [])], resume=resume)
    say = _silent if quiet else _say
    if (out / RESULTS_FILE).exists():
        say(f"{out} is already finished; nothing to do")
        results = json.loads((out / RESULTS_FILE).read_text(encoding="utf-8"))
    else:
        results = _train(chosen, out, resume=resume, quiet=quiet)
        _write_report(out)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in results["metrics"].items())
        say(f"{shown}\nnext: karui {_next(task, out, is_small=chosen.sparse.method != 'none')}")
    if as_json:
        typer.echo(json.dumps(results))


def _next(task: str, out: Path, *, is_small: bool) -> str:
    """What one may do with the run, as a command."""
    if task == "classify" or (is_small and task == "lm"):
        return f"compact {out} -o model.karui"
    return f"compact {out} -o model.safetensors" if is_small else f"eval {out}"


def _with_method(recipe: Any, overrides: list[str]) -> list[str]:
    """The overrides, and the usual method where they hold a dense recipe to a target."""
    named = {name for name, equals, _ in (each.partition("=") for each in overrides) if equals}
    has_target = any(name.startswith("sparse.target_") for name in named)
    if not has_target or "sparse.method" in named or recipe.sparse.method != "none":
        return overrides
    return [f"sparse.method={USUAL_METHOD}", *overrides]


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
    if type(begin) is not type(recipes.get(default)):
        raise UserError(f"the recipe {name} is of the task {task_of_recipe(begin)}, not of this one")
    overrides = _with_method(begin, overrides)
    if not config.exists():
        out.mkdir(parents=True, exist_ok=True)  # before the data are read: a wrong --out shows at once
        return base.with_overrides(begin, overrides)
    if (trained := task_of_run(out)) != task_of_recipe(begin):
        raise UserError(f"{out} holds a run of karui train {trained}; name another folder")
    stored = base.load(type(begin), config)
    chosen = base.with_overrides(stored if name is None else begin, overrides)
    difference = first_difference(base.to_dict(stored), base.to_dict(chosen))
    if difference is not None:
        raise UserError(
            f"cannot resume {out} with another recipe: {difference}; leave it out, or use a new folder"
        )
    return stored


def train_run(recipe: Any, out: Path, *, quiet: bool) -> dict[str, Any]:
    """Train a recipe in its folder, resume it, or take it as it is; return what `results.json` holds.

    Raises:
        UserError: the folder holds a run of other settings.
    """
    from karui.recipes import base

    config = out / CONFIG_FILE
    if not config.exists():
        out.mkdir(parents=True, exist_ok=True)
        base.save(recipe, config)
    if base.load(type(recipe), config) != recipe:
        raise UserError(f"{out} holds a run of other settings; name another --runs folder or remove it")
    if (out / RESULTS_FILE).exists():
        return json.loads((out / RESULTS_FILE).read_text(encoding="utf-8"))
    results = _train(recipe, out, resume=True, quiet=quiet)
    _write_report(out)
    return results


def _train(recipe: Any, out: Path, *, resume: bool, quiet: bool) -> dict[str, Any]:
    """Train, open the test split once, and write `results.json`."""
    from karui.recipes.base import save
    from karui.report.records import surroundings
    from karui.train import fit
    from karui.train.device import make_fabric

    make_fabric(recipe.train)  # a device or precision that is missing, bad data: the folder stays empty
    name = task_of_recipe(recipe)
    task = make_task(name, recipe)
    hold(task)
    splits = getattr(task, "splits", task)  # of the texts of a user; the other tasks say it themselves
    for note in [] if quiet else splits.notes:
        _say(note)
    if not (out / CONFIG_FILE).exists():
        save(recipe, out / CONFIG_FILE)
    if hasattr(task, "save_artifacts"):
        task.save_artifacts(out)
    # As it stands in the file: a setting that a later version of karui adds is no difference.
    config = json.loads((out / CONFIG_FILE).read_text(encoding="utf-8"))
    result = fit(task, recipe.train, out, resume=resume, recipe=config, quiet=quiet)
    metrics = {f"valid_{key}": value for key, value in result.metrics.items() if key in SCORES}
    metrics |= {key: value for key, value in result.metrics.items() if f"valid_{key}" not in metrics}
    if getattr(splits, "test", True) is not None:
        metrics |= {f"test_{key}": value for key, value in _evaluate_test(task, recipe).items()}
    elif not quiet:
        _say(f"{recipe.data.name} has no test part: only validation figures are reported")
    if not quiet and result.steps < FEW_STEPS and not result.stopped_early:
        _say(f"{result.steps} steps are few; more --epochs or a smaller --set data.batch_size often help")
    metrics["best_epoch"] = result.epoch
    metrics["train_minutes"] = round(result.seconds / 60, 3)
    if name != "classify":
        metrics["parameters"] = sum(weight.numel() for weight in task.model.parameters())
    results = {
        "task": "classification" if name == "classify" else name,
        "data": recipe.data.name,
        "subset": bool(splits.subset),
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
