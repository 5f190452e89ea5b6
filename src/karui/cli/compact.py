"""`karui compact`: shrink a trained run, prove that the answers stay, write the file, say where its bytes are."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from karui.cli.compact_language import compact_language_command
from karui.cli.compact_summary import Measured, page, summarise, write_summary
from karui.cli.compact_weights import compact_weights_command
from karui.cli.runs import TrainedRun, on_one_thread, open_run, us_per_document
from karui.cli.task_table import task_of_run
from karui.errors import UserError
from karui.files import atomic_write
from karui.targets import parse_size

POINTS = 0.3  # of validation accuracy that a text classifier may lose


def compact(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished training.", show_default=False)],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .karui or .safetensors file to write.")],
    values: Annotated[str, typer.Option(help="Stored values: auto, fp32, fp16 or int8.")] = "auto",
    levels: Annotated[
        int | None, typer.Option(help="Largest int8 magnitude of every matrix, 1 to 127.")
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Budget for the whole file, such as 20kB.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Without a budget: points of validation accuracy the file may lose (0.3), or percent by"
            " which a language model's perplexity may differ (0.1; 0 for a dense run).",
            show_default=False,
        ),
    ] = None,
    encoding: Annotated[str, typer.Option(help="auto: the smallest form for each matrix.")] = "auto",
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Keep recipe, data and seed inside the file.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Measure the rivals, once a run.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")] = False,
) -> None:
    """Shrink a trained run to one .karui file, exactly.

    Removes pruned words, dead units and columns, compares the file's answers with the masked model's on real texts
    and writes nothing if they differ. --values auto takes the coarsest rounding that validation texts do not
    notice; a dense run keeps fp32 then, to be what the others are compared with. A sparse language model takes the
    smallest values that change the perplexity of validation text by at most 0.1 %. A run of images, pixels, music,
    adding or copy becomes a safetensors file of its fp32 weights, in which zeros take next to nothing.
    """
    if encoding != "auto":
        raise UserError(
            f"encoding must be auto, got {encoding!r}: each matrix takes its smallest form (see --values)"
        )
    if not output.parent.is_dir():
        raise UserError(f"cannot write {output}: the folder {output.parent} does not exist; create it first")
    budget = _target_of(run, values, levels) if max_bytes is None else parse_bytes(max_bytes)
    if run.is_dir() and task_of_run(run) == "lm":
        line = compact_language_command(
            run, output, as_json=as_json, levels=levels,
            values=values, max_bytes=budget, tolerance=tolerance, provenance=provenance,
        )  # fmt: skip
        typer.echo(line)
        return
    if run.is_dir() and (task := task_of_run(run)) != "classify":
        if values != "auto" or levels is not None or tolerance is not None or provenance:
            raise UserError(
                f"a run of karui train {task} is stored in fp32: leave out values, levels, tolerance"
            )
        typer.echo(compact_weights_command(run, output, task, max_bytes=budget, as_json=as_json))
        return
    trained = open_run(run)
    from karui.compact.choose import Wish

    asked = None if values == "auto" else values
    if asked is None and levels is None and budget is None and not trained.is_sparse:
        asked = "fp32"
    wish = Wish(
        values=asked,
        levels=levels,
        max_bytes=budget,
        tolerance=(POINTS if tolerance is None else tolerance) / 100,
    )
    splits = _load_splits(trained)
    measured = _make(trained, splits, output, wish, provenance=_origin(trained) if provenance else {})
    summary = summarise(trained, output, measured, splits)
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else page(summary))
    try:
        write_summary(trained, summary, measured, splits)
        if baseline and trained.is_sparse:
            _measure_baselines(run, splits, seed=trained.recipe.train.seed)
        _write_report(run)
    except UserError as error:
        raise UserError(f"{output} is written; its entry in the run folder is not: {error}") from error


def parse_bytes(text: str) -> int:
    """Bytes of "20kB", "6000", "1.5 MB" or "4KiB".

    Raises:
        UserError: it is none of these.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise UserError(str(error)) from error


def _target_of(run: Path, values: str, levels: int | None) -> int | None:
    """The size that a run was trained to, which is its budget where nothing else is asked for; None: it has none."""
    config = run / "config.json"
    if values != "auto" or levels is not None or not config.is_file():
        return None
    try:
        size = json.loads(config.read_text(encoding="utf-8"))["sparse"]["target_size"]
        return None if size is None else parse_size(size)
    except (OSError, ValueError, LookupError, TypeError):  # older than targets, or damaged: others say so
        return None


def _load_splits(trained: TrainedRun) -> Any:
    from karui.tasks.classification import load_data

    _say(f"reading {trained.recipe.data.name}")
    splits = load_data(trained.recipe.data)
    if list(splits.label_names) != trained.labels:
        raise UserError(
            f"{trained.recipe.data.name} has other labels now than {trained.path} was trained on; train again"
        )
    return splits


def _origin(trained: TrainedRun) -> dict[str, str]:
    recipe = trained.recipe
    return {"recipe": recipe.name, "data": recipe.data.name, "seed": str(recipe.train.seed)}


def _make(
    trained: TrainedRun, splits: Any, output: Path, wish: Any, *, provenance: dict[str, str]
) -> Measured:
    """Compact, write the file, and measure it beside the masked and the dense model."""
    import karui
    from karui.compact.build import compact as build
    from karui.compact.convert import to_spec
    from karui.runtime.format import encode

    masked = trained.masked()
    reference = trained.answers(masked)
    _say(f"shrinking, choosing values on {len(splits.valid):,} validation documents, proving")
    made = build(
        masked,
        trained.words,
        trained.labels,
        reference=reference,
        texts=splits.valid.texts,
        truth=splits.valid.labels,
        max_tokens=trained.max_tokens,
        wish=wish,
        counts=None if wish.max_bytes is None else _counts(trained, masked, splits.train.texts),
        provenance=provenance,
    )
    atomic_write(output, made.data)
    _say("measuring")
    artifact = karui.load(output)
    logits: dict[str, Any] = {}
    models = {
        "compact": {**_measure(artifact.logits, splits, logits, "compact"), "words_kept": len(artifact.words)}
    }
    models["masked"] = {**_measure(reference, splits, logits, "masked"), "words_kept": len(made.spec.words)}
    models["dense"] = {**models["masked"], "words_kept": len(trained.words)}
    if trained.is_sparse:
        dense = trained.dense()
        spec = to_spec(dense, trained.words, trained.labels, max_tokens=trained.max_tokens)
        models["dense"] |= _measure(trained.answers(dense), splits, logits, "dense")
        models["dense"]["artifact_bytes"] = len(encode(spec, values="fp32"))
    else:
        models["dense"]["artifact_bytes"] = len(made.exact_data)
    texts = (splits.test or splits.valid).texts
    changed = {"fp32": _labels_changed(karui.load(made.exact_data).logits(texts), logits["masked"])}
    changed[made.chosen.values] = _labels_changed(logits["compact"], logits["masked"])
    return Measured(made, artifact, models, changed)


def _counts(trained: TrainedRun, masked: Any, texts: list[str]) -> dict[str, int]:
    """How often each word occurs in texts, and each pair of the model."""
    from karui.runtime.tokenise import count_words
    from karui.tasks.ngrams import pair_counts

    counts = dict(count_words(texts))
    if masked.linear is not None:
        counts |= pair_counts(texts, trained.words, masked.linear.pairs().numpy())
    return counts


def _measure(
    answer: Callable[[list[str]], Any], splits: Any, logits: dict[str, Any], name: str
) -> dict[str, Any]:
    """Accuracy on both splits, and the time of one document on one thread. This opens the test split.

    The logits on the test documents (validation, where there are none) are left in `logits` under `name`.
    """
    import numpy as np

    from karui.compact.figures import accuracy

    found: dict[str, Any] = {}
    for split in ("valid", "test"):
        part = getattr(splits, split)
        found[f"{split}_accuracy"] = None
        if part is not None and len(part):
            logits[name] = np.asarray(answer(part.texts))
            found[f"{split}_accuracy"] = accuracy(logits[name], part.labels)
    texts = (splits.test or splits.valid).texts
    found["us_per_document"] = on_one_thread(lambda: us_per_document(answer, texts))
    return found


def _labels_changed(logits: Any, reference: Any) -> int:
    """How many documents have another label than the masked model gives them."""
    from karui.compact.figures import predictions

    return int((predictions(logits) != predictions(reference)).sum())


def _measure_baselines(run: Path, splits: Any, *, seed: int) -> None:
    if (run / "baselines.json").exists():
        return
    from karui.tasks.baseline import baselines, save_baselines

    sys.stderr.write("measuring what one would take instead (--no-baseline leaves this out) ...\n")
    save_baselines(run, baselines(splits, seed=seed), seed=seed)


def _say(line: str) -> None:
    """Tell a person who waits what is going on; files and pipes get the result alone."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{line} ...\n")


def _write_report(run: Path) -> None:
    """Write report.html again; an error there is shown and does not undo the file."""
    try:
        from karui.report import write_report

        write_report(run)
    except Exception as error:  # noqa: BLE001 - the file is written and proven, whatever the report meets
        sys.stderr.write(f"report.html was not written: {type(error).__name__}: {error}\n")
