"""Which column is the text and which the label: named by the user, else guessed when it is obvious."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from karui.errors import UserError

TEXT_NAMES = (
    *("text", "sentence", "review", "content", "document", "body", "message", "comment", "tweet", "question"),
    *(
        "utterance",
        "review_text",
        "reviewtext",
        "description",
        "headline",
        "title",
        "query",
        "phrase",
        "input",
        "doc",
    ),
)
"""Column names taken for the text, the most telling one first."""

LABEL_NAMES = (
    *(
        "label",
        "labels",
        "class",
        "category",
        "target",
        "sentiment",
        "topic",
        "intent",
        "polarity",
        "label_text",
    ),
    *("class_name", "tag", "genre", "stars", "rating", "output", "y"),
)
"""Column names taken for the label, the most telling one first."""

REMEDY = "name them with --text NAME and --label NAME"
SAMPLE_ROWS = 1000


@dataclass(frozen=True)
class Columns:
    """Positions of text and label in a row, and their names as messages should print them."""

    text: int
    label: int
    text_name: str
    label_name: str
    has_header: bool = True


def from_header(names: Sequence[str], *, text: str | None, label: str | None, place: str) -> Columns:
    """Choose among named columns. Raises `UserError` listing `names` when that takes guessing."""
    text_at = _position(names, text, TEXT_NAMES, place)
    label_at = _position(names, label, LABEL_NAMES, place)
    if len(names) == 2:
        if text_at is None and label_at is not None:
            text_at = 1 - label_at
        elif label_at is None and text_at is not None:
            label_at = 1 - text_at
    if text_at is None or label_at is None or text_at == label_at:
        what = "text" if text_at is None else "label"
        if text_at is not None and text_at == label_at:
            what = "both text and label"
        raise UserError(f"{place}: cannot tell which column is the {what}; {_found(names)}; {REMEDY}")
    return Columns(text_at, label_at, names[text_at], names[label_at])


def from_rows(
    rows: Sequence[Sequence[str]], *, text: str | None, label: str | None, place: str
) -> tuple[Columns, str | None]:
    """Choose in a table whose first row may be a header: `(columns, note or None)`. `rows` is not empty.

    `text` and `label` may also be column numbers from 1, for files without a header. Two columns without names are told
    apart by their values: the label is the less varied, shorter one.
    """
    first = [cell.strip() for cell in rows[0]]
    lowered = [cell.lower() for cell in first]
    asked = [name for name in (text, label) if name is not None]
    usual = [_is_usual_name(rows, column, cell) for column, cell in enumerate(lowered)]
    if asked and all(name.isdecimal() for name in asked) and not set(asked) <= set(first):
        columns = _numbered(first, text=text, label=label, place=place)
        return replace(columns, has_header=usual[columns.text] and usual[columns.label]), None
    if any(usual) or asked:
        return from_header(first, text=text, label=label, place=place), None
    if len(first) != 2:
        raise UserError(f"{place}: cannot tell text from label; {_found(first)}; {REMEDY}")
    return _by_values(rows)


def _position(names: Sequence[str], wanted: str | None, usual: Sequence[str], place: str) -> int | None:
    lowered = [name.strip().lower() for name in names]
    if wanted is not None:
        if wanted in names:
            return list(names).index(wanted)
        if wanted.lower() in lowered:
            return lowered.index(wanted.lower())
        raise UserError(f"{place}: no column {wanted!r}; {_found(names)}; {REMEDY}")
    return next((lowered.index(name) for name in usual if name in lowered), None)


def _is_usual_name(rows: Sequence[Sequence[str]], column: int, name: str) -> bool:
    """Tell a column's name from a value: labels may well be "y" and "n", but then "y" comes again."""
    if name not in TEXT_NAMES and name not in LABEL_NAMES:
        return False
    return all(row[column].strip().lower() != name for row in rows[1:])


def _numbered(first: Sequence[str], *, text: str | None, label: str | None, place: str) -> Columns:
    """Read `text` and `label` as column numbers from 1; one of them may be left out of a two-column table."""
    positions: list[int | None] = []
    for name in (text, label):
        if name is not None and not 1 <= int(name) <= len(first):
            raise UserError(f"{place}: no column {name!r}; {_found(first)}; {REMEDY} (or numbers from 1)")
        positions.append(None if name is None else int(name) - 1)
    text_at, label_at = positions
    if len(first) == 2 and text_at is None and label_at is not None:
        text_at = 1 - label_at
    elif len(first) == 2 and label_at is None and text_at is not None:
        label_at = 1 - text_at
    if text_at is None or label_at is None or text_at == label_at:
        raise UserError(f"{place}: cannot tell text from label; {_found(first)}; {REMEDY}")
    return Columns(text_at, label_at, f"column {text_at + 1}", f"column {label_at + 1}", has_header=False)


def _by_values(rows: Sequence[Sequence[str]]) -> tuple[Columns, str]:
    sample = rows[:SAMPLE_ROWS]

    def variety(column: int) -> tuple[int, float]:
        values = [row[column] for row in sample[1:] or sample]
        return len(set(values)), sum(map(len, values)) / len(values)

    text_at = 0 if variety(0) > variety(1) else 1
    label_at = 1 - text_at
    counts = Counter(row[label_at].strip() for row in rows)
    first_label = rows[0][label_at].strip()
    repeated = all(count > 1 for value, count in counts.items() if value != first_label)
    has_header = len(counts) > 1 and counts[first_label] == 1 and repeated
    columns = Columns(
        text_at,
        label_at,
        rows[0][text_at].strip() if has_header else f"column {text_at + 1}",
        first_label if has_header else f"column {label_at + 1}",
        has_header=has_header,
    )
    header = "line 1 is taken as a header" if has_header else "no header"
    return columns, f"{header}; text is {columns.text_name!r}, label is {columns.label_name!r}"


def _found(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 30 else f"{name[:27]}..." for name in names[:20]]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"columns found: {', '.join(map(repr, shown))}{more}"
