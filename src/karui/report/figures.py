"""Figures as SVG text that can stand inside a page: no scripts, no outside references, text stays text."""

import functools
import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from karui.report.schema import CompactFile, MetricsLine
from karui.report.units import format_bytes

INK, MUTED, GRID = "#1f2933", "#66727f", "#e3e8ee"
TRAIN, VALID = "#9aa5b1", "#0b6e69"
SERIES = ("#c2571a", "#5b4bb5", "#3a7ca5", "#a63a50")
PARTS = ("#0b6e69", "#3fa796", "#8ccfc0", "#c2571a", "#e8a87c", "#5b4bb5", "#a9a1dd", "#9aa5b1")
_STYLE: Any = {
    "svg.fonttype": "none",  # letters stay letters: small, sharp, found by a search in the page
    "svg.hashsalt": "karui",  # the same figures give the same bytes
    "text.parse_math": False,  # a "$" in a file name is no formula
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#c3ccd5",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


Arguments = ParamSpec("Arguments")
Picture = TypeVar("Picture", str, "str | None", "bytes | str", bytes)


def styled(draw: Callable[Arguments, Picture]) -> Callable[Arguments, Picture]:
    """Draw with the look of this file, and leave matplotlib's own settings as they were."""

    @functools.wraps(draw)
    def in_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Picture:
        import matplotlib as mpl

        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return in_style


@styled
def learning_curves(lines: Sequence[MetricsLine], *, loss: str = "loss (nats a document)") -> str | None:
    """Return loss, KL, accuracy, density and kept words against the epoch; None where nothing was logged.

    loss: the title of the first panel, with the unit of the task.
    """
    train = [line for line in lines if line.get("split") == "train"]
    valid = [line for line in lines if line.get("split") == "valid"]
    steps = _steps_per_epoch(lines)
    panels: list[tuple[str, list[tuple[str, str, list[tuple[float, float]]]], str]] = [
        (
            loss,
            [
                ("train", TRAIN, _series(train, "loss", steps)),
                ("validation", VALID, _series(valid, "nll", steps) or _series(valid, "mse", steps)),
            ],
            "",
        ),
        ("KL (nats, all weights)", [("penalty", VALID, _series(train, "penalty", steps))], "log"),
        ("validation accuracy", [("accuracy", VALID, _series(valid, "accuracy", steps))], "percent"),
        ("density (kept weights)", [("density", VALID, _series(valid, "density", steps))], "log percent"),
        ("words kept", [("words", VALID, _series(valid, "words_kept", steps))], "log"),
    ]
    shown = [panel for panel in panels if any(points for _, _, points in panel[1])]
    if not shown:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(len(shown), height=2.5, width_each=2.55)
    for axis, (title, curves, scale) in zip(axes, shown, strict=True):
        axis.set_title(title)
        for name, color, points in curves:
            if points:
                axis.plot(*zip(*points, strict=True), color=color, linewidth=1.6, label=name, **_dots(points))
        _scale(axis, scale, [value for _, _, points in curves for _, value in points])
        axis.set_xlabel("epoch")
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if len([1 for _, _, points in curves if points]) > 1:
            axis.legend(loc="best", fontsize=8)
    return as_svg(figure, "Learning curves: " + ", ".join(panel[0] for panel in shown))


@styled
def accuracy_against_bytes(
    files: Sequence[CompactFile],
    dense: Mapping[str, Any] | None,
    points: Sequence[Mapping[str, Any]],
    *,
    key: str,
) -> str | None:
    """Return accuracy against whole-file bytes on a logarithmic axis; `key` is test_accuracy or valid_accuracy."""
    ours = [
        (file["artifact_bytes"], file[key], file["values"]) for file in files if file.get(key) is not None
    ]
    names = list(dict.fromkeys(point["name"] for point in points if point.get(key) is not None))
    if not ours and not names:
        return None
    figure, (axis,) = _figure(1, height=3.5, width_each=7.6)
    for index, name in enumerate(names):
        own = [point for point in points if point["name"] == name and point.get(key) is not None]
        curve = sorted((point["artifact_bytes"], point[key]) for point in own)
        color = SERIES[index % len(SERIES)]
        axis.plot(
            *zip(*curve, strict=True), color=color, linewidth=1.6, marker="o", markersize=3.5, label=name
        )
    if ours:
        curve = [(size, value) for size, value, _ in ours]
        axis.plot(
            *zip(*curve, strict=True),
            color=VALID,
            linewidth=1.6,
            marker="o",
            markersize=7,
            label="karui, compact",
        )
        for size, value, values in ours:
            axis.annotate(
                values, (size, value), xytext=(0, -15), textcoords="offset points", color=VALID, ha="center"
            )
    if dense and dense.get(key) is not None:
        axis.plot(
            dense["artifact_bytes"],
            dense[key],
            color=INK,
            marker="D",
            markersize=6,
            linestyle="",
            label="karui, dense",
        )
    axis.set_xscale("log")
    axis.margins(x=0.08, y=0.12)
    axis.xaxis.set_major_formatter(lambda value, _: f"{_short_number(value)}B")
    axis.xaxis.set_minor_formatter(lambda *_: "")
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axis.set_xlabel("bytes of the whole file, vocabulary included")
    axis.set_title(key.replace("_", " "))
    axis.legend(loc="lower right")
    return as_svg(figure, f"{key.replace('_', ' ')} against bytes of the whole file")


@styled
def bytes_by_part(files: Sequence[CompactFile]) -> str | None:
    """Return one stacked bar a file: where its bytes are."""
    if not files:
        return None
    parts = list(dict.fromkeys(part for file in files for part in file["sizes"]))
    figure, (axis,) = _figure(1, height=0.75 + 0.42 * len(files), width_each=7.6)
    for row, file in enumerate(files):
        left = 0
        for index, part in enumerate(parts):
            size = file["sizes"].get(part, 0)
            axis.barh(
                row,
                size,
                left=left,
                height=0.62,
                color=PARTS[index % len(PARTS)],
                label=part if row == 0 else None,
            )
            left += size
        size = format_bytes(file["artifact_bytes"])
        axis.annotate(size, (left, row), xytext=(6, 0), textcoords="offset points", va="center", color=INK)
    axis.set_yticks(range(len(files)), [file["values"] for file in files])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.margins(x=0.12)
    axis.xaxis.set_major_formatter(lambda value, _: f"{_short_number(value)}B")
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(parts),
        fontsize=8.5,
        handlelength=1,
        borderaxespad=0,
    )
    return as_svg(figure, "Bytes of each file by part")


def _steps_per_epoch(lines: Sequence[MetricsLine]) -> float:
    """Return how many steps an epoch has, read off the log: the first line of epoch e stands behind e epochs."""
    ends = [
        line.get("step", 0) / (line.get("epoch", 0) + 1) for line in lines if line.get("split") == "valid"
    ]
    last = max((line.get("step", 0) / (line.get("epoch", 0) + 1) for line in lines), default=1.0)
    return max(ends[-1] if ends else last, 1e-9)


def _series(lines: Sequence[MetricsLine], key: str, steps_per_epoch: float) -> list[tuple[float, float]]:
    """Return (epoch, value) of every line that has the key, thinned to a few hundred points."""
    found = [
        (line.get("step", 0) / steps_per_epoch, float(line[key]))
        for line in lines
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    stride = max(1, len(found) // 300)
    return found[::stride] if (len(found) - 1) % stride == 0 else [*found[::stride], found[-1]]


def _dots(points: Sequence[object]) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3} if len(points) <= 12 else {}


def _scale(axis: Any, scale: str, values: Sequence[float]) -> None:
    """Set a logarithmic axis where the values span a wide range, and percent where they are fractions."""
    if "log" in scale and values and min(values) > 0 and max(values) > 8 * min(values):
        from matplotlib.ticker import LogLocator

        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 100 * min(values) else (1,)))
        axis.yaxis.set_minor_formatter(lambda *_: "")
    if "percent" in scale:
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    else:
        axis.yaxis.set_major_formatter(lambda value, _: _short_number(value).rstrip())


def _short_number(value: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g} "


def _figure(panels: int, *, height: float, width_each: float) -> tuple[Any, list[Any]]:
    """Return a figure with panels side by side, three to a row."""
    from matplotlib.figure import Figure

    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width_each * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in grid[panels:]:
        figure.delaxes(axis)
    return figure, list(grid[:panels])


def as_svg(figure: Any, label: str) -> str:
    """Text of the picture, the same bytes for the same figures; label: what a screen reader says."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="([\d.]+)pt" height="([\d.]+)pt"', "", svg, count=1)  # the page gives the width
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def as_png(figure: Any, *, made_from: str = "") -> bytes:
    """Bytes of the picture on white; made_from: a text that stands in the file, by which it is known what it shows."""
    buffer = io.BytesIO()
    metadata = {"Software": None, **({"Description": made_from} if made_from else {})}
    figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata=metadata)
    return buffer.getvalue()
