"""`karui reproduce language-model`: the recipes of language models as they are, seed by seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from karui.cli.reproduce_rows import TRAINED_WITH, recorded_metrics, train_seeds

TABLE = "language-model"
SPARSE_TASK, SPARSE_FOLDER = "sparse-lm", "sparse_language"
"""Task of the records of sparse models, and their folder below that of all results."""


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
    """Train a row for each seed, open the test part once a seed, write the records; what is finished stays as it is.

    Raises:
        UserError: a run folder holds a run of other settings.
    """
    trained = train_seeds(
        row.recipe, seeds or row.seeds, runs=runs, accelerator=accelerator, epochs=epochs, quiet=quiet
    )
    return [record(recipe, found, out, results) for recipe, found, out in trained]


def record(recipe: Any, found: dict[str, Any], out: Path, results: Path) -> dict[str, Any]:
    """Write the record of a finished run, whose `results.json` is `found`; return what a person is told of it.

    A sparse model is compacted, and its record tells of the file as well.
    """
    from karui.cli.language_delivery import delivered_metrics
    from karui.recipes.base import to_dict
    from karui.report.records import write_record

    metrics = recorded_metrics(found, out)
    model, train, method = recipe.model, recipe.train, recipe.sparse.method
    own: dict[str, Any] = {}
    if method != "none":
        del metrics["parameters"]  # those of the noise among them
        metrics |= {"density": found["metrics"]["density"], **delivered_metrics(recipe, out)}
        own = {"model": f"{model.recurrent}-{model.hidden_size}", "method": method}
    path = write_record(
        results / SPARSE_FOLDER if own else results,
        task=SPARSE_TASK if own else "lm",
        data=recipe.data.name,
        subset=found["subset"],
        recipe=recipe.name,
        seed=train.seed,
        metrics=metrics,
        details={
            **{name: found[name] for name in TRAINED_WITH},
            **own,
            "layer": {
                "recurrent": model.recurrent,
                "hidden_size": model.hidden_size,
                "num_layers": model.num_layers,
            },
            "protocol": {
                "level": recipe.data.level,
                "state": "carried over the whole part",
                "tokens": "every token and every end of a line",
            },
            "budget": {
                "epochs": train.max_epochs,
                "threads": train.threads,
                "accelerator": train.accelerator,
                "precision": train.precision,
            },
            "settings": to_dict(recipe),
        },
    )
    return {"row": recipe.name, "seed": train.seed, "record": str(path), "metrics": metrics}


def line_of(made: dict[str, Any]) -> str:
    """What a person reads about one run."""
    metrics = made["metrics"]
    scores = "  ".join(
        f"{name} {metrics[name]:.4f}" for name in metrics if name.startswith(("test_", "valid_"))
    )
    size = f"{metrics.get('parameters', metrics.get('kept_params')):,} weights"
    if "compression" in metrics:
        size += f", {metrics['compression']:.1f} times fewer, {metrics['artifact_bytes']:,} bytes"
    return f"{made['row']} seed {made['seed']}: {scores}  ({size}, {metrics['train_minutes']:.1f} min)"
