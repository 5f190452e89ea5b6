"""`karui bench output`: a training step of each output layer, its memory, an exact query; numbers first, then times."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from karui.errors import UserError
from karui.files import atomic_write


def output(
    *,
    classes: Annotated[
        str, typer.Option(help="Classes; several, separated by commas, for a curve.")
    ] = "10000,500000",
    hidden: Annotated[int, typer.Option(min=1, help="Size of a hidden vector.")] = 256,
    positions: Annotated[int, typer.Option(min=1, help="Positions of a training step.")] = 1024,
    num_samples: Annotated[
        int, typer.Option(min=1, help="Samples of the sampled layers, shared by a step.")
    ] = 1024,
    methods: Annotated[
        str,
        typer.Option(help="all, or names separated by commas, torch-softmax and torch-adaptive among them."),
    ] = "all",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; all there are if left out.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Steps and queries; the median counts.")] = 21,
    seconds: Annotated[
        float, typer.Option(min=0, help="A slower layer stops after this long and two steps.")
    ] = 15.0,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory", help="Measure each layer in a process of its own, with its memory."
        ),
    ] = True,
    plot: Annotated[
        Path | None, typer.Option(help="Write time against classes as a picture, .png or .svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")] = False,
) -> None:
    """Time a training step of each output layer: forward, backward and the update.

    Numbers of a small copy are compared with the plain mathematics before any time is taken. Full and self-normalised
    softmax and torch's layers are updated by torch's fused Adam, the others where they were drawn, by row-wise Adagrad.
    Counts follow Zipf's law; at 793,471 classes they are those of lm1b_unigram where it lies below KARUI_DATA. The
    ratios are those of a whole step: full's median over the method's.
    """
    from karui.tasks import output_peers as peers
    from karui.tasks.recurrent_peers import threads as with_threads

    sizes = sizes_of(classes)
    names = (
        list(peers.METHODS)
        if methods == "all"
        else [name.strip() for name in methods.split(",") if name.strip()]
    )
    if not names:
        raise UserError(f"--methods names none; the methods are {', '.join(peers.METHODS)}")
    peers.check_names(names)
    if num_samples > min(sizes):
        raise UserError(
            f"--num-samples must be at most the number of classes, got {num_samples} of {min(sizes)}"
        )
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise UserError(f"--plot must end in .png or .svg, got {plot}")
    report: dict[str, Any] = {"hidden": hidden, "positions": positions, "num_samples": num_samples}
    with with_threads(threads) as report["threads"]:
        shapes = [peers.Shape(size, hidden, positions, num_samples, report["threads"]) for size in sizes]
        report["difference_from_plain"] = peers.check_numbers(names, shapes[0])
        report["rows"] = rows = []
        for shape in shapes:
            found = [
                _row(name, shape, repeats=repeats, seconds=seconds, memory=memory)
                for name in _told(names, shape.classes)
            ]
            rows += found
            if not as_json:
                typer.echo(page(report, found))
    by_classes = {str(size): ratios_of(rows, size) for size in sizes}
    report["ratios"] = by_classes[str(sizes[-1])]
    if len(sizes) > 1:
        report["ratios_by_classes"] = by_classes
    if plot is not None:
        from karui.report.bench_figures import time_against_classes

        atomic_write(plot, time_against_classes(report, kind=plot.suffix[1:]))
    if as_json:
        typer.echo(json.dumps(report, indent=1))


def sizes_of(text: str) -> list[int]:
    """Return the numbers of classes named by --classes, in rising order."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UserError(f"--classes must be whole numbers from 1 up, separated by commas, got {text!r}")
    return sorted(set(sizes))


def ratios_of(rows: list[dict[str, Any]], classes: int) -> dict[str, float]:
    """Return method -> full's median step over its own, at one number of classes; empty without full."""
    medians = {row["method"]: row["step_ms"] for row in rows if row["classes"] == classes and row["step_ms"]}
    full = medians.get("full")
    if full is None:
        return {}
    return {method: round(full / median, 3) for method, median in medians.items() if method != "full"}


def _row(method: str, shape: Any, *, repeats: int, seconds: float, memory: bool) -> dict[str, Any]:
    """Measure one method, or say why it is left out: a step that does not fit would stop the machine."""
    from karui.tasks import output_peers
    from karui.tasks.output_process import measure_apart, megabytes_free

    needed, free = output_peers.megabytes_needed(method, shape), megabytes_free()
    if free is not None and needed > free:
        why = f"needs about {needed / 1e3:.1f} GB, {free / 1e3:.1f} GB are free"
        nothing = dict.fromkeys(("step_ms", "fastest_step_ms", "optimizer_ms", "query_ms", "peak_mb"))
        return {"method": method, "classes": shape.classes, "left_out": why, **nothing}
    if memory:
        return measure_apart(method, shape, repeats=repeats, seconds=seconds)
    return output_peers.measure(method, shape, repeats=repeats, seconds=seconds)


def _told(names: list[str], classes: int) -> Any:
    """The names, with a bar in a terminal that says which is being measured."""
    if not sys.stderr.isatty():
        yield from names
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(f"{classes:,} classes"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TextColumn("{task.description}"), console=console, transient=True) as bar:
        task = bar.add_task("", total=len(names))
        for name in names:
            bar.update(task, description=name)
            yield name
            bar.advance(task)


def page(report: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """One number of classes for people."""
    classes, kinds = rows[0]["classes"], [row["counts"] for row in rows if "counts" in row]
    counts = f"counts of {kinds[0]}" if kinds else ""
    sizes = f"N {report['positions']}  H {report['hidden']}  V {classes:,}  K {report['num_samples']}"
    out = [
        f"{sizes}  fp32  cpu, {report['threads']} threads  {counts}",
        f"largest difference from the plain mathematics: {report['difference_from_plain']:.1e} nats",
        f"{'':<18}{'step ms':>11}{'update ms':>11}{'peak MB':>10}{'query ms':>10}{'full/step':>11}",
    ]
    ratios = ratios_of(rows, classes)
    for row in rows:
        if "left_out" in row:
            out.append(f"{row['method']:<18}{row['left_out']}")
            continue
        peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        ratio = f"{ratios[row['method']]:.2f}" if row["method"] in ratios else ""
        times = f"{row['step_ms']:>11.2f}{row['optimizer_ms']:>11.2f}"
        out.append(f"{row['method']:<18}{times}{peak:>10}{row['query_ms']:>10.3f}{ratio:>11}")
    return "\n".join(out)
