"""`karui reproduce sparse-imdb`: classifiers of film reviews, dense and sparse: trained, compacted, tested."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from karui.cli.reproduce_rows import TRAINED_WITH, compact_run, seconds_per_epoch, train_seeds

TABLE = "sparse-imdb"
FOLDER = "sparse_imdb"
"""Folder of the records below that of all results."""

MOST_LEVELS = 127
WORDS_LISTED = 300
"""A model that keeps at most so many words has them in its record."""


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
    """Train a row for each seed, deliver it as a file, test that, write the records; what is finished stays as it is.

    Raises:
        UserError: a run folder holds a run of other settings, or no file fits the size asked for.
    """
    trained = train_seeds(
        row.recipe, seeds or row.seeds, runs=runs, accelerator=accelerator, epochs=epochs, quiet=quiet
    )
    return [record(recipe, found, out, results, max_bytes=row.max_bytes) for recipe, found, out in trained]


def record(
    recipe: Any, found: dict[str, Any], out: Path, results: Path, *, max_bytes: int | None = None
) -> dict[str, Any]:
    """Write file and record of a finished run, whose `results.json` is `found`; return what a person is told.

    max_bytes: budget of a file that was not trained to a size.
    """
    from karui.recipes.base import to_dict
    from karui.report.records import write_record

    metrics = delivered_metrics(recipe, out, max_bytes=max_bytes)
    metrics |= {
        "train_minutes": found["metrics"]["train_minutes"],
        "seconds_per_epoch": seconds_per_epoch(out / "metrics.jsonl"),
    }
    path = write_record(
        results / FOLDER,
        task="sparse-classification",
        data=recipe.data.name,
        subset=found["subset"],
        recipe=recipe.name,
        seed=recipe.train.seed,
        metrics=metrics,
        details={
            **{name: found[name] for name in TRAINED_WITH},
            "model": model_name(recipe.model),
            "method": recipe.sparse.method,
            "budget": {"epochs": recipe.train.max_epochs, "threads": recipe.train.threads},
            "settings": to_dict(recipe),
            **_words(out, metrics["words_kept"]),
        },
    )
    return {"row": recipe.name, "seed": recipe.train.seed, "record": str(path), "metrics": metrics}


def delivered_metrics(recipe: Any, out: Path, *, max_bytes: int | None = None) -> dict[str, Any]:
    """Compact a run into `model.karui` as `karui compact` does, and say what that file is and does."""
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
