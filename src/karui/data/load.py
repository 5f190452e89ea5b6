"""`load_splits`: one entry for every source of texts."""

import difflib
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from karui.data import hub, stdlib_docs
from karui.data.catalogue import SETS, TEXT_SETS
from karui.data.dataset import Splits, TextDataset
from karui.data.fetch import fetch_missing
from karui.data.folders import read_folder
from karui.data.lines import data_suffix
from karui.data.named import load_named, split_off_valid
from karui.data.rows import Rows, empty_text_note, to_dataset, training_labels
from karui.data.tables import read_delimited, read_json_lines
from karui.errors import UserError

LOADABLE = (*TEXT_SETS, stdlib_docs.NAME)
"""Names that `load_splits` knows without a path."""

READERS = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".tab": read_delimited,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json_lines,
    ".parquet": hub.read_parquet,
}


def load_splits(
    name_or_path: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    valid_fraction: float = 0.1,
    seed: int = 0,
    fold: int | None = None,
    phrases: bool | None = None,
) -> Splits:
    """Read a named set, a file, a folder or a Hub data set and return its splits.

    `name_or_path`: a name of `LOADABLE`; a `.csv`, `.tsv`, `.jsonl` or `.parquet` file (the first three also
    as `.gz` or `.xz`); a folder (`karui.data.folders`); `OWNER/NAME[:CONFIG]` on the Hub, or `hub:NAME`.
    `text`, `label`: column names, guessed when obvious. `valid_fraction` of the training part, stratified and
    drawn with `seed`, becomes the valid part unless the set brings one; the test part is never drawn from.
    `fold`: 0 to 9 for the sets without a test part (mr, subj, cr, mpqa), 0 when None.
    `phrases`: sst1 and sst2 train on phrases (None and True) or on sentences only (False).

    A named set that is not below the data root is fetched first; its name wins over a folder of the same name,
    which is `./NAME`. Raises `UserError`, one line, for bad input.
    """
    name = str(name_or_path)
    if name in LOADABLE:
        _refuse_columns(name, text=text, label=label)
        if name == stdlib_docs.NAME:
            _refuse_named_options(name, fold=fold, phrases=phrases)
            return _load_stdlib_docs(valid_fraction=valid_fraction, seed=seed)
        fetch_missing(name, phrases=phrases is not False)
        return load_named(name, valid_fraction=valid_fraction, seed=seed, fold=fold, phrases=phrases)
    _refuse_named_options(name, fold=fold, phrases=phrases)
    parts = _read_parts(name, text=text, label=label)
    return _splits_of_rows(parts, name, valid_fraction=valid_fraction, seed=seed)


def load_test(
    name_or_path: str | Path,
    label_names: Sequence[str],
    *,
    text: str | None = None,
    label: str | None = None,
    fold: int | None = None,
) -> TextDataset:
    """Read what a trained model is measured on, its labels numbered as in the model's `label_names`.

    A named set, a Hub data set or a folder with a test part gives that part; any other file or folder is
    taken whole. Raises `UserError` naming file and line for a label the model was not trained on.
    """
    name = str(name_or_path)
    if name in LOADABLE:
        test = load_splits(
            name, text=text, label=label, fold=fold, phrases=False if name in {"sst1", "sst2"} else None
        ).test
        assert test is not None  # every named set has a test part
        if test.label_names != list(label_names):
            raise UserError(
                f"{name}: its labels are {', '.join(test.label_names)};"
                f" the trained labels are {', '.join(label_names)}; measure on a set with those labels"
            )
        return test
    _refuse_named_options(name, fold=fold, phrases=None)
    parts = _read_parts(name, text=text, label=label)
    return to_dataset(parts.get("test", parts["train"]), label_names, name=name)


def _read_parts(name: str, *, text: str | None, label: str | None) -> dict[str, Rows]:
    """Return rows by split ("train" at least) of a path or a Hub name."""
    path = Path(name).expanduser()

    def read_table(file: Path) -> Rows:
        return READERS[data_suffix(file)](file, text=text, label=label)

    if name.startswith(hub.PREFIX):
        return hub.read_hub(name, text=text, label=label)
    if path.is_dir():
        return read_folder(path, frozenset(READERS), read_table)
    if data_suffix(path) in READERS:
        return {"train": read_table(path)}
    if path.exists():
        raise UserError(
            f"{path}: unknown format {path.suffix!r}; known are {', '.join(READERS)},"
            " all but the last also with .gz or .xz behind it"
        )
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.suffix:
        return hub.read_hub(name, text=text, label=label)
    if name in SETS and SETS[name].kind in ("images", "music"):
        raise UserError(
            f"{name} holds {SETS[name].kind}, not labelled texts; karui train --help names the tasks"
        )
    near = difflib.get_close_matches(name, LOADABLE, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the named sets are {', '.join(LOADABLE)}"
    raise UserError(f"{name}: no such file or folder, and no named set; {hint}")


def _splits_of_rows(parts: dict[str, Rows], name: str, *, valid_fraction: float, seed: int) -> Splits:
    label_names = training_labels(parts["train"])
    datasets = {split: to_dataset(rows, label_names, name=name) for split, rows in parts.items()}
    train, test = datasets["train"], datasets.get("test")
    notes = [*parts["train"].notes, *empty_text_note(train)]
    if "valid" in datasets:
        return Splits(train, datasets["valid"], test, label_names, name, notes=notes)
    return split_off_valid(train, test, valid_fraction=valid_fraction, seed=seed, notes=tuple(notes))


def _refuse_columns(name: str, *, text: str | None, label: str | None) -> None:
    if text is not None or label is not None:
        raise UserError(f"{name} is a named set: text and label are for files of your own")


def _refuse_named_options(name: str, *, fold: int | None, phrases: bool | None) -> None:
    if fold is not None or phrases:
        option = "fold" if fold is not None else "phrases"
        raise UserError(f"{name}: {option} is for some of the named sets only")


def _load_stdlib_docs(*, valid_fraction: float, seed: int) -> Splits:
    documents = stdlib_docs.read_documents()
    families = list(stdlib_docs.FAMILIES)
    library = f"Python {platform.python_version()}"  # another version holds other documents
    parts = []
    for in_test in (False, True):
        chosen = [document for document in documents if document.in_test == in_test]
        parts.append(
            TextDataset(
                texts=[document.text for document in chosen],
                labels=np.array([families.index(document.family) for document in chosen], dtype=np.int64),
                label_names=families,
                name=stdlib_docs.NAME,
                source=f"{library} (test)" if in_test else library,
            )
        )
    notes = (f"{len(documents):,} documents of the standard library of {library}",)
    return split_off_valid(parts[0], parts[1], valid_fraction=valid_fraction, seed=seed, notes=notes)
