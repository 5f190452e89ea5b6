"""The picture of `karui bench recurrent`: time against length, one line an implementation."""

from collections.abc import Mapping
from typing import Any

from karui.report.figures import INK, MUTED, SERIES, VALID, as_svg, styled


@styled
def time_against_length(report: Mapping[str, Any]) -> str:
    """Milliseconds of forward + backward (of a step where only that was timed) against time steps, on log axes."""
    from matplotlib.figure import Figure

    passes = {row["pass"] for row in report["rows"]}
    timed = "forward_backward" if "forward_backward" in passes else "step"
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in report["rows"]:
        if row["pass"] == timed:
            lines.setdefault(row["name"], []).append((row["seq_len"], row["median_ms"]))
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    colors = (VALID, *SERIES)
    for k, (name, points) in enumerate(lines.items()):
        steps, times = zip(*points, strict=True)
        floor = name == "gemm"
        color = MUTED if floor else colors[k % len(colors)]
        axes.plot(
            steps,
            times,
            marker="o",
            markersize=3.5,
            linewidth=1.6,
            color=color,
            linestyle="--" if floor else "-",
        )
        label = "matrix products alone" if floor else name
        axes.annotate(
            label,
            (steps[-1], times[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=8,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
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
