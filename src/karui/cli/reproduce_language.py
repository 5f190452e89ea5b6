"""`karui reproduce language-model`: the recipes of language models as they are, seed by seed."""

from pathlib import Path
from typing import Any

from karui.cli.reproduce_runs import FinishedRun, details_of, recorded_metrics, write_run

TABLE = "language-model"
SPARSE_TASK, SPARSE_FOLDER = "sparse-lm", "sparse_language"
"""Task of the records of sparse models, and their folder below that of all results."""


def record(run: FinishedRun, results: Path) -> dict[str, Any]:
    """Write the record of a finished run; return what a person is told of it.

    A sparse model is compacted, and its record tells of the file as well.
    """
    from karui.cli.language_delivery import delivered_metrics

    recipe, metrics = run.recipe, recorded_metrics(run)
    model, method = recipe.model, recipe.sparse.method
    own: dict[str, Any] = {}
    if method != "none":
        del metrics["parameters"]  # those of the noise among them
        metrics |= {"density": run.found["metrics"]["density"], **delivered_metrics(recipe, run.out)}
        own = {"model": f"{model.recurrent}-{model.hidden_size}", "method": method}
    layer = {name: getattr(model, name) for name in ("recurrent", "hidden_size", "num_layers")}
    protocol = {
        "level": recipe.data.level,
        "state": "carried over the whole part",
        "tokens": "every token and every end of a line",
    }
    return write_run(
        run,
        results / SPARSE_FOLDER if own else results,
        task=SPARSE_TASK if own else "lm",
        metrics=metrics,
        details=details_of(run, "threads", "accelerator", "precision", **own, layer=layer, protocol=protocol),
    )


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
