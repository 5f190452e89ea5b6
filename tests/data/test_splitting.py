"""Splits are pure functions: disjoint, complete, stratified, the same tomorrow."""

import numpy as np
import pytest

from karui.data.splitting import fold_indices, stratified_split
from karui.errors import UserError


def test_stratified_split_keeps_shares_and_every_index_once():
    labels = np.repeat([0, 1, 2], [600, 300, 10])
    rest, part = stratified_split(labels, 0.1, seed=3)
    assert np.bincount(labels[part]).tolist() == [60, 30, 1]
    assert np.array_equal(np.sort(np.concatenate([rest, part])), np.arange(910))


def test_stratified_split_depends_on_the_seed_only():
    labels = np.arange(1000) % 2
    first, again, other = (stratified_split(labels, 0.1, seed=seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert len(np.intersect1d(first, other)) < 30  # ten are expected by chance


def test_stratified_split_is_the_same_on_every_machine():
    assert stratified_split(np.zeros(20, dtype=int), 0.25, seed=0)[1].tolist() == [2, 4, 6, 13, 19]


def test_small_classes_keep_an_example_on_either_side():
    rest, part = stratified_split(np.array([0, 0, 1]), 0.5, seed=0)
    assert len(part) == 1
    assert 2 in rest  # the only example of its class is for training


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_impossible_fractions(fraction):
    with pytest.raises(UserError, match=rf"valid_fraction must be in \[0, 1\), got {fraction}"):
        stratified_split(np.zeros(4, dtype=int), fraction, seed=0)


def test_no_valid_part():
    rest, part = stratified_split(np.array([0, 1, 1]), 0.0, seed=0)
    assert (len(rest), len(part)) == (3, 0)


def test_folds_cover_everything_once():
    tests = []
    for fold in range(10):
        rest, test = fold_indices(103, fold)
        assert np.array_equal(np.sort(np.concatenate([rest, test])), np.arange(103))
        tests.append(test)
    assert sorted(map(len, tests)) == [10] * 7 + [11] * 3
    assert np.array_equal(np.sort(np.concatenate(tests)), np.arange(103))
    assert tests[0].tolist() != list(range(11))  # shuffled


@pytest.mark.parametrize("fold", [-1, 10])
def test_impossible_folds(fold):
    with pytest.raises(UserError, match=f"fold must be 0 to 9, got {fold}"):
        fold_indices(100, fold)
