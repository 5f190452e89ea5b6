"""`karui reproduce`: make a published row again, seed by seed, and record what came out beside what was expected."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from karui.cli import (
    reproduce_images,
    reproduce_imdb,
    reproduce_language,
    reproduce_outputs,
    reproduce_rows,
)
from karui.cli.reproduce_runs import compact_run, make_row
from karui.errors import UserError

TABLES = ("classification", *reproduce_rows.TABLES)
DEFAULT_SEEDS = (0, 1, 2)
DENSE_PATIENCE = 3  # evaluations without a better validation accuracy before the dense rival stops


def reproduce(
    table: Annotated[str, typer.Argument(help=f"Table: {', '.join(TABLES)}.", show_default=False)],
    row: Annotated[
        str | None,
        typer.Argument(
            help="A row, which is a recipe's name, or the beginning of several; a table's own if left out."
        ),
    ] = None,
    *,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas; a row's own if left out (0,1,2).")
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Folder of the run folders; finished runs are taken as they are.")
    ] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Folder that gets one record a row and seed.")] = Path(
        "results"
    ),
    accelerator: Annotated[
        str,
        typer.Option(
            help="Device of the rows of pixel-mnist, music, language-model and sparse-images: cpu, cuda, mps or auto."
        ),
    ] = "cpu",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of their final runs; a row's own if left out.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Rows of output-comparison made at a time, one thread each.")
    ] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")] = False,
) -> None:
    """Train and record the rows of a table; a row that was stopped goes on where it stood.

    classification: each row and seed is one sparse run and one dense run of the same recipe, compacted within the
    recipe's `expect.artifact_bytes`. pixel-mnist, music: short trials choose the settings of a row on validation, the
    same number for every row; then each seed is trained and its test part opened once. language-model:
    the recipes as they are, without a search. sparse-images: the same, each network compacted into a file that is
    tested. sparse-imdb: the same of a classifier of film reviews. output-comparison: each output layer on a text by the
    clock, and alone at 793,471 classes; about an hour on two idle cores.
    """
    if table not in TABLES:
        raise UserError(f"no table {table!r}; the tables are {', '.join(TABLES)}")
    numbers = _seeds(seeds)
    made = []
    if table == reproduce_outputs.TABLE:
        if seeds or epochs or accelerator != "cpu":
            raise UserError(
                f"{table} is measured on the CPU, by the clock: it takes no seeds, epochs or accelerator"
            )
        rows = reproduce_rows.rows_of(table, row)
        made = reproduce_outputs.make_rows(rows, results=results, jobs=jobs, quiet=as_json)
        if not as_json:
            typer.echo("\n".join(map(reproduce_outputs.line_of, made)))
    elif table == "classification":
        for recipe in _classification_rows(row):
            for seed in numbers or DEFAULT_SEEDS:
                made.append(_make(recipe, seed, runs, results))
                if not as_json:
                    typer.echo(_line(made[-1]))
    else:
        own = {module.TABLE: module for module in (reproduce_language, reproduce_images, reproduce_imdb)}
        module = own.get(table, reproduce_rows)
        make = partial(make_row, own[table].record) if table in own else reproduce_rows.make_row
        for chosen in reproduce_rows.rows_of(table, row).values():
            made += make(
                chosen,
                numbers,
                runs=runs,
                results=results,
                accelerator=accelerator,
                epochs=epochs,
                quiet=as_json,
            )
            if not as_json:
                typer.echo("\n".join(map(module.line_of, made[-len(numbers or chosen.seeds) :])))
    if as_json:
        typer.echo(json.dumps(made))


def _seeds(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UserError(f"seeds must be whole numbers separated by commas, got {text!r}") from None


def _classification_rows(row: str | None) -> list[Any]:
    """Return the recipes that say what they expect, or the one that is named."""
    from karui import recipes

    found = {name: recipes.get(name) for name in recipes.names()}
    known = [
        name
        for name, recipe in found.items()
        if not hasattr(recipe, "task") and getattr(recipe, "expect", None)
    ]
    if row is not None and row not in known:
        raise UserError(f"no row {row!r} in classification; the rows are {', '.join(known)}")
    return [recipes.get(name) for name in (known if row is None else [row])]


def _make(recipe: Any, seed: int, runs: Path, results: Path) -> dict[str, Any]:
    """Run both sides of a row and write its record."""
    train = dataclasses.replace(recipe.train, seed=seed)
    sparse_dir = runs / f"{recipe.name}-seed{seed}"
    _train(dataclasses.replace(recipe, train=train), sparse_dir)
    dense_recipe = _dense(recipe, train)
    dense_dir = runs / f"{dense_recipe.name}-seed{seed}"
    _train(dense_recipe, dense_dir)
    sparse = compact_run(sparse_dir, max_bytes=int(recipe.expect["artifact_bytes"]))
    dense = compact_run(dense_dir)
    metrics = {
        "test_accuracy": sparse["test_accuracy"],
        "valid_accuracy": sparse["valid_accuracy"],
        "artifact_bytes": sparse["artifact_bytes"],
        "words_kept": sparse["words_kept"],
        "us_per_document": sparse["us_per_document"],
        "dense_accuracy": dense["test_accuracy"],
        "dense_bytes": dense["artifact_bytes"],
        "dense_us_per_document": dense["us_per_document"],
    }
    from karui.report.records import write_record

    subset = bool(json.loads((sparse_dir / "results.json").read_text(encoding="utf-8"))["subset"])
    path = write_record(
        results,
        task="classification",
        data=recipe.data.name,
        subset=subset,
        recipe=recipe.name,
        seed=seed,
        metrics=metrics,
    )
    return {
        "row": recipe.name,
        "seed": seed,
        "record": str(path),
        "expect": recipe.expect,
        "metrics": metrics,
    }


def _dense(recipe: Any, train: Any) -> Any:
    """The same model without sparsity, stopped early; rows of one data set that differ in size only share it."""
    defaults = type(train)()
    return dataclasses.replace(
        recipe,
        name=f"{recipe.data.name}-dense",
        sparse=type(recipe.sparse)(),
        train=dataclasses.replace(
            train,
            keep="best",
            patience=DENSE_PATIENCE,
            penalty_weight=defaults.penalty_weight,
            penalty_ramp=defaults.penalty_ramp,
        ),
        expect={},
    )


def _train(recipe: Any, out: Path) -> None:
    """Train or resume a recipe in its folder, as `karui train` would."""
    from karui.cli.train import train_run

    train_run(recipe, out, quiet=True)


def _line(made: dict[str, Any]) -> str:
    figures, expect = made["metrics"], made["expect"]
    return (
        f"{made['row']} seed {made['seed']}: {figures['test_accuracy']:.2%} in {figures['artifact_bytes']:,} bytes "
        f"({figures['words_kept']} words); expected {expect['test_accuracy']:.1%} in {int(expect['artifact_bytes']):,}"
    )
