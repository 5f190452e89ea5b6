"""`karui eval`: figures of a run or of a .karui file on a data set. A file is read and answered without torch."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from karui.cli.eval_language import evaluate_language
from karui.cli.eval_language import page as language_page
from karui.cli.eval_samples import page as sampled_page
from karui.cli.eval_samples import sampled_figures
from karui.cli.eval_sequences import evaluate_run
from karui.cli.eval_sequences import page as sequence_page
from karui.cli.runs import TrainedRun, on_one_thread, open_run, us_per_document
from karui.cli.task_table import task_of_run
from karui.errors import UserError

SPLITS = ("test", "valid", "train")
MAX_CONFUSION = 12  # classes; a wider table does not fit a terminal


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_FILE", help="A run folder or a .karui file.")],
    *,
    data: Annotated[
        str | None, typer.Option(help="Named data set, file or folder; a run's own when left out.")
    ] = None,
    split: Annotated[str, typer.Option(help="test, valid or train.")] = "test",
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    fold: Annotated[int | None, typer.Option(help="Fold, 0 to 9, of a set without a test split.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Also average so many draws of a sparse classifier's weights: its uncertainty."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")] = False,
) -> None:
    """Measure a run or a .karui file on a data set: accuracy, nll, a line a class, microseconds a document.

    A language model gives the log-probability of a text, its tokens, those outside the vocabulary, and the perplexity
    with and without them; --text names the column of a Hub data set. A run of pixels, music, adding or copy gives the
    metrics of its task, on its own data.
    """
    if split not in SPLITS:
        raise UserError(f"split must be test, valid or train, got {split!r}")
    is_run = model.is_dir()
    if samples is not None and not (is_run and task_of_run(model) == "classify"):
        raise UserError(f"--samples draws weights of a run of karui train classify, which {model} is not")
    artifact = None if is_run else _load(model)
    if task_of_run(model) == "lm" if is_run else hasattr(artifact, "perplexity"):
        if label is not None or fold is not None:
            raise UserError(f"{model} is a language model: --label and --fold are for classifiers")
        found = evaluate_language(model, artifact=artifact, data=data, split=split, text=text)
        typer.echo(json.dumps(found, ensure_ascii=False) if as_json else language_page(found))
        return
    if is_run and (task := task_of_run(model)) != "classify":
        if not all(option is None for option in (data, text, label, fold)):
            raise UserError(f"{model} is a run of karui train {task}: it is measured on its own data")
        measured = evaluate_run(model, task, split)
        typer.echo(json.dumps(measured) if as_json else sequence_page(measured))
        return
    answer, labels, run = _open(model, artifact)
    part = load_part(data, split, labels, run=run, text=text, label=label, fold=fold)
    if not len(part):
        raise UserError(f"{part.source or part.name}: the {split} part has no documents")
    result = figures(np.asarray(answer(part.texts)), part, labels)
    if run is None:
        result["us_per_document"] = us_per_document(answer, part.texts)
    else:
        result["us_per_document"] = on_one_thread(lambda: us_per_document(answer, part.texts))
    result = {"model": str(model), "data": part.name, "subset": bool(part.subset), "split": split, **result}
    drawn = None if samples is None or run is None else sampled_figures(run, part, samples)
    if drawn is not None:
        result["sampled"] = drawn
    shown = page(result) if drawn is None else f"{page(result)}\n\n{sampled_page(drawn)}"
    typer.echo(json.dumps(_without_nan(result), ensure_ascii=False) if as_json else shown)


def _load(path: Path) -> Any:
    import karui

    return karui.load(path)


def _open(path: Path, artifact: Any) -> tuple[Callable[[list[str]], Any], list[str], TrainedRun | None]:
    """Return what answers raw texts with logits (N, C), the labels, and the run when it is one."""
    if artifact is not None:
        return artifact.logits, list(artifact.labels), None
    run = open_run(path)
    return run.answers(run.masked()), run.labels, run


def load_part(
    data: str | None,
    split: str,
    labels: list[str],
    *,
    run: TrainedRun | None,
    text: str | None,
    label: str | None,
    fold: int | None,
) -> Any:
    """Read the documents of a split, labels numbered as the model's.

    Raises:
        UserError: no data is named, the set lacks the split, or it holds a label that the model does not know.
    """
    from karui.data.load import load_splits, load_test

    if data is None or (run is not None and data == run.recipe.data.name and text is None and label is None):
        if run is None:
            raise UserError("a .karui file knows no data: add --data NAME or --data PATH")
        from karui.tasks.classification import load_data

        splits = load_data(run.recipe.data)
        name = run.recipe.data.name
    elif split == "test":
        return load_test(data, labels, text=text, label=label, fold=fold)
    else:
        splits, name = load_splits(data, text=text, label=label, fold=fold), data
    part = getattr(splits, split)
    if part is None:
        raise UserError(f"{name} has no test part; name another data set, or --split valid")
    return _with_labels_of(part, labels, name)


def _with_labels_of(part: Any, labels: list[str], name: str) -> Any:
    """Number the labels of a part as the model does."""
    present = [part.label_names[k] for k in np.unique(part.labels)]
    unknown = [each for each in present if each not in labels]
    if unknown:
        raise UserError(f"{name}: the label {unknown[0]!r} is none of the model's ({', '.join(labels)})")
    number = {each: k for k, each in enumerate(labels)}
    part.labels = np.array([number[part.label_names[k]] for k in part.labels], dtype=np.int64)
    part.label_names = labels
    return part


def figures(logits: np.ndarray, part: Any, labels: list[str]) -> dict[str, Any]:
    """Accuracy, nll, a line a class and the confusion table of logits (N, C)."""
    from karui.compact.figures import accuracy, by_class, confusion, nll

    table = confusion(logits, part.labels, len(labels))
    return {
        "documents": len(part),
        "accuracy": accuracy(logits, part.labels),
        "nll": nll(logits, part.labels),
        "classes": [vars(each) for each in by_class(table, labels)],
        "confusion": table.tolist(),
    }


def page(result: dict[str, Any]) -> str:
    """What a person reads."""
    subset = " (subset)" if result["subset"] else ""
    width = max(len("label"), *(len(each["label"]) for each in result["classes"]))
    lines = [
        f"{result['model']} on {result['data']}{subset}, {result['split']}: {result['documents']:,} documents",
        f"accuracy {result['accuracy']:.2%}   nll {result['nll']:.4f}   {result['us_per_document']:,.1f} µs/document",
        "",
        f"{'label':<{width}} {'documents':>10} {'recall':>8} {'precision':>10}",
    ]
    for each in result["classes"]:
        counts = f"{each['documents']:>10,} {_share(each['recall']):>8} {_share(each['precision']):>10}"
        lines.append(f"{each['label']:<{width}} {counts}")
    if len(result["classes"]) <= MAX_CONFUSION:
        cell = max(6, *(len(f"{count:,}") + 1 for row in result["confusion"] for count in row))
        numbers = "".join(f"{k + 1:>{cell}}" for k in range(len(result["classes"])))
        lines += [
            "",
            f"{'true label, then the answers in the same order':<{width + 4}}",
            f"{'':<{width + 4}}{numbers}",
        ]
        for k, (each, row) in enumerate(zip(result["classes"], result["confusion"], strict=True)):
            cells = "".join(f"{count:>{cell},}" for count in row)
            lines.append(f"{k + 1:>2}  {each['label']:<{width}}{cells}")
    return "\n".join(lines)


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a class that never occurs gets null."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
