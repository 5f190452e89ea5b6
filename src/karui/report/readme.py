"""The result tables of the README, each generated between two markers of its own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from karui.errors import UserError
from karui.files import atomic_write
from karui.report.language_tables import character_table, word_table
from karui.report.records import read_records
from karui.report.sequence_tables import music_table, pixel_table
from karui.report.tables import Table, results_table

TABLES: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], Table]] = {
    "results": results_table,
    "pixel-mnist": pixel_table,
    "music": music_table,
    "language-word": word_table,
    "language-char": character_table,
}
"""Name of a pair of markers -> what stands between them."""


def markers(name: str) -> tuple[str, str]:
    """Return the lines that a table stands between."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


BEGIN, END = markers("results")


def with_results(text: str, results_dir: Path, *, where: str = "the text") -> str:
    """Return a README's text with the tables of `results_dir` between their markers.

    The markers of the classification table must be there, those of the others may.

    Raises:
        UserError: a marker is missing, or stands twice or in the wrong order.
    """
    records = read_records(results_dir)
    for name, make in TABLES.items():
        begin, end = markers(name)
        if name != "results" and begin not in text and end not in text:
            continue
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise UserError(f"{where}: needs one line {begin} and below it one line {end}")
        table = make(records)
        head, _, rest = text.partition(begin)
        shown = table.to_markdown() + "\n" if table.rows else ""
        text = f"{head}{begin}\n{shown}{end}{rest.partition(end)[2]}"
    return text


def update_readme(readme_path: Path, results_dir: Path, *, check: bool = False) -> bool:
    """Regenerate the result tables of a README; return whether they differed. With `check` nothing is written."""
    path = Path(readme_path)
    try:
        old = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give the path of the README") from error
    new = with_results(old, Path(results_dir), where=str(path))
    if new != old and not check:
        atomic_write(path, new)
    return new != old
