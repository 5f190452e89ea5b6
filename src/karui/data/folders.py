"""Folders: one text file a document below a sub-folder a label, or table files named after their split."""

from collections.abc import Callable
from pathlib import Path

from karui.data.lines import COMPRESSED, read_lines, readable
from karui.data.rows import Rows
from karui.errors import UserError

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
UNLABELLED_FOLDERS = frozenset({"unsup", "unlabelled", "unlabeled"})

Reader = Callable[[Path], Rows]


def read_folder(path: Path, table_suffixes: frozenset[str], read_table: Reader) -> dict[str, Rows]:
    """Return the rows of each split of a folder: always "train", and "valid" and "test" where they exist.

    Three layouts are known: `train/LABEL/*` beside `test/LABEL/*`; `train.csv` (or any other table format)
    beside `test.csv`; `LABEL/*` alone. `read_table` reads a table file with a suffix of `table_suffixes`.
    """
    with readable(path):
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    found: dict[str, Rows] = {}
    for split, names in SPLIT_FOLDERS.items():
        for entry in entries:
            if entry.is_dir() and entry.name.lower() in names:
                found[split] = read_label_folders(entry)
            elif entry.is_file() and _stem(entry) in names and _suffix(entry) in table_suffixes:
                found[split] = read_table(entry)
    if "train" in found:
        return found
    if found:
        raise UserError(
            f"{path}: has {' and '.join(sorted(found))} but no train part; add a folder or file named train"
        )
    return {"train": read_label_folders(path)}


def read_label_folders(path: Path) -> Rows:
    """Read every file below `path/LABEL/` as one document with that label, in the order of the names.

    Hidden files are passed over, and so is a folder of unlabelled texts (IMDb's `unsup`).
    """
    rows = Rows(path)
    with readable(path):
        folders = sorted(
            entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    if not folders:
        raise UserError(f"{path}: no sub-folders; put the texts of each label into a folder named after it")
    for folder in folders:
        if folder.name.lower() in UNLABELLED_FOLDERS:
            rows.notes.append(f"{folder.name} is passed over: texts without a label")
            continue
        with readable(folder):
            files = sorted(
                file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")
            )
        for file in files:
            rows.add("".join(read_lines(file, keep_nul=True)), folder.name, str(file.relative_to(path)))
    return rows


def _stem(path: Path) -> str:
    return path.name.lower().partition(".")[0]


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSED]
    return suffixes[-1] if suffixes else ""
