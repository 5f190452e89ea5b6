"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the binary archives, and a part of CIFAR-10 in sheets of PNG.

Binary: records of one label byte (CIFAR-100: the coarse one, then the fine one) and 3,072 bytes, red plane first, then
green and blue, row by row. A sheet holds 20 rows of 50 images of one class; a table says where each image lies.
"""

import csv
import gzip
import io
import lzma
import tarfile
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from karui.data.catalogue import SETS, NamedSet
from karui.data.catalogue_images import INDEX, SUBSET
from karui.data.fetch import fetch_missing
from karui.data.storage import checked_path
from karui.errors import UserError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
COLUMNS, ROWS = 50, 20
"""Images across and down a sheet."""

Split = Literal["train", "test"]


class _Archive(NamedTuple):
    members: dict[str, tuple[str, ...]]
    label_bytes: int


_ARCHIVES = {
    "cifar10": _Archive(
        {
            "train": tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("cifar-10-batches-bin/test_batch.bin",),
        },
        1,
    ),
    "cifar100": _Archive(
        {"train": ("cifar-100-binary/train.bin",), "test": ("cifar-100-binary/test.bin",)}, 2
    ),
}
NAMES = (*_ARCHIVES, SUBSET)


def load_cifar(name: str, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 3, 32, 32) uint8 and labels (N,) int64 of "cifar10", "cifar100" or "cifar10_subset".

    The published order is kept. In the subset the classes take turns, so that any stretch of it holds all of them.
    An archive that is not below the data root is fetched. Raises `UserError` for a file that is not the expected one.
    """
    if name not in NAMES:
        raise UserError(f"no CIFAR set {name!r}; there are {', '.join(NAMES)}")
    fetch_missing(name)
    entry = SETS[name]
    images, labels = _read_sheets(entry, split) if name == SUBSET else _read_archive(entry, split)
    if len(labels) != entry.counts[split]:
        raise UserError(f"{name}: {len(labels):,} {split} images, {entry.counts[split]:,} expected")
    return images, labels


def _read_archive(entry: NamedSet, split: Split) -> tuple[np.ndarray, np.ndarray]:
    path, _ = checked_path(entry, "all")
    layout = _ARCHIVES[entry.name]
    wanted = layout.members[split]
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name in wanted and member.isfile():
                    stream = archive.extractfile(member)
                    assert stream is not None
                    contents[member.name] = stream.read()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: not a whole archive ({error}); fetch it with: karui data fetch {entry.name}"
        ) from error
    missing = [member for member in wanted if member not in contents]
    if missing:
        raise UserError(f"{path}: holds no {missing[0]}")
    records = b"".join(contents[member] for member in wanted)
    return _records(
        records, label_bytes=layout.label_bytes, classes=len(entry.label_names), where=f"{path}: {split}"
    )


def _records(content: bytes, *, label_bytes: int, classes: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut records into images and their last label; the coarse label of CIFAR-100 is passed over."""
    size = label_bytes + PIXELS
    if len(content) % size:
        raise UserError(f"{where}: {len(content):,} bytes are no whole number of records of {size:,}")
    table = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = table[:, label_bytes - 1].astype(np.int64)
    if labels.size and labels.max() >= classes:
        raise UserError(f"{where}: holds the label {labels.max()}, 0 to {classes - 1} expected")
    return np.ascontiguousarray(table[:, label_bytes:]).reshape(-1, 3, SIDE, SIDE), labels


def _read_sheets(entry: NamedSet, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Read the sheets of a split; the table also lists images of sheets that are not part of the set."""
    table_path, _ = checked_path(entry, INDEX)
    roles = [part.role for part in entry.parts if part.role.startswith(f"{split}_")]
    places: dict[str, list[tuple[int, int]]] = {role: [] for role in roles}
    classes = len(entry.label_names)
    for number, (sheet, position, label) in enumerate(_lines(table_path), start=2):
        role = sheet.removesuffix(".png")
        if role not in places:
            continue
        if not (0 <= position < COLUMNS * ROWS and 0 <= label < classes):
            raise UserError(
                f"{table_path}: line {number} names position {position} and label {label}; "
                f"0 to {COLUMNS * ROWS - 1} and 0 to {classes - 1} expected"
            )
        places[role].append((position, label))
    images, labels, turns = [], [], []
    for role in roles:
        if not places[role]:
            continue
        sheet = _read_sheet(checked_path(entry, role)[0])
        positions, found = np.array(places[role], np.int64).T
        images.append(sheet[positions])
        labels.append(found)
        turns.append(np.arange(len(found)))
    if not images:
        raise UserError(f"{table_path}: names no image of the {split} sheets")
    order = np.argsort(np.concatenate(turns), kind="stable")
    return np.concatenate(images)[order], np.concatenate(labels)[order]


def _lines(path: Path) -> list[tuple[str, int, int]]:
    """Return (sheet, position, label) of each line of the table."""
    try:
        with lzma.open(path, "rt", encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream, delimiter="\t")
            return [(row["sheet"], int(row["position"]), int(row["label"])) for row in table]
    except (lzma.LZMAError, EOFError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: no table of sheet, position and label ({type(error).__name__}: {error})"
        ) from error


def _read_sheet(path: Path) -> np.ndarray:
    """Return the images (1000, 3, 32, 32) of a sheet, row by row."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(f"{path.name} needs Pillow: install karui[train]") from error

    size = (COLUMNS * SIDE, ROWS * SIDE)
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as picture:
            if picture.size != size or picture.mode != "RGB":
                raise UserError(
                    f"{path}: {picture.mode} of {picture.size[0]} by {picture.size[1]} pixels, "
                    f"RGB of {size[0]} by {size[1]} expected"
                )
            pixels = np.asarray(picture)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path}: not a whole PNG ({error})") from error
    cells = pixels.reshape(ROWS, SIDE, COLUMNS, SIDE, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(cells).reshape(-1, 3, SIDE, SIDE)
