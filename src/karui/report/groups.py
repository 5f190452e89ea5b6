"""Records of one recipe as a group, a record a seed: what the cells of a table say of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

Records = Sequence[Mapping[str, Any]]


def by_recipe(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Records by the name of their recipe, in the order in which they come."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        found.setdefault(str(record["recipe"]), []).append(record)
    return found


def average(group: Records, key: str) -> float:
    """Mean of a metric over seeds."""
    return mean(float(record["metrics"][key]) for record in group)


def spread(group: Records, key: str, shown: Callable[[float], str]) -> str:
    """Mean of a metric over seeds, with its standard deviation where there are several; `shown` writes a number."""
    values = [float(record["metrics"][key]) for record in group]
    deviation = f" ± {shown(stdev(values))}" if len(values) > 1 else ""
    return f"{shown(mean(values))}{deviation}"


def source_of(group: Records, *more: str) -> str:
    """Where the figures come from: recipe, epochs, what else is to be said, seeds."""
    first = group[0]
    seeds = f"{len(group)} seeds" if len(group) > 1 else "one seed"
    return ", ".join([f"karui {first['recipe']}", f"{first['budget']['epochs']} epochs", *more, seeds])


def all_of(records: Records, key: str) -> str:
    """What the records say under a key, such as their hardware, each once."""
    return " and ".join(sorted({str(record[key]) for record in records}))
