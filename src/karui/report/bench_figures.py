"""The pictures of `karui bench`: time against length or classes, one line an implementation."""

from collections.abc import Mapping, Sequence
from typing import Any

from karui.report.figures import GRID, INK, MUTED, SERIES, VALID, as_png, as_svg, styled

# Output layer -> colour and line; one hue a family, so that a reader finds the families first.
OUTPUT_STYLES = {
    "full": (INK, "-"),
    "self-normalized": (INK, ":"),
    "torch-softmax": (MUTED, "--"),
    "importance": ("#c2571a", ":"),
    "importance-target": ("#c2571a", "--"),
    "sampled": ("#c2571a", "-"),
    "nce": ("#5b4bb5", "-"),
    "negative": ("#5b4bb5", "--"),
    "blackout": ("#a63a50", "-"),
    "huffman": ("#3a7ca5", "--"),
    "class": ("#3fa796", "--"),
    "adaptive": (VALID, "-"),
    "torch-adaptive": (VALID, ":"),
}


@styled
def time_against_length(report: Mapping[str, Any]) -> str:
    """Milliseconds of forward + backward (of a step where only that was timed) against time steps, on log axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    passes = {row["pass"] for row in report["rows"]}
    timed = "forward_backward" if "forward_backward" in passes else "step"
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in report["rows"]:
        if row["pass"] == timed:
            lines.setdefault(row["name"], []).append((row["seq_len"], row["median_ms"]))
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    colors = (VALID, *SERIES)
    heights = _apart([points[-1][1] for points in lines.values()])
    for k, ((name, points), height) in enumerate(zip(lines.items(), heights, strict=True)):
        steps, times = zip(*points, strict=True)
        floor = name == "gemm"
        color = MUTED if floor else colors[k % len(colors)]
        style = "--" if floor else "-"
        axes.plot(steps, times, marker="o", markersize=3.5, linewidth=1.6, color=color, linestyle=style)
        label = "matrix products alone" if floor else name
        at = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(label, (steps[-1], height), color=INK, fontsize=8, **at)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.04)
    axes.set_xlim(right=axes.get_xlim()[1] * 1.9)  # room for the names
    axes.set_xticks(sorted({step for points in lines.values() for step, _ in points}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.minorticks_off()
    axes.set_xlabel("time steps")
    axes.set_ylabel(
        "milliseconds, forward + backward" if timed == "forward_backward" else "milliseconds a step"
    )
    axes.set_title(
        f"batch {report['batch']}, {report['hidden']} units, {report['layers']} layer"
        f"{'s' if report['layers'] > 1 else ''}, {report['dtype']}, {report['device']}"
    )
    return as_svg(figure, "Time against length, one line an implementation")


def _apart(values: Sequence[float], factor: float = 1.18) -> list[float]:
    """Move values apart, upwards, until neighbours differ by a factor: names at the ends of lines do not overlap."""
    moved, last = list(values), 0.0
    for index in sorted(range(len(values)), key=values.__getitem__):
        moved[index] = last = max(values[index], last * factor)
    return moved


@styled
def time_against_classes(report: Mapping[str, Any], *, kind: str = "png") -> bytes | str:
    """Milliseconds of a training step against the number of classes, one line an output layer, as "png" or "svg"."""
    from matplotlib.figure import Figure

    lines: dict[str, list[tuple[int, float]]] = {}
    for row in report["rows"]:
        if row["step_ms"] is not None:
            lines.setdefault(row["method"], []).append((row["classes"], row["step_ms"]))
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, points in lines.items():
        color, style = OUTPUT_STYLES.get(name, (MUTED, "--"))
        marks = {"marker": "o", "markersize": 3.5, "linewidth": 1.6}
        axes.plot(*zip(*points, strict=True), color=color, linestyle=style, **marks)
    ends = {name: points[-1] for name, points in lines.items()}
    name_line_ends(axes, ends)
    axes.set_xlabel("classes")
    axes.set_ylabel("milliseconds a training step")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(
        f"{report['positions']:,} positions, {report['hidden']} units, {report['num_samples']:,} samples, "
        f"{report['threads']} threads"
    )
    label = "Time of a training step against classes, one line an output layer"
    return as_svg(figure, label) if kind == "svg" else as_png(figure)


def name_line_ends(axes: Any, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write the name of each line to the right of the axes, level with its end, with a thin line to it.

    Names keep their order from top to bottom and are moved apart where they would touch. The axes' scales come first.
    """
    if not ends:
        return
    axes.set_xlim(axes.get_xlim())  # the limits stay what they are from here on
    axes.set_ylim(axes.get_ylim())
    place = axes.transScale + axes.transLimits
    heights = {name: float(place.transform(point)[1]) for name, point in ends.items()}
    moved = moved_apart(list(heights.values()), gap=0.055)
    for (name, (x, y)), height in zip(ends.items(), moved, strict=True):
        color, _ = OUTPUT_STYLES.get(name, (MUTED, "--"))
        axes.annotate(
            name,
            (x, y),
            xytext=(1.05, height),
            textcoords="axes fraction",
            color=color,
            fontsize=8,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": GRID,
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )


def moved_apart(values: Sequence[float], gap: float) -> list[float]:
    """Move values apart until neighbours differ by `gap`, in their order; each crowd stays centred on its mean."""
    crowds: list[list[int]] = []

    def begins(crowd: Sequence[int]) -> float:
        centre = sum(values[index] for index in crowd) / len(crowd)
        return centre - gap * (len(crowd) - 1) / 2

    for index in sorted(range(len(values)), key=values.__getitem__):
        crowds.append([index])
        while len(crowds) > 1 and begins(crowds[-2]) + gap * len(crowds[-2]) > begins(crowds[-1]):
            last = crowds.pop()
            crowds[-1] += last
    moved = list(values)
    for crowd in crowds:
        for number, index in enumerate(crowd):
            moved[index] = begins(crowd) + gap * number
    return moved
