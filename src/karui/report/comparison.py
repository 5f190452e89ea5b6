"""The records of the comparison of output layers, and the tables made of them.

Perplexities are those of the test part; a ratio above 1 means that the first of two methods is the worse one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from karui.report.schema import check_comparison
from karui.report.tables import Column, Table

TASK = "output-comparison"
BENCH = "bench-output-cpu"
FULL = "full"
WITHOUT_TEXT = "lm1b"
NOTHING = "–"
ASTRAY = 1e6  # a perplexity that needs no more digits
TITLES = {
    "full": "full softmax",
    "importance": "importance sampling",
    "importance-target": "importance sampling + target",
    "sampled": "sampled softmax",
    "nce": "NCE",
    "negative": "negative sampling",
    "blackout": "BlackOut",
    "self-normalized": "self-normalised softmax",
    "huffman": "Huffman tree",
    "class": "class softmax",
    "adaptive": "adaptive softmax",
    "torch-softmax": "torch: Linear + cross_entropy",
    "torch-adaptive": "torch: AdaptiveLogSoftmaxWithLoss",
}
"""Method -> what a person calls it."""

UNBOUNDED = (
    "its estimate of Z holds the target only where it was drawn, so that the loss has no lower bound: the target's "
    "score can rise for ever. It is shown as it is; the form with the target in the estimate is the cure"
)
FAR = 1.25
"""Perplexity over that of the form with the target from which on the missing bound is told."""

SAMPLED = ("importance", "importance-target", "sampled", "nce", "negative", "blackout")
FLAT = ("full", *SAMPLED, "self-normalized")


@dataclass(frozen=True)
class Part:
    """One text, or the layers alone: the records by method, in the order of `TITLES`."""

    name: str
    records: Mapping[str, Mapping[str, Any]]

    @property
    def is_text(self) -> bool:
        """Tell whether models were trained, or layers timed alone."""
        return any("curve" in record for record in self.records.values())

    @property
    def any(self) -> Mapping[str, Any]:
        """Some record, for what all have in common."""
        return next(iter(self.records.values()))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings that all records have in common."""
        return self.any["settings"]

    @property
    def classes(self) -> int:
        """Number of words."""
        return int(self.any["metrics"]["classes"])

    def value(self, method: str, key: str) -> float | None:
        """A figure of a method; None where there is none."""
        record = self.records.get(method)
        value = None if record is None else record["metrics"].get(key)
        return None if value is None else float(value)

    def ratio(self, method: str, other: str, key: str) -> float | None:
        """A figure of a method over that of another; None where one is missing."""
        above, below = self.value(method, key), self.value(other, key)
        return None if above is None or not below else above / below

    def ranked(self, key: str, methods: Sequence[str] = tuple(TITLES)) -> list[tuple[str, float]]:
        """Methods and figures, the smallest first; those without one are left out."""
        found = [(method, value) for method in methods if (value := self.value(method, key)) is not None]
        return sorted(found, key=lambda pair: pair[1])


def parts_of(records: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Return the parts of the comparison among all records: texts by their numbers of words, then the layers alone.

    Raises:
        UserError: a record lacks a figure.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        if record["task"] == TASK:
            check_comparison(record, f"the record of {record.get('method')} in {record['recipe']}")
            found.setdefault(record["recipe"].removeprefix(f"{TASK}-"), {})[record["method"]] = record
    order = list(TITLES)
    parts = [
        Part(name, {m: methods[m] for m in sorted(methods, key=order.index)})
        for name, methods in found.items()
    ]
    return sorted(parts, key=lambda part: (not part.is_text, part.classes))


def bench_rows(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return the rows of the recorded `karui bench output` by method and classes; empty where there is no record."""
    rows: dict[tuple[str, int], Mapping[str, Any]] = {}
    for record in records:
        if record["recipe"] == BENCH:
            rows |= {
                (row["method"], row["classes"]): row for row in record["metrics"]["rows"] if row["step_ms"]
            }
    return rows


def text_table(part: Part) -> Table:
    """Return a row a method on a text, the best in equal time first."""
    seconds, tokens = part.settings["seconds"], part.settings["tokens"]
    table = _table(
        "method",
        f"perplexity after {seconds:g} s",
        "tokens read in them",
        f"perplexity after {tokens:,} tokens",
        "s for them",
        "ms a step",
        "peak MB",
        "ms a query",
        "rate ×",
    )
    best_time, best_tokens = _best(part, "perplexity_at_time"), _best(part, "perplexity_at_tokens")
    order = [method for method, _ in part.ranked("perplexity_at_time")]
    for method in [*order, *(method for method in part.records if method not in order)]:
        record = part.records[method]
        table.rows.append(
            [
                TITLES[method],
                _cell(part.value(method, "perplexity_at_time"), perplexity, bold=method == best_time),
                _cell(part.value(method, "tokens_at_time"), "{:,.0f}"),
                _cell(part.value(method, "perplexity_at_tokens"), perplexity, bold=method == best_tokens),
                _cell(part.value(method, "cpu_seconds_at_tokens"), "{:.0f}"),
                *_costs(part, method),
                _cell(record.get("factor"), "{:.2g}"),
            ]
        )
        table.notes += [f"{TITLES[method]}: {note}." for note in _notes(part, method)]
    return table


def _notes(part: Part, method: str) -> list[str]:
    """What a reader must know about a row: why a score is missing, or what makes it a bad one."""
    record = part.records[method]
    budgets = {"perplexity_at_time": "equal time", "perplexity_at_tokens": "equal tokens"}
    notes = [f"no score at {budgets[key]}, {reason}" for key, reason in record.get("reasons", {}).items()]
    factors = [trial["factor"] for trial in record.get("trials", ())]
    if len(factors) > 1 and record.get("factor") in (min(factors), max(factors)):
        notes.append(f"the best rate is the {_edge(record)} of those tried")
    ratios = [part.ratio(method, "importance-target", key) for key in budgets]
    if method == "importance" and any(ratio is None or ratio > FAR for ratio in ratios):
        notes.append(UNBOUNDED)
    return notes


def _edge(record: Mapping[str, Any]) -> str:
    is_last = record["factor"] == max(trial["factor"] for trial in record["trials"])
    return "largest" if is_last else "smallest"


def settings_differ(a: Any, b: Any) -> bool:
    """Whether two settings differ in what both have: a record may be older than a setting."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return any(settings_differ(a[name], b[name]) for name in a.keys() & b.keys())
    return a != b


def layer_table(part: Part) -> Table:
    """Return a row a method for the layers alone, the fastest step first."""
    table = _table("method", "ms a step", "of it update", "full / step", "peak MB", "tables", "ms a query")
    weights = 4e-6 * part.classes * part.settings["hidden"]
    for method, step in part.ranked("step_ms"):
        ratio, peak = part.ratio(FULL, method, "step_ms"), part.value(method, "peak_mb")
        costs = _costs(part, method)
        table.rows.append(
            [
                TITLES[method],
                _number(step),
                _cell(part.value(method, "optimizer_ms"), "{:.1f}"),
                _cell(ratio, "{:,.0f}×" if ratio and ratio >= 9.95 else "{:.1f}×"),
                costs[1],
                _cell(None if peak is None else peak / weights, "{:.2f}"),
                costs[2],
            ]
        )
    return table


def normaliser_table(parts: Sequence[Part]) -> Table:
    """Return log Z of the un-normalised scores, mean and standard deviation, of every flat layer on every text."""
    texts = [part for part in parts if part.is_text]
    table = _table("method", *(f"log Z on {part.name}" for part in texts))
    for method in FLAT:
        cells = []
        for part in texts:
            mean, spread = part.value(method, "log_z_mean"), part.value(method, "log_z_sd")
            cells.append(NOTHING if mean is None or spread is None else f"{mean:.2f} ± {spread:.2f}")
        if any(cell != NOTHING for cell in cells):
            table.rows.append([TITLES[method], *cells])
    return table


def _table(*titles: str) -> Table:
    return Table([Column(title, number=title != "method") for title in titles])


def _costs(part: Part, method: str) -> list[str]:
    """Milliseconds a step, megabytes, milliseconds a query."""
    step, query = part.value(method, "step_ms"), part.value(method, "query_ms")
    return [
        NOTHING if step is None else _number(step),
        _cell(part.value(method, "peak_mb"), "{:,.0f}"),
        NOTHING if query is None else _number(query),
    ]


def _number(value: float) -> str:
    """Three figures: 0.057, 1.39, 39.3, 644, 19,600."""
    if value >= 99.5:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def perplexity(value: float) -> str:
    """One decimal; what has gone astray by its power of ten."""
    return f"{value:,.1f}" if value < ASTRAY else f"{value:.0e}".replace("e+", "e")


def _cell(value: float | None, form: str | Callable[[float], str], *, bold: bool = False) -> str:
    if value is None:
        return NOTHING
    shown = form.format(value) if isinstance(form, str) else form(value)
    return f"**{shown}**" if bold else shown


def _best(part: Part, key: str) -> str | None:
    ranked = part.ranked(key)
    return ranked[0][0] if ranked else None
