"""Deterministic splits: a stratified share for validation, and the ten folds of cross-validation."""

import numpy as np

from karui.errors import UserError

FOLDS = 10
FOLD_SEED = 1234
"""Seed of the shuffle behind the folds, as in the SRU authors' script; fixed, so folds stay paired."""


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices `(rest, part)`, where `part` holds about `fraction` of every class.

    A pure function of its arguments. A class of at least two examples keeps one on either side. Raises
    `UserError` when `fraction` is outside [0, 1).
    """
    if not 0.0 <= fraction < 1.0:
        raise UserError(f"valid_fraction must be in [0, 1), got {fraction}")
    in_part = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        wanted = round(fraction * len(members))
        if fraction > 0 and len(members) > 1:
            wanted = min(max(wanted, 1), len(members) - 1)
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        in_part[members[order[:wanted]]] = True
    return np.flatnonzero(~in_part), np.flatnonzero(in_part)


def fold_indices(num_examples: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices `(rest, test)` of fold 0 to 9 of one fixed shuffle.

    Every example is in the test part of exactly one fold; fold sizes differ by at most one.
    """
    if not 0 <= fold < FOLDS:
        raise UserError(f"fold must be 0 to {FOLDS - 1}, got {fold}")
    order = np.random.default_rng(FOLD_SEED).permutation(num_examples)
    parts = np.array_split(order, FOLDS)
    rest = np.concatenate([part for index, part in enumerate(parts) if index != fold])
    return np.sort(rest), np.sort(parts[fold])
