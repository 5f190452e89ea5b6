"""The picture of `karui bench recurrent`: time against length, one line an implementation."""

from collections.abc import Mapping, Sequence
from typing import Any

from karui.report.figures import INK, MUTED, SERIES, VALID, as_svg, styled


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
