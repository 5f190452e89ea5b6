"""`karui bench`: speed as ratios, every side measured in the same run, on one thread."""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from karui.cli.bench_output import output
from karui.cli.bench_recurrent import recurrent
from karui.cli.predict import lines, open_input
from karui.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Measure speed as ratios against named peers.")

Answer = Callable[[list[str]], Any]


@app.callback()
def _bench() -> None:
    """Measure speed as ratios against named peers, every side in the same run."""


app.command("recurrent")(recurrent)
app.command("output")(output)


@app.command("runtime")
def runtime(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .karui file.")],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Texts, one a line; - is standard input.")
    ] = "-",
    *,
    run: Annotated[
        Path | None, typer.Option(help="The run folder of the file: adds its dense PyTorch model.")
    ] = None,
    fasttext: Annotated[
        Path | None, typer.Option(help="A fastText model of the same task: adds fastText.")
    ] = None,
    max_documents: Annotated[int, typer.Option(min=1, help="Documents to time.")] = 1000,
    passes: Annotated[int, typer.Option(min=1, help="Passes over the documents; the median counts.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")] = False,
) -> None:
    """Microseconds a document on one thread, from raw text to answer, as ratios to the .karui file.

    Documents are given one by one, as a service sees them, and once more as one list. fastText is timed twice: on the
    text as it is, which it splits at spaces, and on karui's words, for a model that was trained on them.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with open_input(file) as stream:
        texts = [text for text, _ in zip(lines(stream, file), range(max_documents), strict=False)]
    if not texts:
        raise UserError(f"{file}: there is no text to time; give one text a line")
    from karui.runtime.model import load_classifier

    classifier = load_classifier(model)
    sides: dict[str, Answer] = {
        "karui, one by one": _one_by_one(classifier.predict),
        "karui, one list": classifier.predict,
    }
    report: dict[str, Any] = {
        "file": model,
        "artifact_bytes": Path(model).stat().st_size,
        "documents": len(texts),
    }
    report["mean_characters"] = round(statistics.fmean(map(len, texts)), 1)
    if run is not None:
        sides |= _torch_sides(run, texts, classifier.predict(texts), report)
    if fasttext is not None:
        answer = _fasttext(fasttext)
        sides["fastText, split at spaces, one by one"] = _one_by_one(answer)
        sides["fastText after karui's words, one by one"] = _one_by_one(_with_words(answer))
    report["sides"] = measure(sides, texts, passes)
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else page(report))


def measure(sides: dict[str, Answer], texts: list[str], passes: int) -> list[dict[str, Any]]:
    """Median time of each side; the sides take turns, so that a busy machine slows all of them."""
    for answer in sides.values():
        answer(texts[:2])
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(passes):
        for name, answer in sides.items():
            begin = time.perf_counter()
            answer(texts)
            times[name].append((time.perf_counter() - begin) / len(texts) * 1e6)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    base = next(iter(medians.values()))
    return [
        {
            "name": name,
            "us_per_document": round(median, 3),
            "fastest_us_per_document": round(min(times[name]), 3),
            "ratio": round(median / base, 3),
        }
        for name, median in medians.items()
    ]


def page(report: dict[str, Any]) -> str:
    """The report for people."""
    out = [
        f"{report['file']}: {report['artifact_bytes']} bytes",
        f"{report['documents']} documents of {report['mean_characters']:.0f} characters, one thread",
    ]
    if "same_label" in report:
        out.append(f"same label as the masked PyTorch model: {report['same_label']:.2%} of documents")
    out.append("us/document   ratio  side")
    out += [
        f"{side['us_per_document']:>11.2f}  {side['ratio']:>6.2f}  {side['name']}" for side in report["sides"]
    ]
    return "\n".join(out)


def _one_by_one(predict: Callable[[str], Any]) -> Answer:
    return lambda texts: [predict(text) for text in texts]


def _torch_sides(
    run: Path, texts: Sequence[str], labels: Sequence[str], report: dict[str, Any]
) -> dict[str, Answer]:
    """The dense model of a run; first the answers of the file are compared with the masked one."""
    import torch

    from karui.cli.runs import open_run

    torch.set_num_threads(1)
    trained = open_run(run)
    logits = np.asarray(trained.answers(trained.masked())(texts))
    best = (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)
    report["same_label"] = float(
        np.mean([trained.labels[k] == label for k, label in zip(best, labels, strict=True)])
    )
    dense = trained.answers(trained.dense())
    return {
        "dense PyTorch, one by one": _one_by_one(lambda text: dense([text])),
        "dense PyTorch, one list": dense,
    }


def _with_words(answer: Callable[[str], Any]) -> Callable[[str], Any]:
    from karui.runtime.tokenise import tokenise

    return lambda text: answer(" ".join(tokenise(text)))


def _fasttext(path: Path) -> Callable[[str], Any]:
    try:
        from fasttext.FastText import _FastText  # the public loader prints a warning # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "--fasttext needs the package fasttext: install fasttext-wheel, or leave the option out"
        ) from None
    if not path.is_file():
        raise UserError(f"cannot read {path}: there is no such file; give a .bin or .ftz file of fastText")
    model = _FastText(model_path=str(path))
    return lambda text: model.f.predict(text + "\n", 1, 0.0, "strict")
