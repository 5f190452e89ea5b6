"""Labelled rows as a file has them, before labels become numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from karui.data.dataset import TextDataset
from karui.errors import UserError

MANY_ROWS = 20


@dataclass
class Rows:
    """Texts with their labels as written. `places[i]` says where row i is ("line 7") for messages."""

    path: Path | str
    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, text: object, label: object, place: str) -> None:
        """Append a row after checking both values; raises `UserError` naming file and place."""
        self.texts.append(clean_text(text, f"{self.path}: {place}"))
        self.labels.append(clean_label(label, f"{self.path}: {place}"))
        self.places.append(place)

    def __len__(self) -> int:
        return len(self.texts)


def clean_text(value: object, place: str) -> str:
    """Return a cell as text; None is an empty text. Raises `UserError` for lists and objects."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise UserError(
        f"{place}: the text is a {type(value).__name__}, not a string; choose another column with --text"
    )


def clean_label(value: object, place: str) -> str:
    """Return a label as text without blanks around it. Raises `UserError` for an empty one or NaN."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isnan(value):
        return str(int(value)) if value.is_integer() else repr(value)
    if value is None or isinstance(value, float):
        label = ""
    elif isinstance(value, str | int | np.integer):
        label = str(value).strip()
    else:
        raise UserError(
            f"{place}: the label is a {type(value).__name__}, not one class;"
            " choose another column with --label"
        )
    if label == "" or label.lower() == "nan":
        raise UserError(f"{place}: empty label; fill it in or remove the row")
    return label


def sorted_labels(labels: Sequence[str]) -> list[str]:
    """Return the distinct labels: by value when all are integers, else alphabetically."""
    distinct = set(labels)
    try:
        return sorted(distinct, key=int)
    except ValueError:
        return sorted(distinct)


def training_labels(rows: Rows) -> list[str]:
    """Return the label names of training rows. Raises `UserError` unless they make a classification task."""
    if not rows.texts:
        raise UserError(f"{rows.path}: empty, no rows; give a file with texts and labels")
    names = sorted_labels(rows.labels)
    if len(names) == 1:
        raise UserError(
            f"{rows.path}: only one class ({names[0]!r}) in {len(rows)} rows; at least two are needed"
        )
    if len(rows) >= MANY_ROWS and len(names) > len(rows) // 2:
        raise UserError(
            f"{rows.path}: {len(names)} distinct labels in {len(rows)} rows;"
            " that is hardly a label column, choose it with --label NAME"
        )
    return names


def to_dataset(rows: Rows, label_names: Sequence[str], *, name: str) -> TextDataset:
    """Number the labels. Raises `UserError` naming file and line for a label that is not in `label_names`."""
    if not rows.texts:
        raise UserError(f"{rows.path}: empty, no rows; give a file with texts and labels")
    numbers = {label: number for number, label in enumerate(label_names)}
    encoded = np.empty(len(rows), dtype=np.int64)
    for position, label in enumerate(rows.labels):
        number = numbers.get(label)
        if number is None:
            known = ", ".join(label_names[:20]) + (", ..." if len(label_names) > 20 else "")
            raise UserError(
                f"{rows.path}: {rows.places[position]}: unknown label {label!r};"
                f" the trained labels are {known}; correct the label or remove the row"
            )
        encoded[position] = number
    return TextDataset(rows.texts, encoded, list(label_names), name=name, source=str(rows.path))


def empty_text_note(dataset: TextDataset) -> list[str]:
    """Return a note when some texts hold nothing but white space; they are kept."""
    empty = sum(not text.strip() for text in dataset.texts)
    return [f"{empty:,} of {len(dataset):,} texts are empty (kept)"] if empty else []
