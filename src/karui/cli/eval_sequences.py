"""`karui eval RUN` for runs of pixels, music, adding and copy: the metrics of the task, nothing about texts."""

from pathlib import Path
from typing import Any

from karui.cli.task_table import make_task, recipe_class
from karui.errors import UserError


def evaluate_run(run_dir: Path, task_name: str, split: str) -> dict[str, Any]:
    """Return `model`, `data`, `subset`, `split` and the metrics of a finished run on "valid" or "test".

    Raises:
        UserError: the run is not finished or damaged, or the split is the training part.
    """
    if split == "train":
        raise UserError(f"{run_dir} is a run of karui train {task_name}: its splits are test and valid")
    import torch

    from karui.recipes import base
    from karui.train.checkpoint import FINAL, check_matches, load_weights
    from karui.train.device import make_fabric

    recipe: Any = base.load(recipe_class(task_name), run_dir / "config.json")
    weights = load_weights(run_dir)
    task = make_task(task_name, recipe)
    check_matches(weights, task.model.state_dict(), run_dir / "checkpoints" / FINAL)
    task.model.load_state_dict(weights)
    fabric = make_fabric(recipe.train)
    task.model.to(fabric.device).eval()
    with torch.no_grad(), fabric.autocast():
        metrics = task.evaluate(split)
    return {
        "model": str(run_dir),
        "data": recipe.data.name,
        "subset": bool(task.subset),
        "split": split,
        **metrics,
    }


def page(result: dict[str, Any]) -> str:
    """What a person reads."""
    shown = "   ".join(
        f"{name} {value:.2%}" if name == "accuracy" else f"{name} {value:.4f}"
        for name, value in result.items()
        if isinstance(value, float)
    )
    return f"{result['model']} on {result['data']}, {result['split']}\n{shown}"
