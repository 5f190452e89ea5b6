"""`karui report`: the table of runs or of recorded results, and the page `report.html` of each run."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from karui.errors import UserError


def report(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders.", show_default=False)] = None,
    *,
    dense: Annotated[
        Path | None, typer.Option(help="A run trained without --sparse, to compare with.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Measure (again) what one would take instead.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="Folder of result records, to print their table.")
    ] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Rewrite the table between the result markers of this file.")
    ] = None,
    pages: Annotated[
        Path | None, typer.Option(help="Rewrite the generated pages of this folder, such as docs.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail when --readme or --pages differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")] = False,
) -> None:
    """Print result tables and write report.html.

    For run folders: dense and compact files beside what one would take instead, and the page of each run. With
    --results: the table of all records below a folder; --readme and --pages write what is generated from them.
    """
    if not runs and results is None:
        raise UserError("nothing to report: name run folders, or --results DIR")
    if readme is not None and results is None:
        raise UserError("--readme needs --results DIR, the records its table is made from")
    if pages is not None and results is None:
        raise UserError("--pages needs --results DIR, the records its pages are made from")
    reported = [_report_run(run, dense, measure=baselines) for run in runs or []]
    recorded = None if results is None else _report_results(results, readme, check=check)
    if pages is not None and results is not None:
        _update_pages(pages, results, check=check)
    if as_json:
        typer.echo(
            json.dumps({"runs": [content for content, _ in reported], "results": recorded and recorded[0]})
        )
    else:
        shown = [page for _, page in reported] + ([recorded[1]] if recorded else [])
        typer.echo("\n\n".join(shown))


def _report_run(path: Path, dense_path: Path | None, *, measure: bool) -> tuple[dict[str, Any], str]:
    """Write the page of a run; return its figures for machines, and what to print."""
    from karui.report import load_run, run_table, write_report
    from karui.report.tables import dense_of

    run = load_run(path)  # refuses what is no run before minutes are spent on it
    if (task := run.results.get("task", "classification")) != "classification":
        return _report_other(run, task, is_compared=measure or dense_path is not None)
    dense = None if dense_path is None else _load_dense(dense_path, run.data_name)
    if measure:
        _measure(path)
    page = write_report(path, dense_dir=dense_path)
    run = load_run(path)
    content = {
        "run": str(path),
        "report": str(page),
        "data": run.data_name,
        "dense": dense_of(run, dense),
        "files": run.files,
        "baselines": (run.baselines or {}).get("points", []),
    }
    title = " · ".join(part for part in (str(path), run.data_name, run.recipe_name) if part)
    return content, f"{title}\n{run_table(run, dense).to_terminal()}\n{page}"


def _report_other(run: Any, task: str, *, is_compared: bool) -> tuple[dict[str, Any], str]:
    """The same for a run of another task than classification: its figures, without rivals."""
    from karui.report import write_report

    if is_compared:
        raise UserError(
            f"{run.path} is a run of karui train {task}: --dense and --baselines are for text classifiers"
        )
    page = write_report(run.path)
    metrics = run.results.get("metrics", {})
    content = {"run": str(run.path), "report": str(page), "data": run.data_name, "metrics": metrics}
    title = " · ".join(part for part in (str(run.path), run.data_name, run.recipe_name) if part)
    lines = [f"{name:<20} {value:.6g}" for name, value in metrics.items()]
    return content, "\n".join([title, *lines, str(page)])


def _load_dense(path: Path, data: str) -> Any:
    """Read the run to compare with; refuse one of other data, or one without a file to measure by."""
    from karui.report import load_run
    from karui.report.tables import dense_of

    dense = load_run(path)
    if dense.data_name != data:
        raise UserError(f"{path} was trained on {dense.data_name}, not on {data}; give --dense a run of that")
    if dense_of(dense, dense) is None:
        raise UserError(f"{path} has no compact file; karui compact {path} -o dense.karui makes one")
    return dense


def _report_results(results: Path, readme: Path | None, *, check: bool) -> tuple[list[dict[str, Any]], str]:
    """Return the records below a folder and their table; bring a README up to date where one is named."""
    from karui.report import read_records, update_readme
    from karui.report.readme import TABLES

    if not results.is_dir():
        raise UserError(f"{results} is no folder; give the folder that holds the records, such as results")
    records = read_records(results)
    differed = readme is not None and update_readme(readme, results, check=check)
    if differed and check:
        raise UserError(
            f"{readme}: its result table is out of date; karui report --results {results} --readme {readme}"
        )
    tables = [table.to_terminal() for make in TABLES.values() if (table := make(records)).rows]
    return records, "\n\n".join(tables) or f"no record of a classifier below {results}"


def _update_pages(pages: Path, results: Path, *, check: bool) -> None:
    """Bring the generated pages up to date, or refuse where they are not."""
    from karui.report.comparison_page import update_pages
    from karui.report.image_page import update_image_page
    from karui.report.review_page import update_review_page
    from karui.report.sparse_language import update_sparse_language

    updates = (update_pages, update_image_page, update_review_page, update_sparse_language)
    differed = [name for update in updates for name in update(pages, results, check=check)]
    if differed and check:
        names = ", ".join(str(pages / name) for name in differed)
        raise UserError(f"{names}: out of date; karui report --results {results} --pages {pages}")


def _measure(path: Path) -> None:
    """Measure the rivals on the splits of a run and write `baselines.json` into it."""
    from karui.cli.runs import refuse_sequences
    from karui.recipes import base
    from karui.recipes.classification import ClassificationRecipe
    from karui.tasks.baseline import baselines, save_baselines
    from karui.tasks.classification import load_data

    refuse_sequences(path)
    recipe = base.load(ClassificationRecipe, path / "config.json")
    sys.stderr.write("measuring the baselines ...\n")
    seed = recipe.train.seed
    save_baselines(path, baselines(load_data(recipe.data), seed=seed), seed=seed)
