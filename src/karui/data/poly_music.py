"""Polyphonic music as piano rolls (Boulanger-Lewandowski et al. 2012), in the MATLAB files of the TCN authors."""

from pathlib import Path
from typing import Literal

import numpy as np

from karui.data.catalogue import MUSIC_SETS, SETS
from karui.data.fetch import fetch_missing
from karui.data.storage import checked_path
from karui.errors import UserError

NOTES = 88
"""Keys of a piano, one binary value each a time step."""

_VARIABLES = {"train": "traindata", "valid": "validdata", "test": "testdata"}


def load_music(name: str, split: Literal["train", "valid", "test"]) -> list[np.ndarray]:
    """Return the sequences of a split, each (T, 88) uint8 of zeros and ones, T at least 2.

    `name`: one of `MUSIC_SETS`; fetched when it is not below the data root. Raises `UserError` for an unknown name
    or a file that is not the published one.
    """
    if name not in MUSIC_SETS:
        raise UserError(f"{name}: no set of music; the sets are {', '.join(MUSIC_SETS)}")
    fetch_missing(name)
    path, _ = checked_path(SETS[name], "all")
    sequences = read_mat(path, split)
    if len(sequences) != SETS[name].counts[split]:
        raise UserError(f"{path}: {len(sequences)} {split} sequences, {SETS[name].counts[split]} expected")
    return sequences


def read_mat(path: Path, split: str) -> list[np.ndarray]:
    """Return the sequences of a split of a `.mat` file: a cell array of (T, 88) matrices of zeros and ones.

    Raises `UserError` when the file cannot be read or holds something else.
    """
    from scipy.io import loadmat

    name = _VARIABLES[split]
    try:
        content = loadmat(path, variable_names=[name])
    except Exception as error:
        # scipy lets the errors of a damaged file through as they come: struct, zlib, index, type and its own.
        raise UserError(f"{path}: not a whole MATLAB file ({type(error).__name__}: {error})") from error
    cells = content.get(name)
    if not isinstance(cells, np.ndarray) or cells.dtype != object:
        raise UserError(f"{path}: has no list of sequences named {name}")
    sequences = []
    for number, cell in enumerate(cells.ravel()):
        is_roll = isinstance(cell, np.ndarray) and cell.ndim == 2 and cell.dtype.kind in "biuf"
        if not is_roll or cell.shape[1] != NOTES or len(cell) < 2 or not np.isin(cell, (0, 1)).all():
            shape = getattr(cell, "shape", "none")
            raise UserError(
                f"{path}: sequence {number} of {name} is no (T, {NOTES}) matrix of zeros and ones: shape {shape}"
            )
        sequences.append(cell.astype(np.uint8))
    return sequences
