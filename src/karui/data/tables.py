"""Readers of CSV, TSV and JSON Lines, line by line so that a defect is named by its line (see `lines.py`)."""

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from karui.data import columns as columns_
from karui.data.lines import data_suffix, read_lines
from karui.data.rows import Rows
from karui.errors import UserError

FIELD_LIMIT = 1 << 30
"""Longest field in characters. Python's own limit, 128 KiB, is below a long document."""


def read_delimited(path: Path, *, text: str | None = None, label: str | None = None) -> Rows:
    """Read a CSV or TSV file, with or without a header, and choose two of its columns.

    A TSV file that does not follow the rules of quoting is read as if quotes were ordinary characters, which
    is what most programs that write TSV mean.
    """
    is_tsv = data_suffix(path) in {".tsv", ".tab"}
    note = None
    if is_tsv:
        try:
            numbered = list(_records(path, delimiter="\t", quoting=csv.QUOTE_MINIMAL))
        except UserError:
            numbered = list(_records(path, delimiter="\t", quoting=csv.QUOTE_NONE))
            note = "quotes are read as ordinary characters"
    else:
        numbered = list(_records(path, delimiter=",", quoting=csv.QUOTE_MINIMAL))
    rows = Rows(path, notes=[note] if note else [])
    if not numbered:
        return rows
    table = [record for _, record in numbered]
    chosen, guessed = columns_.from_rows(
        table, text=text, label=label, place=f"{path}: line {numbered[0][0]}"
    )
    rows.notes.extend([guessed] if guessed else [])
    for number, record in numbered[1 if chosen.has_header else 0 :]:
        rows.add(record[chosen.text], record[chosen.label], f"line {number}")
    return rows


def _records(path: Path, *, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, list[str]]]:
    """Yield `(line on which the record starts, cells)`; blank lines are passed over."""
    with _field_limit():
        reader = csv.reader(read_lines(path), delimiter=delimiter, quoting=quoting, strict=True)
        width = None
        while True:
            number = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                what = "a quote is opened and never closed" if "end of data" in str(error) else str(error)
                raise UserError(
                    f"{path}: line {number}: {what}; put the text in quotes and double the quotes inside it"
                ) from error
            if record is None:
                return
            if not record or record == [""]:
                continue
            if width is None:
                width = len(record)
                if width == 1:
                    raise UserError(
                        f"{path}: line {number}: one column only;"
                        f" text and label are needed, parted by {delimiter!r}"
                    )
            elif len(record) != width:
                raise UserError(
                    f"{path}: line {number}: {len(record)} columns, {width} expected;"
                    f" put a text that holds {delimiter!r} or a line break in quotes"
                )
            yield number, record


@contextlib.contextmanager
def _field_limit() -> Iterator[None]:
    """Raise the limit of the csv module, which is global, for the time of one reading."""
    before = csv.field_size_limit(FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_json_lines(path: Path, *, text: str | None = None, label: str | None = None) -> Rows:
    """Read one JSON object a line and choose two of its keys by the first object."""
    rows = Rows(path)
    chosen = None
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        record = _json_object(line, f"{path}: line {number}")
        if chosen is None:
            chosen = columns_.from_header(
                list(record), text=text, label=label, place=f"{path}: line {number}"
            )
        for key in (chosen.text_name, chosen.label_name):
            if key not in record:
                found = ", ".join(map(repr, record)) or "none"
                raise UserError(
                    f"{path}: line {number}: no key {key!r}; keys found: {found}; add it or remove the line"
                )
        rows.add(record[chosen.text_name], record[chosen.label_name], f"line {number}")
    return rows


def _json_object(line: str, place: str) -> dict:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        record = [] if line.lstrip().startswith("[") else None
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        if record is None:
            raise UserError(f"{place}: not JSON ({reason}); write one JSON object a line") from error
    if isinstance(record, list):
        raise UserError(f"{place}: a JSON array, not JSON Lines; write one object a line, with: jq -c '.[]'")
    if not isinstance(record, dict):
        raise UserError(f"{place}: no JSON object; write one object with a text and a label a line")
    return record
