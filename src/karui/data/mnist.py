"""MNIST from the four published files: gzip around the idx format (LeCun et al. 1998).

idx: two zero bytes, a type byte (8 = unsigned byte), the number of axes, each axis as a big-endian 32-bit number,
then the values, the last axis fastest.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from karui.data.catalogue import SETS
from karui.data.fetch import fetch_missing
from karui.data.storage import checked_path
from karui.errors import UserError

NAME = "mnist"
CLASSES = 10
MAX_BYTES = 1 << 28
"""Values above which a file is refused before they are read."""


def load_mnist(split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 28, 28) uint8 and labels (N,) int64 of the 60,000 or 10,000 published examples.

    Files that are not below the data root are fetched. Raises `UserError` for one that is not the published one.
    """
    fetch_missing(NAME)
    entry = SETS[NAME]
    images_path, _ = checked_path(entry, f"{split}-images")
    labels_path, _ = checked_path(entry, f"{split}-labels")
    images, labels = read_idx(images_path, num_axes=3), read_idx(labels_path, num_axes=1)
    if len(images) != len(labels) or len(labels) != entry.counts[split]:
        raise UserError(
            f"{images_path}: {len(images)} images and {len(labels)} labels, {entry.counts[split]} of both expected"
        )
    if images.shape[1] != images.shape[2]:
        raise UserError(
            f"{images_path}: images of {images.shape[1]} by {images.shape[2]} pixels are not square"
        )
    if labels.size and labels.max() >= CLASSES:
        raise UserError(f"{labels_path}: holds the label {labels.max()}, 0 to {CLASSES - 1} expected")
    return images, labels.astype(np.int64)


def read_idx(path: Path, *, num_axes: int) -> np.ndarray:
    """Return the uint8 array of a gzipped idx file with `num_axes` axes.

    Raises `UserError` when the file is cut, is of another kind, or holds more or fewer values than it promises.
    """
    try:
        with gzip.open(path, "rb") as stream:
            header = stream.read(4 + 4 * num_axes)
            expected = bytes([0, 0, 8, num_axes])
            if len(header) < 4 + 4 * num_axes or header[:4] != expected:
                raise UserError(
                    f"{path}: begins with {header[:4].hex(' ') or 'nothing'}, not with {expected.hex(' ')}:"
                    f" no idx file of bytes with {num_axes} axes"
                )
            shape = struct.unpack(f">{num_axes}I", header[4:])
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise UserError(f"{path}: promises {size:,} values, more than {MAX_BYTES:,}")
            content = stream.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: not a whole gzip file ({error}); fetch it with: karui data fetch {NAME}"
        ) from error
    if len(content) != size:
        held = "more" if len(content) > size else f"{len(content):,}"
        raise UserError(f"{path}: promises {size:,} values of shape {shape}, holds {held}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def pooled(images: np.ndarray) -> np.ndarray:
    """Halve both sides of images (N, S, S) by the mean of 2 by 2 pixels; (N, S/2, S/2) float32, 0 to 255."""
    N, S, _ = images.shape
    return images.reshape(N, S // 2, 2, S // 2, 2).astype(np.float32).mean(axis=(2, 4))
