"""Tiny colour images in the published file formats, below a data root of their own."""

import io
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from karui.data import catalogue
from karui.data.catalogue import Part
from karui.data.cifar import COLUMNS, ROWS, SIDE
from tests.support.data_sets import data_file, place, replace_entry

MEMBERS = {
    "cifar10": (
        "cifar-10-batches-bin",
        [f"data_batch_{number}.bin" for number in range(1, 6)],
        "test_batch.bin",
    ),
    "cifar100": ("cifar-100-binary", ["train.bin"], "test.bin"),
}


def coloured(labels: np.ndarray, *, classes: int) -> np.ndarray:
    """Return noisy images (N, 3, 32, 32) uint8 whose brightness and first pixel tell their label."""
    random = np.random.default_rng(len(labels))
    level = (200 * labels // max(1, classes - 1))[:, None, None, None]
    images = (random.integers(0, 40, (len(labels), 3, SIDE, SIDE)) + level).astype(np.uint8)
    images[:, 0, 0, 0] = labels
    return images


def records(labels: np.ndarray, *, classes: int) -> bytes:
    """Return records of the binary archives, with a coarse label of 7 where there are 100 classes."""
    lines = []
    for image, label in zip(coloured(labels, classes=classes), labels, strict=True):
        lines.append(bytes([7] if classes == 100 else []) + bytes([label]) + image.tobytes())
    return b"".join(lines)


def tar_gz(files: dict[str, bytes]) -> bytes:
    """Return the bytes of a `.tar.gz` archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def cifar_archive(name: str, *, train: int = 40, test: int = 10) -> bytes:
    """Return an archive of so many images, the training ones in as many files as published."""
    folder, train_files, test_file = MEMBERS[name]
    classes = 100 if name == "cifar100" else 10
    parts = np.array_split(np.arange(train) % classes, len(train_files))
    files = {
        f"{folder}/{file}": records(part, classes=classes)
        for file, part in zip(train_files, parts, strict=True)
    }
    files[f"{folder}/{test_file}"] = records(np.arange(test) % classes, classes=classes)
    return tar_gz({f"{folder}/readme.html": b"words", **files})


def place_cifar(
    monkeypatch: pytest.MonkeyPatch, root: Path, name: str = "cifar10", *, train: int = 40, test: int = 10
) -> None:
    """Write a small archive of "cifar10" or "cifar100" below `root`."""
    file = catalogue.SETS[name].parts[0].files[0].name
    place(monkeypatch, root, name, {"all": (file, cifar_archive(name, train=train, test=test))})
    replace_entry(monkeypatch, replace(catalogue.SETS[name], counts={"train": train, "test": test}))


def sheet(images: np.ndarray) -> bytes:
    """Return images (N, 3, 32, 32) as a PNG of 20 rows of 50, black behind the last."""
    cells = np.zeros((ROWS * COLUMNS, 3, SIDE, SIDE), np.uint8)
    cells[: len(images)] = images
    picture = cells.reshape(ROWS, COLUMNS, 3, SIDE, SIDE).transpose(0, 3, 1, 4, 2)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture).reshape(ROWS * SIDE, COLUMNS * SIDE, 3)).save(stream, "PNG")
    return stream.getvalue()


def place_subset(
    monkeypatch: pytest.MonkeyPatch, root: Path, *, classes: int = 2, each: int = 6, table: str | None = None
) -> None:
    """Write sheets of `each` images of a class, train and test, and a table that also lists an absent sheet."""
    contents, lines = {}, ["sheet\tposition\tlabel\toriginal_filename"]
    for split in ("train", "test"):
        for label in range(classes):
            name = f"{split}_{label}_kind_0"
            images = coloured(np.full(each, label), classes=classes)
            images[:, 1, 0, 0] = np.arange(each)
            contents[name] = (f"{name}.png", sheet(images))
            lines += [f"{name}.png\t{place}\t{label}\tx.png" for place in range(each)]
            lines.append(f"{split}_{label}_kind_1.png\t0\t{label}\tx.png")
    text = "\n".join(lines) + "\n" if table is None else table
    place(
        monkeypatch,
        root,
        "cifar10_subset",
        {"index": ("index.tsv.xz", lzma.compress(text.encode())), **contents},
    )
    entry = catalogue.SETS["cifar10_subset"]
    parts = [Part(part.role, tuple(replace(file, url=None) for file in part.files)) for part in entry.parts]
    counts = {"train": classes * each, "test": classes * each}
    replace_entry(monkeypatch, replace(entry, parts=tuple(parts), counts=counts))


def replace_sheet(monkeypatch: pytest.MonkeyPatch, root: Path, role: str, content: bytes) -> None:
    """Put other bytes into a sheet of a subset that was placed, and let the catalogue expect them."""
    entry = catalogue.SETS["cifar10_subset"]
    file = entry.part(role).files[0].name
    (root / entry.folder / file).write_bytes(content)
    parts = [Part(role, (data_file(file, content),)) if part.role == role else part for part in entry.parts]
    replace_entry(monkeypatch, replace(entry, parts=tuple(parts)))
