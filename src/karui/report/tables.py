"""One table for terminal, Markdown and HTML, and the rows of compact models beside what a user would take instead."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from karui.report.records import BASELINES, data_title
from karui.report.schema import CompactFile, RunFolder
from karui.report.units import format_bytes, format_percent, format_points, format_times, format_us

LEVEL = 0.0005  # differences below 0.05 points are called equal


@dataclass
class Column:
    """A column and whether its cells are numbers (set flush right)."""

    title: str
    number: bool = False


@dataclass
class Table:
    """Columns, rows of text cells, and lines that stand below."""

    columns: list[Column]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_terminal(self) -> str:
        """Return the table as plain text, as wide as it needs to be: a figure is never cut short."""
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in self.columns:
            title = column.title.replace(", ", ",\n")
            table.add_column(Text(title), justify="right" if column.number else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))  # Text: "[...]" in a name is no markup
        console = Console(width=1000, highlight=False, markup=False, color_system=None)
        with console.capture() as capture:
            console.print(table)
        lines = [line.rstrip() for line in capture.get().splitlines()]
        return "\n".join([*(line for line in lines if line), *self.notes])

    def to_markdown(self) -> str:
        """Return the table as Markdown, the notes as a list below."""

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

        rule = ["---:" if column.number else "---" for column in self.columns]
        lines = [line([column.title for column in self.columns]), line(rule), *map(line, self.rows)]
        return "\n".join([*lines, *([""] if self.notes else []), *(f"- {note}" for note in self.notes)])

    def to_html(self) -> str:
        """Return the table as HTML; every cell is escaped."""

        def cells(tag: str, texts: Sequence[str]) -> str:
            kinds = (' class="number"' if column.number else "" for column in self.columns)
            return "".join(
                f"<{tag}{kind}>{html.escape(text)}</{tag}>" for kind, text in zip(kinds, texts, strict=True)
            )

        head = cells("th", [column.title for column in self.columns])
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in self.notes)
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}'


@dataclass
class Rival:
    """The best file of a rival within a budget, chosen on the validation split."""

    name: str
    artifact_bytes: int
    accuracy: float | None
    us_per_document: float | None


def rivals(points: Sequence[Mapping[str, Any]], max_bytes: float, key: str = "test_accuracy") -> list[Rival]:
    """Return, for each rival by name, its best file of at most `max_bytes`; `key` is the accuracy it shows."""
    best: dict[str, Mapping[str, Any]] = {}
    for point in sorted(points, key=lambda point: point["artifact_bytes"]):
        old = best.get(point["name"])
        if point["artifact_bytes"] <= max_bytes and (
            old is None or point["valid_accuracy"] > old["valid_accuracy"]
        ):
            best[point["name"]] = point
    return [
        Rival(p["name"], p["artifact_bytes"], p.get(key), p.get("us_per_document")) for p in best.values()
    ]


def verdict(accuracy: float | None, beside: Sequence[Rival]) -> str:
    """Say in a cell who is more accurate: karui against the best rival of equal or fewer bytes."""
    known = [rival for rival in beside if rival.accuracy is not None]
    if accuracy is None or not known:
        return "–"
    best = max(known, key=lambda rival: rival.accuracy or 0.0)
    difference = accuracy - (best.accuracy or 0.0)
    if abs(difference) < LEVEL:
        return "equal"
    return (
        f"karui {format_points(difference)}"
        if difference > 0
        else f"{short_name(best.name)} {format_points(-difference)}"
    )


def run_table(run: RunFolder, dense: RunFolder | None = None) -> Table:
    """Return dense and compact files of a run, each beside the rivals of equal or fewer bytes.

    `dense` is a run trained without sparsification, when there is one; else the dense model is the run's own.
    """
    points = (run.baselines or {}).get("points", [])
    names = list(dict.fromkeys(point["name"] for point in points))
    key = accuracy_key(run)
    table = Table(_columns(names, first="model", accuracy=key.replace("_", " ")))
    best = dense_of(run, dense)
    if best:
        table.rows.append(
            [
                "dense",
                format_percent(best.get(key)),
                format_bytes(best["artifact_bytes"]),
                "1×",
                format_us(best.get("us_per_document")),
                _count(best.get("words_kept")),
                *["–"] * (len(names) + bool(names)),
            ]
        )
    for file in reversed(run.files):
        size = file["artifact_bytes"]
        beside = rivals(points, size, key)
        table.rows.append(
            [
                file_title(file, run.files),
                format_percent(file.get(key)),
                format_bytes(size),
                format_times(best["artifact_bytes"] / size) if best else "–",
                format_us(file.get("us_per_document")),
                _count(file.get("words_kept")),
                *_beside(names, beside),
                *([verdict(file.get(key), beside)] if names else []),
            ]
        )
    table.notes = _run_notes(run, bool(best))
    return table


def dense_of(run: RunFolder, dense: RunFolder | None) -> Mapping[str, Any] | None:
    """Return the dense model that a run is compared with: of the dense run where one is given."""
    if dense is not None:
        largest = dense.files[-1] if dense.files else None
        return dense.compact.get("dense") or largest
    return run.compact.get("dense")


def file_title(file: CompactFile, files: Sequence[CompactFile]) -> str:
    """Return what a file is called in a row: by its values, and by its name where several have the same."""
    same = sum(other["values"] == file["values"] for other in files)
    return (
        f"compact, {file['values']}" if same == 1 else f"{Path(file.get('path', '')).name}, {file['values']}"
    )


def accuracy_key(run: RunFolder) -> str:
    """Return "test_accuracy", or "valid_accuracy" for a set without test split, where nothing has one."""
    entries = [*run.files, *(run.baselines or {}).get("points", [])]
    has_test = any(entry.get("test_accuracy") is not None for entry in entries)
    return "test_accuracy" if has_test or not entries else "valid_accuracy"


def results_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row for each data set and recipe, the mean over seeds, each beside the rivals."""
    points: dict[str, list[Mapping[str, Any]]] = {}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        if record["task"] != "classification":
            continue
        if record["recipe"] == BASELINES:
            points.setdefault(data_title(record), []).extend(record.get("points", []))
        elif {"test_accuracy", "artifact_bytes"} <= record["metrics"].keys():
            groups.setdefault((data_title(record), record["recipe"]), []).append(record)
    names = list(dict.fromkeys(point["name"] for found in points.values() for point in found))
    table = Table([Column("data"), *_columns(names, first="recipe", dense=True)])
    for (data, recipe), group in sorted(
        groups.items(), key=lambda item: (item[0][0], _mean(item[1], "artifact_bytes"))
    ):
        size, accuracy = _mean(group, "artifact_bytes"), _mean(group, "test_accuracy")
        dense_bytes, dense_accuracy = _mean(group, "dense_bytes"), _mean(group, "dense_accuracy")
        beside = rivals(points.get(data, []), size or 0)
        table.rows.append(
            [
                data,
                recipe,
                _spread(group),
                format_bytes(size or 0),
                "–"
                if not dense_bytes
                else f"{format_percent(dense_accuracy)} in {format_bytes(dense_bytes)}",
                format_times(dense_bytes / size) if dense_bytes and size else "–",
                format_us(_mean(group, "us_per_document")),
                _count(_mean(group, "words_kept")),
                *_beside(names, beside),
                *([verdict(accuracy, beside)] if names else []),
            ]
        )
    return table


def _columns(
    names: Sequence[str], *, first: str, accuracy: str = "test accuracy", dense: bool = False
) -> list[Column]:
    beside = [Column(f"{short_name(name)}, no larger", number=True) for name in names]
    return [
        Column(first),
        Column(accuracy, number=True),
        Column("file", number=True),
        *([Column("dense", number=True)] if dense else []),
        Column("smaller", number=True),
        Column("µs/document", number=True),
        Column("words", number=True),
        *beside,
        *([Column("winner")] if names else []),
    ]


def _beside(names: Sequence[str], found: Sequence[Rival]) -> list[str]:
    by_name = {rival.name: rival for rival in found}
    return [
        f"{format_percent(by_name[name].accuracy)} in {format_bytes(by_name[name].artifact_bytes)}"
        if name in by_name
        else "none so small"
        for name in names
    ]


def _run_notes(run: RunFolder, has_dense: bool) -> list[str]:
    notes = []
    if not run.files:
        notes.append(f"no compact file yet: karui compact {run.path} -o model.karui makes one")
    elif not has_dense:
        notes.append("no dense model to compare with: train one without --sparse and give it as --dense RUN")
    key = accuracy_key(run)
    if run.files and key == "valid_accuracy":
        notes.append("accuracies are on the validation split: the data set has no test split")
    for file in run.files:
        best = max(
            rivals((run.baselines or {}).get("points", []), file["artifact_bytes"], key),
            key=_rank,
            default=None,
        )
        accuracy = file.get(key)
        if best and best.accuracy is not None and accuracy is not None and best.accuracy - accuracy >= LEVEL:
            notes.append(
                f"{file_title(file, run.files)}: {best.name} is more accurate with no more bytes, "
                f"{format_percent(best.accuracy)} in {format_bytes(best.artifact_bytes)} "
                f"against {format_percent(accuracy)} in {format_bytes(file['artifact_bytes'])}"
            )
    if run.baselines is None:
        notes.append(f"no baselines yet: karui report {run.path} --baselines measures them")
    return [*notes, *(run.baselines or {}).get("notes", [])]


def _rank(rival: Rival) -> float:
    return rival.accuracy or 0.0


def short_name(name: str) -> str:
    """Return what a rival is called in a narrow column."""
    return {"L1 logistic regression, int8": "linear model", "fastText, quantised": "fastText"}.get(name, name)


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _mean(group: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [record["metrics"][key] for record in group if record["metrics"].get(key) is not None]
    return mean(values) if values else None


def _spread(group: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean test accuracy, with its range where there are several seeds."""
    values = [record["metrics"]["test_accuracy"] for record in group]
    if len(values) == 1:
        return format_percent(values[0])
    return f"{100 * mean(values):.1f} % ({100 * min(values):.1f} to {100 * max(values):.1f}, {len(values)} seeds)"
