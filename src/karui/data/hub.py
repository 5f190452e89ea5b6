"""Parquet files and data sets of the Hugging Face Hub, through `datasets` (extra `karui[train]`)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from karui.data.columns import from_header
from karui.data.rows import Rows
from karui.errors import UserError

PREFIX = "hub:"
SPLITS = {"train": ("train",), "valid": ("validation", "valid", "dev"), "test": ("test",)}


def import_datasets() -> Any:
    """Return the module `datasets`; raises `UserError` naming the extra that brings it."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "Parquet files and Hub names need the package datasets: install karui[train]"
        ) from error
    return datasets


def read_parquet(path: Path, *, text: str | None = None, label: str | None = None) -> Rows:
    """Read a Parquet file. pyarrow's table is wrapped as it is: no copy goes to the `datasets` cache."""
    datasets = import_datasets()
    import pyarrow as pa
    from pyarrow import parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: not a readable Parquet file ({_first_line(error)}); write it again"
        ) from error
    return _rows(datasets, datasets.Dataset(table), path, text=text, label=label)


def read_hub(name: str, *, text: str | None = None, label: str | None = None) -> dict[str, Rows]:
    """Load `OWNER/NAME` or `OWNER/NAME:CONFIG` (with or without the prefix `hub:`) and return its splits.

    A test part without labels (all -1) is left out with a note. Raises `UserError`, one line, when the Hub
    cannot be reached or does not know the name.
    """
    loaded = load(name)
    return rows_of_splits(import_datasets(), loaded, name.removeprefix(PREFIX), text=text, label=label)


def load(name: str) -> Any:
    """Load a data set by name, all splits as `datasets` gives them; errors as in `read_hub`."""
    datasets = import_datasets()
    address = name.removeprefix(PREFIX)
    repository, _, config = address.partition(":")
    with _hub_errors(address):
        return datasets.load_dataset(repository, config or None)


def rows_of_splits(
    datasets: Any, loaded: Any, name: str, *, text: str | None = None, label: str | None = None
) -> dict[str, Rows]:
    """Turn what `datasets.load_dataset` returned into rows, split by split."""
    found: dict[str, Rows] = {}
    notes = []
    for split, names in SPLITS.items():
        chosen = next((candidate for candidate in names if candidate in loaded), None)
        if chosen is None:
            continue
        part = loaded[chosen]
        columns = from_header(part.column_names, text=text, label=label, place=f"{name}: split {chosen}")
        if split != "train" and set(part.unique(columns.label_name)) == {-1}:
            notes.append(f"{chosen} is left out: it has no labels")
            continue
        found[split] = _rows(datasets, part, f"{name} ({chosen})", text=text, label=label)
    if "train" not in found:
        raise UserError(f"{name}: no split named train; splits found: {', '.join(loaded)}")
    found["train"].notes.extend(notes)
    return found


def _rows(datasets: Any, part: Any, path: Path | str, *, text: str | None, label: str | None) -> Rows:
    columns = from_header(part.column_names, text=text, label=label, place=str(path))
    rows = Rows(path)
    feature = part.features[columns.label_name]
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    texts, labels = part[columns.text_name][:], part[columns.label_name][:]
    for number, (value, stored) in enumerate(zip(texts, labels, strict=True), start=1):
        wanted = stored
        if names is not None and isinstance(stored, int):
            wanted = names[stored] if 0 <= stored < len(names) else None
        rows.add(value, wanted, f"row {number}")
    return rows


@contextlib.contextmanager
def _hub_errors(address: str) -> Iterator[None]:
    """One line for whatever goes wrong between here and the Hub: requests, name resolution, unknown names."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{address}: no such file or folder here, and not to be had from the Hub"
            f" ({type(error).__name__}: {_first_line(error)}); check the name and the network"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
