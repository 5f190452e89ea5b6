"""Tables of the image networks, dense and sparse, beside what others have published; and whether targets were met.

Published figures were read in the named papers and repositories. Their weights and FLOPs are counted here from the
live units that they name, in the way that our own are counted.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from karui.report.asked import targets_table
from karui.report.groups import Records, average, by_recipe, source_of, spread
from karui.report.sparse_figures import METHODS, method_of
from karui.report.tables import Column, Table
from karui.report.units import format_percent


class PublishedNetwork(NamedTuple):
    """A sparse LeNet of somebody else."""

    network: str
    method: str
    units: tuple[int, ...]
    """Live inputs of linear layers, live output channels of convolutions; empty where only a share is known."""
    kept: float
    """Share of the weights that is kept; 0 = follows from the units."""
    error: float
    """Test error in percent."""
    source: str


_L0 = "Louizos, Welling, Kingma 2018"
_BAYES = "Louizos, Ullrich, Welling 2017"
_CONSTRAINED = "Gallego-Posada et al. 2022"
_VD = "Molchanov, Ashukha, Vetrov 2017"
PUBLISHED = (
    PublishedNetwork("lenet-300-100", "L0, one lambda", (219, 214, 100), 0, 1.4, _L0),
    PublishedNetwork("lenet-300-100", "L0, a lambda a layer", (266, 88, 33), 0, 1.8, _L0),
    PublishedNetwork("lenet-300-100", "BC-GNJ", (278, 98, 13), 0, 1.8, _BAYES),
    PublishedNetwork("lenet-300-100", "BC-GHS", (311, 86, 14), 0, 1.8, _BAYES),
    PublishedNetwork("lenet-300-100", "sparse VD, units", (512, 114, 72), 0, 1.8, f"{_VD}, as {_L0} have it"),
    PublishedNetwork("lenet-300-100", "constrained L0, 30 % a layer", (), 0.076, 2.19, _CONSTRAINED),
    PublishedNetwork("lenet-300-100", "sparse VD, weights", (), 1 / 68, 1.92, _VD),
    PublishedNetwork("lenet-5", "L0, one lambda", (20, 25, 45, 462), 0, 0.9, _L0),
    PublishedNetwork("lenet-5", "L0, a lambda a layer", (9, 18, 65, 25), 0, 1.0, _L0),
    PublishedNetwork("lenet-5", "BC-GNJ", (8, 13, 88, 13), 0, 1.0, _BAYES),
    PublishedNetwork("lenet-5", "BC-GHS", (5, 10, 76, 16), 0, 1.0, _BAYES),
    PublishedNetwork("lenet-5", "constrained L0, by layer", (), 0.0235, 0.91, _CONSTRAINED),
    PublishedNetwork("lenet-5", "sparse VD, weights", (), 1 / 280, 0.75, _VD),
)

DENSE_UNITS = {"lenet-300-100": (784, 300, 100), "lenet-5": (20, 50, 800, 500)}


def unit_costs(network: str, units: Sequence[int]) -> tuple[int, int]:
    """(weights, FLOPs of an image) of a LeNet with these live units, two FLOPs a multiplication, biases left out."""
    if network == "lenet-300-100":
        first, second, third = units
        weights = first * second + second * third + third * 10
        return weights, 2 * weights
    first, second, inputs, hidden = units
    convolutions = (25 * first, 25 * first * second)
    linear = inputs * hidden + hidden * 10
    uses = convolutions[0] * 24 * 24 + convolutions[1] * 8 * 8 + linear
    return sum(convolutions) + linear, 2 * uses


def network_table(records: Records, network: str) -> Table:
    """A row for each recipe of one LeNet that was held to no density or size but that of its neighbours."""
    columns = ("live units", "test error, %", "weights kept", "FLOPs", "bytes of the file", "source")
    table = Table([Column("method"), *(Column(name, number=name != "source") for name in columns)])
    groups = [group for group in _groups(records, network).values() if not is_asked(group[0])]
    order = list(METHODS)
    for group in sorted(
        groups, key=lambda each: (order.index(method_of(each[0])), -average(each, "dense_bytes"))
    ):
        table.rows.append(_own_row(group, network))
    if table.rows:
        table.rows += [_published_row(each) for each in PUBLISHED if each.network == network]
    return table


def asked_table(records: Records) -> Table:
    """What each method was asked for and what it came to, a row a target, the methods beside each other."""
    groups = [group for group in _groups(records, "lenet-300-100").values() if is_asked(group[0])]
    return targets_table(groups, "error, %", _error)


def wide_table(records: Records) -> Table:
    """A row for each wide ResNet on a subset: nothing published is trained on it."""
    columns = (
        "training images",
        "gates' target",
        "expected at the end",
        "test error, %",
        "weights kept",
        "FLOPs",
        "bytes of the file",
        "epochs",
    )
    table = Table([Column("network"), Column("method"), *(Column(name, number=True) for name in columns)])
    for group in _groups(records, "wrn").values():
        record, metrics = group[0], group[0]["metrics"]
        target, expected = _held_to(metrics)
        subset = "a subset" if record["data"]["subset"] else "all"
        table.rows.append(
            [
                str(record["model"]).upper(),
                METHODS[record["method"]],
                f"{record['data']['name']}, {subset}",
                target,
                expected,
                _error(group),
                f"{metrics['kept_params']:,} of {metrics['dense_params']:,}",
                format_percent(metrics["flops_ratio"]),
                f"{metrics['artifact_bytes']:,}",
                str(record["budget"]["epochs"]),
            ]
        )
    return table


def _held_to(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """What the gates of a network were held to, and what they expect at the end: a share of weights, or FLOPs."""
    last = (metrics.get("flops_curve") or [{}])[-1]
    if "target_flops" not in metrics:
        return format_percent(metrics.get("target_density")), format_percent(last.get("expected_density"))
    return (
        f"{metrics['target_flops'] / 1e6:g} million FLOPs",
        f"{format_percent(last.get('expected'))} of the FLOPs",
    )


def is_asked(record: Mapping[str, Any]) -> bool:
    """Whether the record stands in the table of targets: its recipe is named by what it was asked for."""
    return str(record["recipe"]).endswith(("pc", "kb"))


def _groups(records: Records, network: str) -> dict[str, list[Mapping[str, Any]]]:
    """Records of image networks by recipe, the published settings with them."""
    return by_recipe(
        record
        for record in records
        if record["task"] == "images" and str(record.get("model", "")).startswith(network)
    )


def _own_row(group: Records, network: str) -> list[str]:
    record = group[0]
    shapes = list(dict.fromkeys("-".join(map(str, each["metrics"]["architecture"])) for each in group))
    named = METHODS[method_of(record)]
    weights, flops = unit_costs(network, DENSE_UNITS[network])
    biases = sum(DENSE_UNITS[network]) - (784 if network == "lenet-300-100" else 800) + 10
    cost = mean(unit_costs(network, each["metrics"]["architecture"])[1] for each in group)
    return [
        f"{named}, small" if record["model"] != network else named,
        ", ".join(shapes),
        _error(group),
        _share(average(group, "kept_params"), weights + biases),
        format_percent(cost / flops),
        f"{average(group, 'artifact_bytes'):,.0f}",
        source_of(group),
    ]


def _published_row(each: PublishedNetwork) -> list[str]:
    of, dense = unit_costs(each.network, DENSE_UNITS[each.network])
    weights, flops = _share(each.kept * of, of), "–"
    if each.units:
        kept, cost = unit_costs(each.network, each.units)
        weights, flops = _share(kept, of), format_percent(cost / dense)
    shape = "-".join(map(str, each.units)) or "–"
    return [each.method, shape, f"{each.error:g}", weights, flops, "–", f"published: {each.source}"]


def _error(group: Records) -> str:
    return spread(group, "test_error", "{:.2f}".format)


def _share(kept: float, of: float) -> str:
    return f"{kept:,.0f} ({100 * kept / of:.1f} %)"
