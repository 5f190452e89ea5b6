"""What a run report shows of a sparse model: densities and FLOPs over time, scores, the network that is left.

And one figure of many runs: size against quality, a line a method.
"""

import html
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from karui.report.figures import MUTED, SERIES, VALID, as_png, styled
from karui.report.schema import MetricsLine
from karui.report.tables import Column, Table

COLORS = (VALID, *SERIES, MUTED)
METHODS = {
    "l0-units": "hard concrete (L0), units",
    "l0": "hard concrete (L0)",
    "vd": "sparse variational dropout",
    "magnitude": "magnitude pruning",
    "none": "dense",
}
MARKERS = "osD^vX*"
MOST_HISTOGRAMS = 9


def sparse_section(lines: Sequence[MetricsLine]) -> str:
    """The body of a report's section, HTML; "" where nothing in the log is of a sparse model."""
    found = [line for line in lines if isinstance(line.get("sparsity"), dict)]
    if not found:
        return ""
    last: Mapping[str, Any] = found[-1]["sparsity"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    shape = architecture(last)
    meaning = "live inputs of matrices, live output channels of convolutions"
    lead = f"<p>What is left: <b>{html.escape(shape)}</b> ({meaning}).</p>"
    parts = [lead if shape else "", _curves(found), matrix_table(last).to_html(), _histograms(last) or ""]
    return "\n".join(part for part in parts if part)


def architecture(details: Mapping[str, Any]) -> str:
    """As "219-214-100": live columns of each matrix, live rows of each convolution, before what is unread goes."""
    sizes = [
        matrix["columns"] if len(matrix["shape"]) == 2 else matrix["rows"]
        for name, matrix in details.get("matrices", {}).items()
        if name.endswith(
            "weight"
        )  # of linear and convolution layers; those of recurrent ones have other endings
    ]
    return "-".join(map(str, sizes))


def matrix_table(details: Mapping[str, Any]) -> Table:
    """Kept weights, rows and columns of each matrix."""
    names = ("kept", "of", "density", "live rows", "live columns")
    table = Table([Column("matrix"), *(Column(name, number=True) for name in names)])
    for name, matrix in details.get("matrices", {}).items():
        density = matrix["kept"] / max(1, matrix["of"])
        table.rows.append(
            [
                name,
                f"{matrix['kept']:,}",
                f"{matrix['of']:,}",
                f"{density:.2%}",
                f"{matrix['rows']:,}",
                f"{matrix['columns']:,}",
            ]
        )
    return table


@styled
def _curves(lines: Sequence[Mapping[str, Any]]) -> str:
    """Density of each matrix, and FLOPs expected and real, against the epoch."""
    from karui.report.figures import _figure, _scale, as_svg

    epochs = [line.get("epoch", 0) + 1 for line in lines]
    names = list(lines[-1]["sparsity"]["matrices"])
    flops = {
        "deployed": [line.get("flops_share") for line in lines],
        "expected": [line.get("expected_flops_share") for line in lines],
    }
    has_flops = all(value is not None for values in flops.values() for value in values)
    figure, axes = _figure(2 if has_flops else 1, height=2.9, width_each=3.8 if has_flops else 7.6)
    values: list[float] = []
    for index, name in enumerate(names):
        matrices = [line["sparsity"]["matrices"].get(name) for line in lines]
        shares = [0.0 if m is None else m["kept"] / max(1, m["of"]) for m in matrices]
        values += shares
        axes[0].plot(
            epochs, shares, color=COLORS[index % len(COLORS)], linewidth=1.4, label=name, marker="o", ms=2.5
        )
    axes[0].set_title("density of each matrix, deployed")
    _scale(axes[0], "log percent", values)
    if len(names) <= MOST_HISTOGRAMS:
        axes[0].legend(fontsize=7.5)
    if has_flops:
        for color, (name, shares) in zip(COLORS, flops.items(), strict=False):
            axes[1].plot(epochs, shares, color=color, linewidth=1.6, label=name, marker="o", ms=2.5)
        axes[1].set_title("FLOPs over those of the dense network")
        _scale(axes[1], "percent", [])
        axes[1].set_ylim(bottom=0)
        axes[1].legend(fontsize=8)
    for axis in axes:
        axis.set_xlabel("epoch")
    return as_svg(figure, "Density of each matrix over time" + (", and FLOPs" if has_flops else ""))


@styled
def _histograms(details: Mapping[str, Any]) -> str | None:
    """How the scores of each layer are spread at the end."""
    from karui.report.figures import _figure, as_svg

    histograms = dict(list(details.get("histograms", {}).items())[:MOST_HISTOGRAMS])
    if not histograms:
        return None
    figure, axes = _figure(len(histograms), height=1.9, width_each=2.55)
    for axis, (name, histogram) in zip(axes, histograms.items(), strict=True):
        counts, low = histogram["counts"], histogram["low"]
        width = (histogram["high"] - low) / len(counts)
        axis.bar(
            [low + (place + 0.5) * width for place in range(len(counts))], counts, width=width, color=VALID
        )
        axis.set_title(name or "the layer")
        axis.set_xlabel(details.get("score", "score"))
        axis.grid(visible=False, axis="x")
    return as_svg(figure, f"Histograms of {details.get('score', 'score')} of each layer")


def method_of(record: Mapping[str, Any]) -> str:
    """A key of `METHODS`: the record's method; "l0-units" where each layer was to keep a number of its units."""
    return "l0-units" if "target_layer_densities" in record["metrics"] else str(record["method"])


def size_points(records: Sequence[Mapping[str, Any]], *, model: str) -> dict[str, list[tuple[float, float]]]:
    """(bytes of the file, test error in percent) by method, of one network; seeds of a recipe make one point."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in records:
        metrics = record["metrics"]
        if (
            record.get("model", "").startswith(model)
            and "test_error" in metrics
            and "artifact_bytes" in metrics
        ):
            key = (method_of(record), record["recipe"])
            found.setdefault(key, []).append((metrics["artifact_bytes"], metrics["test_error"]))
    lines: dict[str, list[tuple[float, float]]] = {}
    for (method, _), points in found.items():
        sizes, errors = zip(*points, strict=True)
        lines.setdefault(method, []).append((statistics.fmean(sizes), statistics.fmean(errors)))
    return {method: sorted(lines[method]) for method in METHODS if method in lines}


@styled
def size_against_quality(
    records: Sequence[Mapping[str, Any]], *, models: Sequence[str], made_from: str = ""
) -> bytes | str:
    """A PNG: test error against bytes of the whole file, a panel a network, a line a method; "" without records.

    made_from: see `karui.report.figures.as_png`.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    from karui.report.figures import _figure, _short_number

    panels = {model: points for model in models if (points := size_points(records, model=model))}
    if not panels:
        return ""
    figure, axes = _figure(len(panels), height=3.4, width_each=4.6)
    for axis, (model, lines) in zip(axes, panels.items(), strict=True):
        for method, points in lines.items():
            axis.plot(
                *zip(*points, strict=True),
                color=COLORS[list(METHODS).index(method)],
                marker=MARKERS[list(METHODS).index(method)],  # points of two methods may coincide
                ms=4.5,
                linewidth=1.4,
                label=METHODS[method],
            )
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{_short_number(value)}B")
        axis.xaxis.set_minor_formatter(lambda *_: "")
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(lambda *_: "")
        every = [point for points in lines.values() for point in points]
        for part, values in zip((axis.xaxis, axis.yaxis), zip(*every, strict=True), strict=True):
            if max(values) < 4 * min(values):  # too short for round numbers of a logarithmic scale
                part.set_major_locator(MaxNLocator(4))
        axis.set_title(model)
        axis.set_xlabel("bytes of the whole file")
        axis.set_ylabel("test error, %")
        axis.legend(fontsize=8)
    return as_png(figure, made_from=made_from)
