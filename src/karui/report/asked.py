"""What networks were asked to come to, a density, a size or a number of weights, and what they came to."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from karui.report.groups import Records, average
from karui.report.sparse_figures import METHODS
from karui.report.tables import Column, Table

TOLERANCE = 0.03
"""Share of a target that a network may stay away from it; a file is never above its size."""

TARGETS = {
    "target_density": "density",
    "target_size": "artifact_bytes",
    "target_params": "kept_params",
}
"""What was asked for, and the metric that it is compared with."""


def asked_of(record: Mapping[str, Any]) -> tuple[str, float] | None:
    """The target of a record, a key of `TARGETS`, and its value; None where nothing was asked for."""
    metrics = record["metrics"]
    return next(((target, metrics[target]) for target in TARGETS if target in metrics), None)


def miss_of(record: Mapping[str, Any]) -> str | None:
    """How a record fails its target; None where it meets it within `TOLERANCE` and is no larger than a size asked for.

    Without a target there is nothing to miss.
    """
    metrics = record["metrics"]
    for target, metric in TARGETS.items():
        if target not in metrics:
            continue
        asked, found = metrics[target], metrics[metric]
        if target == "target_size" and found > asked:
            return f"{found:,} bytes, {found - asked:,} more than asked"
        if abs(found / asked - 1) > TOLERANCE:
            return f"{metric} {found:g}, {found / asked - 1:+.1%} from {asked:g}"
    return None


def misses(records: Records) -> list[str]:
    """A line for each record that is off its target."""
    return [
        f"`{record['recipe']}` seed {record['seed']}: {miss}"
        for record in records
        if (miss := miss_of(record))
    ]


def misses_list(records: Records) -> list[str]:
    """The same as one part of a page; no part where every record meets its target."""
    lines = [f"- {line}" for line in misses(records)]
    return ["\n".join(["Missed:", "", *lines])] if lines else []


def targets_table(
    groups: Iterable[Records],
    quality: str,
    quality_of: Callable[[Records], str],
    *,
    small: Mapping[int, Records] | None = None,
) -> Table:
    """A row a target, and for each method beside the others what it came to and how good that is.

    quality, quality_of: title and text of the cells of a group's quality. small: bytes -> dense models whose file is
    of that size, in columns of their own.
    """
    by_target: dict[tuple[str, float], dict[str, Records]] = {}
    for group in groups:
        if (asked := asked_of(group[0])) is not None:
            by_target.setdefault(asked, {})[group[0]["method"]] = group
    methods = [name for name in METHODS if any(name in found for found in by_target.values())]
    titles = [f"{METHODS[method]}: came to" for method in methods]
    titles += [] if small is None else ["small dense model"]
    table = Table([Column("asked for")])
    for title in titles:
        table.columns += [Column(title, number=True), Column(quality, number=True)]
    for (target, value), found in sorted(by_target.items(), key=lambda item: (item[0][0], -item[0][1])):
        is_share = target == "target_density"
        row = [f"{100 * value:g} %" if is_share else f"{int(value):,} B"]
        for method in methods:
            row += _came_to(found.get(method, ()), target, quality_of)
        if small is not None:
            row += _came_to(() if is_share else small.get(int(value), ()), "target_size", quality_of)
        table.rows.append(row)
    return table


def _came_to(group: Records, target: str, quality_of: Callable[[Records], str]) -> list[str]:
    if not group:
        return ["–", "–"]
    value = average(group, TARGETS[target])
    shown = f"{100 * value:.2f} %" if target == "target_density" else f"{value:,.0f}"
    missed = any(miss_of(record) for record in group)
    return [f"{shown}{' (missed)' if missed else ''}", quality_of(group)]
