"""The tasks that `karui train` knows, and what each is made of; nothing here imports torch."""

import importlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from karui.errors import UserError


class TaskEntry(NamedTuple):
    """One task: the recipe it begins with, the one of `--sparse` (None where nothing is made sparse), its classes."""

    recipe: str
    sparse_recipe: str | None
    recipe_class: str
    task_class: str


_CLASSIFY_RECIPE = "classification.ClassificationRecipe"
TASKS = {
    "classify": TaskEntry(
        "classification", "classification-sparse", _CLASSIFY_RECIPE, "classification.ClassificationTask"
    ),
    "pixels": TaskEntry("pixels", None, "sequences.PixelRecipe", "pixels.PixelTask"),
    "images": TaskEntry("images", "images-sparse", "images.ImageRecipe", "images.ImageTask"),
    "music": TaskEntry("music", None, "sequences.MusicRecipe", "music.MusicTask"),
    "adding": TaskEntry("adding", None, "sequences.AddingRecipe", "adding.AddingTask"),
    "copy": TaskEntry("copy", None, "sequences.CopyRecipe", "copying.CopyTask"),
    "lm": TaskEntry("lm", "lm-sparse", "language.LanguageRecipe", "language.LanguageTask"),
}

MONITORS = {
    "classify": ("accuracy", "nll"),
    "pixels": ("accuracy", "nll"),
    "images": ("accuracy", "nll"),
    "music": ("nll",),
    "adding": ("mse",),
    "copy": ("accuracy", "nll"),
    "lm": ("nll", "perplexity"),
}
"""Figures of a task that `train.monitor` may name; characters have "bpc" in place of "perplexity"."""

CLASSIFY_ONLY = ("data.text", "data.label", "model.directions")
"""Settings that have an option of their own and that only classification knows (data.text: and language modelling)."""

LANGUAGE_ONLY = ("data.level", "model.output")
"""Settings that have an option of their own and that only language modelling knows."""


def entry_of(task: str) -> TaskEntry:
    """Return a task by name; raises UserError for one that is not known."""
    if task not in TASKS:
        raise UserError(f"cannot train {task!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[task]


def recipe_class(task: str) -> type[Any]:
    """Return the class of a task's recipes."""
    return _find("karui.recipes", entry_of(task).recipe_class)


def make_task(task: str, recipe: Any) -> Any:
    """Build the task of a recipe: read its data and make the untrained model."""
    _refuse_monitor(task, recipe)
    groups = [recipe.data, recipe.model, recipe.sparse]
    cls = _find("karui.tasks", entry_of(task).task_class)
    if task == "classify":
        return cls(*groups, seed=recipe.train.seed)
    own = {"max_epochs": recipe.train.max_epochs} if task == "lm" else {}
    try:
        return cls(*groups, seed=recipe.train.seed, **own)
    except ValueError as error:  # a layer refuses an option: gate_bias must be none for statistical-ru, ...
        raise UserError(f"model.{error}") from error


def hold(task: Any) -> None:
    """Hold the model of a task to the target of its recipe, where there is one.

    Raises:
        UserError: the model cannot come so low.
    """
    if not task.sparse.has_target:
        return
    measure, target = None, task.sparse.target  # None where each layer has its own
    kind = None if target is None else target.kind
    if kind == "size":
        from karui.compact.measure import bytes_of_task

        measure = bytes_of_task(task)
    elif kind == "flops":
        from karui.sparse.flops import FlopCount

        measure = task.flops if hasattr(task, "flops") else FlopCount.of_step(task.model)
    task.hold(measure)


def _refuse_monitor(task: str, recipe: Any) -> None:
    """Raise UserError where the figure to watch is none of the task's, before an epoch is spent on it."""
    known = MONITORS[task]
    if task == "lm" and recipe.data.level == "char":
        known = ("nll", "bpc")
    if recipe.train.monitor not in known:
        names = " or ".join(known)
        raise UserError(f"train.monitor must be {names} for {task}, got {recipe.train.monitor!r}")


def task_of_recipe(recipe: Any) -> str:
    """Return the name of the task that a recipe belongs to."""
    return getattr(recipe, "task", "classify")


def task_of_run(run_dir: Path) -> str:
    """Return the name of the task that a run folder was trained on.

    Raises:
        UserError: the folder holds no readable `config.json`, or names a task that is not known.
    """
    path = run_dir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}; name a run folder that `karui train` wrote") from error
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}; it must be JSON as `karui train` writes it") from error
    task = config.get("task", "classify") if isinstance(config, dict) else None
    if task not in TASKS:
        raise UserError(f"{path}: names the task {task!r}; the tasks are {', '.join(TASKS)}")
    return task


def _find(package: str, dotted: str) -> Any:
    module, _, name = dotted.partition(".")
    return getattr(importlib.import_module(f"{package}.{module}"), name)
