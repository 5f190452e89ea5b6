"""The generated part of `docs/images.md` and its pictures, made from the records: no figure is typed in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from karui.report.asked import TOLERANCE, misses_list
from karui.report.figures import VALID, as_png, styled
from karui.report.generated import Picture, update_part
from karui.report.groups import all_of
from karui.report.image_tables import asked_table, network_table, wide_table
from karui.report.records import read_records
from karui.report.sparse_figures import METHODS, size_against_quality, size_points

PAGE, MARKER = "images.md", "sparse-images"
SIZES, CURVE = "images-size.png", "images-flops.png"
LENETS = {"lenet-300-100": "LeNet-300-100", "lenet-5": "LeNet-5"}

MEASURED = (
    "Mean and standard deviation over the seeds. Bytes are those of `network.safetensors`, fp32; weights kept are all "
    "numbers of it that are not zero, biases included, over those of the dense network. FLOPs are of the compacted "
    "network, zeros inside its layers counted as work. Published networks: weights and FLOPs are counted from their "
    "live units, without biases. Trained on {machines}, torch {versions}."
)
ASKED = (
    "LeNet-300-100 with a gate, a noise or a mask for each weight, one seed. A record that is more than {tolerance} "
    "off, or above a size, says so here and fails a test."
)
SIZED = (
    "Each point is a recipe, the mean of its seeds. Lines join the recipes of a method; those of the first tables have "
    "trained longer than those with a target, as the tables say."
)
WIDE = (
    "A narrow wide ResNet on a subset of CIFAR-10, with the whole test part. The gates are those of the published "
    "setting, the output channels of the first convolution of each block; the stem, the second convolutions and the "
    "shortcuts have none."
)
DRAWN = (
    "FLOPs over those of the dense network at each evaluation: as the gates of each layer expect them, and as "
    "deployed, pruned to the target. Where the lines meet, pruning at the end changes nothing."
)


def section(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of what is generated; "" without records."""
    own = _images(records)
    if not own:
        return ""
    out = ["## Measured", MEASURED.format(machines=all_of(own, "hardware"), versions=all_of(own, "torch"))]
    for network, title in LENETS.items():
        table = network_table(own, network)
        if table.rows:
            out += [f"### {title} on MNIST", table.to_markdown()]
    asked = asked_table(own)
    if asked.rows:
        tolerance = f"{100 * TOLERANCE:g} %"
        out += ["### Asked and delivered", ASKED.format(tolerance=tolerance), asked.to_markdown()]
    out += misses_list(own)
    if _sizes(own):
        out += ["### Size against error", SIZED, f"![Test error against bytes of the file]({SIZES})"]
    wide = wide_table(own)
    if wide.rows:
        out += ["### A narrow wide ResNet", WIDE, wide.to_markdown()]
    if _curves(own):
        out += [DRAWN, f"![FLOPs over epochs]({CURVE})"]
    return "\n\n".join(out) + "\n"


def update_image_page(docs: Path, results: Path, *, check: bool = False) -> list[str]:
    """Write section and pictures where they are not those of the records; return the names that differed.

    With `check` nothing is written. Raises UserError where there is no such folder, or only one of the markers.
    """
    own = _images(read_records(results))
    pictures = {
        SIZES: Picture(_sizes(own), lambda mark: sizes_picture(own, made_from=mark)),
        CURVE: Picture(_curves(own), lambda mark: curve_picture(own, made_from=mark)),
    }
    return update_part(docs / PAGE, MARKER, section(own), pictures, check=check)


def sizes_picture(records: Sequence[Mapping[str, Any]], *, made_from: str = "") -> bytes:
    """Test error against bytes of the file, a panel a network, as PNG."""
    picture = size_against_quality(records, models=tuple(_sizes(records)), made_from=made_from)
    assert isinstance(picture, bytes)
    return picture


@styled
def curve_picture(records: Sequence[Mapping[str, Any]], *, made_from: str = "") -> bytes:
    """FLOPs over those of the dense network against the epoch, expected and deployed, a panel a network, as PNG."""
    from matplotlib.ticker import MaxNLocator

    from karui.report.figures import SERIES, _figure

    curves = _curves(records)
    figure, axes = _figure(len(curves), height=3.2, width_each=4.2)
    for axis, (name, points) in zip(axes, curves.items(), strict=True):
        epochs = [point["epoch"] for point in points]
        for key, color in (("expected", VALID), ("deployed", SERIES[0])):
            shares = [100 * point[key] for point in points]
            axis.plot(epochs, shares, color=color, marker="o", ms=3, linewidth=1.6, label=key)
        axis.set_title(name)
        axis.set_ylim(0, 102)
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axis.set_xlabel("epoch")
        axis.set_ylabel("FLOPs, % of dense")
        axis.legend(fontsize=8)
    return as_png(figure, made_from=made_from)


def _images(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [record for record in records if record["task"] == "images" and "test_error" in record["metrics"]]


def _sizes(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """What the first picture shows."""
    return {network: points for network in LENETS if (points := size_points(records, model=network))}


def _curves(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, float]]]:
    """What the second picture shows: the first seed of each network that had gates of units."""
    found = {}
    for record in records:
        curve = record["metrics"].get("flops_curve")
        structured = record["method"] == "l0" and not str(record["recipe"]).endswith(("pc", "kb"))
        title = f"{record['model']}, {METHODS['l0']}"
        if curve and structured and title not in found:
            found[title] = [{key: point[key] for key in ("epoch", "expected", "deployed")} for point in curve]
    return found
