"""`load_splits`: one entry for every source of texts."""

import numpy as np

from karui.data import stdlib_docs
from karui.data.catalogue import SETS
from karui.data.dataset import Splits, TextDataset
from karui.data.named import load_named, split_off_valid
from karui.errors import UserError

LOADABLE = (*(name for name in SETS if name != "sst_trees"), stdlib_docs.NAME)
"""Names that `load_splits` knows without a path."""


def load_splits(
    name_or_path: str,
    *,
    text: str | None = None,
    label: str | None = None,
    valid_fraction: float = 0.1,
    seed: int = 0,
    fold: int | None = None,
    phrases: bool | None = None,
) -> Splits:
    """Read a named set, a file, a folder or a Hub data set and return its splits."""
    if name_or_path == stdlib_docs.NAME:
        return _load_stdlib_docs(valid_fraction=valid_fraction, seed=seed)
    if name_or_path in SETS:
        return load_named(name_or_path, valid_fraction=valid_fraction, seed=seed, fold=fold, phrases=phrases)
    message = f"{name_or_path}: no such file, and no named set; known sets: {', '.join(LOADABLE)}"
    raise UserError(message)


def _load_stdlib_docs(*, valid_fraction: float, seed: int) -> Splits:
    documents = stdlib_docs.read_documents()
    families = list(stdlib_docs.FAMILIES)
    parts = []
    for in_test in (False, True):
        chosen = [document for document in documents if document.in_test == in_test]
        parts.append(
            TextDataset(
                texts=[document.text for document in chosen],
                labels=np.array([families.index(document.family) for document in chosen], dtype=np.int64),
                label_names=families,
                name=stdlib_docs.NAME,
                source="Python's standard library" + (" (test)" if in_test else ""),
            )
        )
    return split_off_valid(parts[0], parts[1], valid_fraction=valid_fraction, seed=seed)
