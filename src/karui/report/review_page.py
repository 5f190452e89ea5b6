"""The generated part of `docs/sparsity.md`, a classifier of film reviews, and its picture: no figure is typed in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from karui.report.asked import TOLERANCE, misses_list
from karui.report.figures import MUTED, VALID, as_png, styled
from karui.report.generated import Picture, update_part
from karui.report.groups import all_of, average, by_recipe
from karui.report.records import read_records
from karui.report.review_tables import (
    DENSE,
    PUBLISHED,
    asked_table,
    groups,
    reviews,
    word_groups,
    words_table,
)
from karui.report.speed_tables import speed_table, steps_table

PAGE, MARKER, CURVE = "sparsity.md", "sparse-imdb", "sparsity-words.png"

MEASURED = (
    "A bidirectional SRU reads the first {tokens} words of a review and learns from the labels alone; figures are "
    "those of the .karui file on all {texts:,} test reviews, settings were chosen on validation reviews. Weights left "
    "are numbers of the model that are not zero, biases included; live units are columns of the embedding, then units "
    "forward and backward. Published weights are compared with their own dense model. Trained on {machines}, "
    "torch {versions}."
)
ASKED = (
    "A gate, a noise or a mask for each weight of the wider model, {columns} columns and {units} units a direction "
    "(dense {dense:,} B in fp32), int8 files. Dense models of these bytes have fewer words, columns and units. A "
    "record more than {tolerance:g} % off, or above a size, is marked."
)
SPEED = (
    "One thread, dense and compacted in turn, the least of many passes; FLOPs of the matrix products, zeros that are "
    "left counted as work. LeNet by batches of images; reviews by batches of 64 of 234 words, in PyTorch and in the "
    "reader of .karui files (`benchmarks/compact_speed.py`)."
)
STEPS = (
    "A whole step of `karui train`, batch to optimizer, with and without gates in turn on one thread, the least of "
    "many (`benchmarks/gate_step.py`). LeNet by 100 images with weights averaged; an SRU of 16 columns and 16 units a "
    "direction by 64 texts of 235 words. A gate for each weight doubles the numbers that are trained; sparse "
    "variational dropout on single weights multiplies every batch twice, by means and by variances."
)
TEST_REVIEWS = 25_000
TICKS = (100, 200, 300, 500, 1000, 2000, 5000)
LABELS = {"SparseVD, W+N": (7, 3), "SparseVD, W+G+N": (7, -9)}
"""Where the name of a published point stands, in points of type from it; to its right elsewhere."""
TAUGHT = ("imdb-20kb", "imdb-6kb")
"""Recipes of the table classification whose models keep words in the same way."""


def section(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of what is generated; "" without records."""
    own = reviews(records)
    if not own:
        return ""
    first = own[0]["settings"]
    out = [
        "## Film reviews",
        MEASURED.format(
            tokens=first["data"]["max_tokens"],
            texts=TEST_REVIEWS,
            machines=all_of(own, "hardware"),
            versions=all_of(own, "torch"),
        ),
    ]
    words = words_table(own)
    if words.rows:
        out += ["### Words", words.to_markdown(), f"![Test accuracy against words kept]({CURVE})"]
    asked = asked_table(own)
    if asked.rows:
        wide = next(record for record in own if any(key.startswith("target_") for key in record["metrics"]))
        model = wide["settings"]["model"]
        lead = ASKED.format(
            columns=model["embedding_dim"],
            units=model["hidden_size"],
            dense=wide["metrics"]["dense_bytes"],
            tolerance=100 * TOLERANCE,
        )
        out += ["### Asked and delivered", lead, asked.to_markdown()]
    out += misses_list(own)
    speed = speed_table(records)
    out += ["### Speed", SPEED, speed.to_markdown()] if speed.rows else []
    steps = steps_table(records)
    out += ["### What a training step costs", STEPS, steps.to_markdown()] if steps.rows else []
    return "\n\n".join(out) + "\n"


def update_review_page(docs: Path, results: Path, *, check: bool = False) -> list[str]:
    """Write section and picture where they are not those of the records; return the names that differed.

    With `check` nothing is written. Raises UserError where there is no such folder, or only one of the markers.
    """
    records = read_records(results)
    pictures = {CURVE: Picture(_points(records), lambda mark: words_picture(records, made_from=mark))}
    return update_part(docs / PAGE, MARKER, section(records), pictures, check=check)


@styled
def words_picture(records: Sequence[Mapping[str, Any]], *, made_from: str = "") -> bytes:
    """Test accuracy against words kept, a logarithmic axis, the published points and the dense model beside it."""
    from karui.report.figures import SERIES, _figure

    data = _points(records)
    figure, (axis,) = _figure(1, height=3.6, width_each=7.6)
    curve = [(words, 100 * accuracy) for words, accuracy in data["mean"]]
    axis.plot(
        *zip(*curve, strict=True), color=VALID, linewidth=1.6, marker="o", ms=5, label="karui, labels alone"
    )
    seeds = [(words, 100 * accuracy) for words, accuracy in data["seeds"]]
    axis.plot(*zip(*seeds, strict=True), color=VALID, linestyle="", marker=".", ms=4, alpha=0.6)
    taught = [(words, 100 * accuracy) for words, accuracy in data["taught"]]
    if taught:
        label = "karui, taught in part by a linear model (imdb-6kb, imdb-20kb)"
        axis.plot(*zip(*taught, strict=True), color=SERIES[1], linewidth=1.6, marker="o", ms=5, label=label)
    for name, words, accuracy in data["published"]:
        axis.plot(words, 100 * accuracy, color=SERIES[0], linestyle="", marker="D", ms=5)
        axis.annotate(
            name,
            (words, 100 * accuracy),
            textcoords="offset points",
            xytext=LABELS.get(name, (7, -3)),
            fontsize=8,
            color=MUTED,
        )
    axis.plot([], [], color=SERIES[0], linestyle="", marker="D", ms=5, label="published")
    if data["dense"]:
        axis.axhline(100 * data["dense"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="dense")
    axis.set_xscale("log")
    axis.set_xticks(TICKS, [f"{tick:,}" for tick in TICKS])
    axis.xaxis.set_minor_formatter(lambda *_: "")
    axis.set_xlim(90, 9000)
    axis.set_title("IMDb: test accuracy against words kept")
    axis.set_xlabel("words kept")
    axis.set_ylabel("test accuracy, %")
    axis.legend(fontsize=8, loc="upper left")
    return as_png(figure, made_from=made_from)


def _points(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the picture shows; empty without a point of our own."""
    found = word_groups(records)
    if not found:
        return {}
    dense = groups(records).get(DENSE, [])
    taught = by_recipe(
        record for record in records if record["task"] == "classification" and record["recipe"] in TAUGHT
    )
    return {
        "taught": sorted(
            (average(group, "words_kept"), average(group, "test_accuracy")) for group in taught.values()
        ),
        "mean": [(average(group, "words_kept"), average(group, "test_accuracy")) for group in found],
        "seeds": [
            (record["metrics"]["words_kept"], record["metrics"]["test_accuracy"])
            for group in found
            for record in group
        ],
        "published": [(each.method, each.words, each.accuracy) for each in PUBLISHED],
        "dense": average(dense, "test_accuracy") if dense else None,
    }
