"""Tiny images and piano rolls in the published file formats, below a data root of their own."""

import gzip
import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from karui.data import catalogue
from tests.support.data_sets import place, replace_entry

SPLITS = {"traindata": 6, "validdata": 3, "testdata": 2}


def idx(array: np.ndarray) -> bytes:
    """Return a uint8 array as a gzipped idx file."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def place_mnist(monkeypatch: pytest.MonkeyPatch, root: Path, *, train: int = 40, test: int = 10) -> None:
    """Write images whose left half is white for label 1 and black for label 0."""
    random = np.random.default_rng(0)
    contents = {}
    for split, prefix, count in (("train", "train", train), ("test", "t10k", test)):
        labels = random.integers(0, 2, count).astype(np.uint8)
        images = random.integers(0, 30, (count, 28, 28)).astype(np.uint8)
        images[labels == 1, :, :14] = 200
        contents[f"{split}-images"] = (f"{prefix}-images-idx3-ubyte.gz", idx(images))
        contents[f"{split}-labels"] = (f"{prefix}-labels-idx1-ubyte.gz", idx(labels))
    place(monkeypatch, root, "mnist", contents)
    replace_entry(monkeypatch, replace(catalogue.SETS["mnist"], counts={"train": train, "test": test}))


def rolls(name: str, count: int) -> np.ndarray:
    """Return a cell array of sequences of 5 to 12 steps in which a note wanders up."""
    cells = np.empty((1, count), object)
    for number in range(count):
        steps = 5 + (number * 3 + len(name)) % 8
        cells[0, number] = np.eye(88, dtype=np.uint8)[(number + np.arange(steps)) % 88]
    return cells


def mat(**variables: np.ndarray) -> bytes:
    """Return variables as the bytes of a MATLAB file."""
    stream = io.BytesIO()
    savemat(stream, variables, do_compression=True)
    return stream.getvalue()


def place_music(monkeypatch: pytest.MonkeyPatch, root: Path, name: str = "jsb") -> None:
    """Write six, three and two short sequences."""
    content = mat(**{split: rolls(split, count) for split, count in SPLITS.items()})
    place(monkeypatch, root, name, {"all": (catalogue.SETS[name].parts[0].files[0].name, content)})
    counts = dict(zip(("train", "valid", "test"), SPLITS.values(), strict=True))
    replace_entry(monkeypatch, replace(catalogue.SETS[name], counts=counts))
