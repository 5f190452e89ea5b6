"""Cut-offs: the dynamic program finds what trying every choice finds."""

import itertools

import numpy as np
import pytest
import torch

from karui.output.cutoffs import MIN_SHORTLIST, choose_cutoffs, cost_of_cutoffs


def zipf(V: int, power: float = 1.0) -> np.ndarray:
    return (1e7 / np.arange(1, V + 1) ** power).astype(np.int64)


@pytest.mark.parametrize("shortlist", [1, 4])
@pytest.mark.parametrize("tails", [1, 3])
@pytest.mark.parametrize("V", [1, 2, 3, 9, 18])
def test_the_cheapest_of_all_choices_is_found(monkeypatch, V, tails, shortlist) -> None:
    monkeypatch.setattr("karui.output.cutoffs.FLAT_COLUMNS", 3)
    counts = zipf(V, 1.3)
    every = [[], *(c for J in range(1, tails + 1) for c in itertools.combinations(range(shortlist, V), J))]
    best = min(cost_of_cutoffs(counts, list(c)) for c in every)
    shuffled = torch.tensor(np.random.default_rng(0).permutation(counts))
    found = choose_cutoffs(shuffled, max_tails=tails, min_shortlist=shortlist)
    assert abs(cost_of_cutoffs(counts, found) - best) <= 1e-9
    assert found == sorted(set(found))
    assert all(shortlist <= c < V for c in found)


@pytest.mark.parametrize("V", [10_000, 100_000])
def test_no_small_move_is_cheaper(V) -> None:
    counts = zipf(V)
    found = choose_cutoffs(torch.tensor(counts))
    best = cost_of_cutoffs(counts, found)
    assert best < 0.25 * V
    assert len(found) == 4
    assert found[0] >= MIN_SHORTLIST
    for i, step in itertools.product(range(4), (-300, -10, -1, 1, 10, 300)):
        moved = [c + step * (j == i) for j, c in enumerate(found)]
        if moved[0] >= MIN_SHORTLIST and moved == sorted(set(moved)):
            assert cost_of_cutoffs(counts, moved) >= best - 1e-9


def test_a_small_vocabulary_is_not_cut() -> None:
    assert choose_cutoffs(torch.tensor(zipf(1500))) == []
    assert choose_cutoffs(torch.zeros(40, dtype=torch.int64)) == []


def test_zero_counts_weigh_as_one() -> None:
    counts = zipf(5000, 1.5)
    counts[4000:] = 0
    assert choose_cutoffs(torch.tensor(counts)) == choose_cutoffs(torch.tensor(np.maximum(counts, 1)))


def test_cost_is_the_papers_formula() -> None:
    counts = [400, 300, 200, 100]
    assert cost_of_cutoffs(counts, []) == 50  # g is flat below 50 columns
    assert abs(cost_of_cutoffs([1] * 1000, [100, 400]) - (102 + 0.3 * 300 + 0.6 * 600)) <= 1e-9
    assert abs(cost_of_cutoffs([1] * 1000, [100, 110]) - (102 + 0.01 * 50 + 0.89 * 890)) <= 1e-9
