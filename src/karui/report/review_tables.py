"""Tables of sparse classifiers of film reviews: words kept beside what others have published, and targets."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from karui.report.image_tables import TARGETS, miss_of
from karui.report.sparse_figures import METHODS
from karui.report.tables import Column, Table

Records = Sequence[Mapping[str, Any]]

TASK = "sparse-classification"
SPEED = "compact-speed"
VOC, SMALL, DENSE = "imdb-voc-", "imdb-small-", "imdb-dense"
"""How the recipes of points of accuracy against words, of small dense models, and of the dense one are called."""


class PublishedWords(NamedTuple):
    """A sparse classifier of IMDb reviews of somebody else."""

    method: str
    words: int
    accuracy: float
    """Test accuracy, a share."""
    compression: float
    """Weights over weights that are not zero."""


SOURCE = "logs of Chirkova, Lobacheva, Vetrov 2018"
PUBLISHED = (
    PublishedWords("SparseVD", 5054, 0.8410, 1208.5),
    PublishedWords("SparseVD-Voc", 265, 0.8328, 19_498.9),
    PublishedWords("SparseVD, W+N", 316, 0.8401, 16_676.0),
    PublishedWords("SparseVD, W+G+N", 307, 0.8387, 18_457.5),
)
"""An LSTM of 128 units over 300 columns that reads the first 200 words."""


def reviews(records: Records) -> list[Mapping[str, Any]]:
    """Those of sparse classifiers and of the dense ones beside them."""
    return [record for record in records if record["task"] == TASK]


def groups(records: Records) -> dict[str, list[Mapping[str, Any]]]:
    """Records by recipe."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in reviews(records):
        found.setdefault(str(record["recipe"]), []).append(record)
    return found


def average(group: Records, key: str) -> float:
    """Mean of a metric over seeds."""
    return mean(float(record["metrics"][key]) for record in group)


def word_groups(records: Records) -> list[list[Mapping[str, Any]]]:
    """The points of accuracy against words, the fewest words first."""
    found = [group for name, group in groups(records).items() if name.startswith(VOC)]
    return sorted(found, key=lambda group: average(group, "words_kept"))


def words_table(records: Records) -> Table:
    """A row for each weight of the penalty, the fewest words first, then the published ones."""
    numbers = ("words kept", "test accuracy, %", "weights left", "bytes of the file", "live units")
    table = Table([Column("model"), *(Column(name, number=True) for name in numbers), Column("source")])
    for group in word_groups(records):
        metrics = group[0]["metrics"]
        table.rows.append(
            [
                f"SparseVD-Voc, penalty {metrics['penalty_weight']:g}",
                _whole(group, "words_kept"),
                _accuracy(group),
                _whole(group, "kept_params"),
                _whole(group, "artifact_bytes"),
                ", ".join(dict.fromkeys(_shape(record) for record in group)),
                _source(group),
            ]
        )
    if table.rows:
        dense = groups(records).get(DENSE, [])
        if dense:
            shape = _shape(dense[0])
            cells = [_whole(dense, key) for key in ("kept_params", "artifact_bytes")]
            row = ["dense", _whole(dense, "words_kept"), _accuracy(dense), *cells, shape, _source(dense)]
            table.rows.append(row)
        table.rows += [
            [
                each.method,
                f"{each.words:,}",
                f"{100 * each.accuracy:.2f}",
                f"1 / {each.compression:,.0f}",
                "–",
                "–",
                SOURCE,
            ]
            for each in PUBLISHED
        ]
    return table


def asked_table(records: Records) -> Table:
    """What each method was asked for and came to, a row a target, and a small dense model of these bytes."""
    by_target: dict[tuple[str, float], dict[str, Records]] = {}
    small = {}
    for name, group in groups(records).items():
        metrics = group[0]["metrics"]
        asked = next(((target, metrics[target]) for target in TARGETS if target in metrics), None)
        if asked is not None:
            by_target.setdefault(asked, {})[group[0]["method"]] = group
        elif name.startswith(SMALL):
            small[1000 * int(name.removeprefix(SMALL).removesuffix("kb"))] = group
    methods = [name for name in METHODS if any(name in found for found in by_target.values())]
    table = Table([Column("asked for")])
    for method in methods:
        names = (f"{METHODS[method]}: came to", "accuracy, %")
        table.columns += [Column(name, number=True) for name in names]
    table.columns += [Column("small dense model", number=True), Column("accuracy, %", number=True)]
    for (target, value), found in sorted(by_target.items(), key=lambda item: (item[0][0], -item[0][1])):
        is_share = target == "target_density"
        row = [f"{100 * value:g} %" if is_share else f"{int(value):,} B"]
        for method in methods:
            row += _came_to(found.get(method, ()), target)
        row += _came_to(() if is_share else small.get(int(value), ()), "target_size")
        table.rows.append(row)
    return table


def speed_table(records: Records) -> Table:
    """FLOPs and milliseconds of dense and compacted networks of `benchmarks/compact_speed.py`, a row a measurement."""
    names = ("FLOPs of the dense one over those left", "its time over the time left", "second over first")
    table = Table([Column("network"), Column("live units"), *(Column(name, number=True) for name in names)])
    for record in records:
        if record["recipe"] != SPEED:
            continue
        metrics = record["metrics"]
        for key, title in (("lenet-300-100", "LeNet-300-100"), ("imdb", "film reviews")):
            units = "-".join(map(str, metrics[key]["architecture"]))
            for part, each in metrics[key].items():
                if isinstance(each, dict):
                    cells = [f"{each[name]:.2f}" for name in ("flops_ratio", "time_ratio", "quotient")]
                    table.rows.append([f"{title}, {part}", units, *cells])
    return table


def misses(records: Records) -> list[str]:
    """A line for each record that is off its target."""
    return [
        f"`{record['recipe']}` seed {record['seed']}: {miss}"
        for record in reviews(records)
        if (miss := miss_of(record))
    ]


def _came_to(group: Records, target: str) -> list[str]:
    if not group:
        return ["–", "–"]
    value = average(group, TARGETS[target])
    shown = f"{100 * value:.2f} %" if target == "target_density" else f"{value:,.0f}"
    missed = any(miss_of(record) for record in group)
    return [f"{shown}{' (missed)' if missed else ''}", _accuracy(group)]


def _accuracy(group: Records) -> str:
    values = [100 * float(record["metrics"]["test_accuracy"]) for record in group]
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"


def _whole(group: Records, key: str) -> str:
    values = list(dict.fromkeys(int(record["metrics"][key]) for record in group))
    return ", ".join(f"{value:,}" for value in values)


def _shape(record: Mapping[str, Any]) -> str:
    """Columns of the embedding and units of each direction."""
    _, columns, *units = record["metrics"]["architecture"]
    return f"{columns}-{'+'.join(map(str, units))}"


def _source(group: Records) -> str:
    seeds = f"{len(group)} seeds" if len(group) > 1 else "one seed"
    return f"karui {group[0]['recipe']}, {group[0]['budget']['epochs']} epochs, {seeds}"
