"""`karui reproduce sparse-imdb`: classifiers of film reviews, dense and sparse: trained, compacted, tested."""

import json
from pathlib import Path
from typing import Any

from karui.cli.reproduce_runs import FinishedRun, compact_run, details_of, times_of, write_run

TABLE = "sparse-imdb"
FOLDER = "sparse_imdb"
"""Folder of the records below that of all results."""

MOST_LEVELS = 127
WORDS_LISTED = 300
"""A model that keeps at most so many words has them in its record."""


def record(run: FinishedRun, results: Path) -> dict[str, Any]:
    """Write file and record of a finished run; return what a person is told.

    Raises:
        UserError: no file fits the size asked for.
    """
    recipe = run.recipe
    metrics = {**delivered_metrics(recipe, run.out, max_bytes=run.row.max_bytes), **times_of(run)}
    model, method = model_name(recipe.model), recipe.sparse.method
    details = {
        **details_of(run, "threads", model=model, method=method),
        **_words(run.out, metrics["words_kept"]),
    }
    return write_run(run, results / FOLDER, task="sparse-classification", metrics=metrics, details=details)


def delivered_metrics(recipe: Any, out: Path, *, max_bytes: int | None = None) -> dict[str, Any]:
    """Compact a run into `model.karui` as `karui compact` does, and say what that file is and does.

    max_bytes: budget of a file that was not trained to a size.
    """
    from karui.cli.runs import open_run
    from karui.compact.convert import to_spec
    from karui.compact.counting import architecture, kept_numbers, matrix_flops
    from karui.runtime.reader import read
    from karui.sparse import density

    run = open_run(out)
    is_sparse, target = run.is_sparse, recipe.sparse.target
    # Without a size the values are those that sizes are measured with, so that files can be compared.
    levels = MOST_LEVELS if is_sparse and recipe.sparse.target_size is None else None
    made = compact_run(out, max_bytes=max_bytes, levels=levels)
    dense = to_spec(run.dense(), run.words, run.labels, max_tokens=run.max_tokens)
    small = read(out / "model.karui")
    tokens = run.max_tokens or 1
    flops, sparse_flops = matrix_flops(small, tokens)
    dense_flops, _ = matrix_flops(dense, tokens)
    return {
        "test_accuracy": made["test_accuracy"],
        "valid_accuracy": made["valid_accuracy"],
        "words_kept": made["words_kept"],
        "architecture": architecture(small),
        "kept_params": kept_numbers(small),
        "dense_params": sum(parameter.numel() for parameter in run.dense().parameters()),
        "density": density(run.model) if is_sparse else 1.0,
        "flops_ratio": flops / dense_flops,
        "sparse_flops_ratio": sparse_flops / dense_flops,
        "artifact_bytes": made["artifact_bytes"],
        "values": made["values"],
        "dense_bytes": made["dense"]["artifact_bytes"],
        "penalty_weight": recipe.train.penalty_weight,
        **({} if target is None else {f"target_{target.kind}": target.value}),
    }


def model_name(model: Any) -> str:
    """Such as bi-sru-16 over 32, by layer, units and width of the embedding."""
    directions = "bi-" if model.directions == 2 else ""
    return f"{directions}{model.recurrent}-{model.hidden_size} over {model.embedding_dim}"


def _words(out: Path, kept: int) -> dict[str, Any]:
    """The words of a model that keeps few, those that say most first, with the label they speak for."""
    if kept > WORDS_LISTED:
        return {}
    return {"words": json.loads((out / "compact.json").read_text(encoding="utf-8"))["words"]}


def line_of(made: dict[str, Any]) -> str:
    """What a person reads about one run."""
    metrics = made["metrics"]
    return (
        f"{made['row']} seed {made['seed']}: {metrics['test_accuracy']:.2%}, {metrics['words_kept']:,} words, "
        f"{metrics['density']:.2%} of the weights, {metrics['artifact_bytes']:,} of {metrics['dense_bytes']:,} bytes, "
        f"{metrics['train_minutes']:.1f} min"
    )
