"""Tables of the recurrent layers on pixels and music, each beside what others have published.

Published figures were read in the named papers, repositories or slides; sizes, lengths and budgets differ from ours and
stand in the table.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from karui.report.groups import Records, average, by_recipe, spread
from karui.report.tables import Column, Table
from karui.report.units import format_percent


class Published(NamedTuple):
    """A figure of somebody else: what it is about, the layer, its size in words, the value, and the source."""

    about: str
    layer: str
    size: str
    value: float
    source: str


_TCN = "Bai, Kolter, Koltun 2018"
_SLIDES = "DLHacks slides 2017, 200 epochs"
_CHECKPOINTS = "DLHacks/SRU checkpoints, chosen on test"
_RASTER, _PERMUTED = "784 steps", "784 steps, permuted"
LAYERS = {
    "sru": "SRU",
    "statistical-ru": "Statistical RU",
    "lstm": "LSTM",
    "gru": "GRU",
    "qrnn": "QRNN",
    "mingru": "minGRU",
}

PUBLISHED_PIXELS = (
    Published(_RASTER, "Statistical RU", "200/60/200", 0.956, _SLIDES),
    Published(_RASTER, "LSTM", "", 0.978, _SLIDES),
    Published(_RASTER, "GRU", "", 0.984, _SLIDES),
    Published(_RASTER, "Statistical RU", "", 0.9260, _CHECKPOINTS),
    Published(_RASTER, "LSTM", "", 0.9428, _CHECKPOINTS),
    Published(_RASTER, "GRU", "", 0.9790, _CHECKPOINTS),
    Published(_RASTER, "LSTM", "70 K weights", 0.872, _TCN),
    Published(_RASTER, "GRU", "70 K weights", 0.962, _TCN),
    Published(_PERMUTED, "LSTM", "70 K weights", 0.857, _TCN),
    Published(_PERMUTED, "GRU", "70 K weights", 0.873, _TCN),
)
"""Test accuracy on pixel-by-pixel MNIST."""

PUBLISHED_MUSIC = (
    Published("jsb", "LSTM", "300 K weights", 8.45, _TCN),
    Published("jsb", "GRU", "300 K weights", 8.43, _TCN),
    Published("jsb", "TCN (convolutions)", "300 K weights", 8.10, _TCN),
    Published("nottingham", "LSTM", "1 M weights", 3.29, _TCN),
    Published("nottingham", "GRU", "1 M weights", 3.46, _TCN),
    Published("nottingham", "TCN (convolutions)", "1 M weights", 3.07, _TCN),
)
"""Test negative log-likelihood in nats a step, the first step of a sequence left out."""


def pixel_table(records: Records) -> Table:
    """Return a row for each recipe on pixel-by-pixel MNIST, the best first in each length, then the published ones."""
    groups = groups_of(records, "pixels", "test_accuracy")
    table = _table("steps", "test accuracy")
    ordered = sorted(
        groups.values(), key=lambda group: (_pixel_steps(group[0]), -average(group, "test_accuracy"))
    )
    for group in ordered:
        table.rows.append(
            _row(group, _pixel_steps(group[0]), "test_accuracy", lambda value: f"{100 * value:.2f}", " %")
        )
    if groups:
        table.rows += [
            [p.about, p.layer, p.size, "–", format_percent(p.value), "–", p.source] for p in PUBLISHED_PIXELS
        ]
    return table


def music_table(records: Records) -> Table:
    """Return a row for each recipe on polyphonic music, the best first in each set, then the published ones."""
    groups = groups_of(records, "music", "test_nll")
    table = _table("data", "test nats a step")
    for group in sorted(groups.values(), key=lambda group: (_data(group[0]), average(group, "test_nll"))):
        table.rows.append(_row(group, _data(group[0]), "test_nll", lambda value: f"{value:.3f}", ""))
    if groups:
        table.rows += [
            [p.about, p.layer, p.size, "–", f"{p.value:.2f}", "–", p.source] for p in PUBLISHED_MUSIC
        ]
    return table


def groups_of(records: Records, task: str, score: str) -> dict[str, list[Mapping[str, Any]]]:
    """Records by recipe: those of a task that have a score and name their layer."""
    return by_recipe(
        record
        for record in records
        if record["task"] == task and score in record["metrics"] and "layer" in record
    )


def _table(about: str, score: str) -> Table:
    titles = (about, "layer", "sizes", "weights", score, "s/epoch", "source")
    return Table([Column(title, number=title in ("weights", score, "s/epoch")) for title in titles])


def _row(group: Records, about: str, score: str, shown: Callable[[float], str], unit: str) -> list[str]:
    record = group[0]
    budget = record["budget"]
    return [
        about,
        _layer(record),
        sizes_of(record["layer"]),
        f"{average(group, 'parameters'):,.0f}",
        spread_of(group, score, shown, unit),
        f"{average(group, 'seconds_per_epoch'):.1f}",
        f"karui, {budget['trials']} trials, {budget['epochs']} epochs",
    ]


def spread_of(group: Records, score: str, shown: Callable[[float], str], unit: str) -> str:
    """Return the mean over seeds, with its standard deviation where there are several."""
    seeds = f" ({len(group)} seeds)" if len(group) > 1 else ""
    return f"{spread(group, score, shown)}{unit}{seeds}"


def _layer(record: Mapping[str, Any]) -> str:
    """Return the name of a layer, with what the recipe's name adds to it: the ablation, the scale set."""
    kind = str(record["layer"]["recurrent"])
    name = LAYERS.get(kind, kind)
    variant = record["recipe"].rpartition(f"{kind}-")[2] if f"{kind}-" in record["recipe"] else ""
    return f"{name}, {variant}" if variant else name


def sizes_of(layer: Mapping[str, Any]) -> str:
    """Return the sizes of a layer in words."""
    if "alphas" in layer:
        scales = ", ".join(f"{alpha:g}" for alpha in layer["alphas"])
        return f"{layer['num_stats']}/{layer['recur_size']}/{layer['hidden_size']}, A = {{{scales}}}"
    layers = layer["num_layers"]
    return f"{layer['hidden_size']}" if layers == 1 else f"{layers} layers of {layer['hidden_size']}"


def _pixel_steps(record: Mapping[str, Any]) -> str:
    prefix, _, rest = record["recipe"].partition("-")
    steps = f"{rest.partition('-')[0]} steps"
    return f"{steps}, permuted" if prefix == "permuted" else steps


def _data(record: Mapping[str, Any]) -> str:
    return str(record["data"]["name"])
