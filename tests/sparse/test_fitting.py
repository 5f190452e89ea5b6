"""The largest count that fits a limit: it fits, it is close to the limit, and few evaluations find it."""

import math

import pytest

from karui.sparse.fitting import CLOSE, largest_fitting

MOST = 640_000
COSTS = {
    "line": lambda k: 500 + 1.3 * k,
    "flattening": lambda k: 400 + 8 * k**0.85,
    "wavy": lambda k: 300 + 1.4 * k + 15 * math.sin(k),
}


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("guess", [0, 100, 30_000, MOST])
@pytest.mark.parametrize("limit", [5000, 20_000, 300_000])
def test_it_fits_and_little_is_left(cost, guess, limit):
    asked = []

    def counted(count):
        assert 0 <= count <= MOST
        asked.append(count)
        return cost(count)

    found = largest_fitting(counted, limit, most=MOST, guess=guess)
    assert found in asked
    assert (1 - CLOSE) * limit <= cost(found) <= limit
    assert len(asked) <= 10


def test_small_numbers_are_exact():
    for limit in range(60):
        found = largest_fitting(lambda k: 10 + 3 * k, limit, most=12, guess=5)
        assert found == (min((limit - 10) // 3, 12) if limit >= 10 else -1)


def test_a_step_in_the_cost_ends_below_it():
    assert largest_fitting(lambda k: 2 * k if k < 1000 else 5000 + k, 5000, most=MOST, guess=MOST) == 999


def test_a_limit_above_everything_keeps_everything():
    assert largest_fitting(lambda k: k, 1e9, most=50, guess=3) == 50


@pytest.mark.parametrize("guess", [100, 33_000, 200_000])
def test_a_cost_that_stands_still_takes_no_more_in(guess):
    found = largest_fitting(lambda k: min(1.5 * k, 49_400), 50_000, most=MOST, guess=guess)
    assert found < MOST / 2
    assert min(1.5 * found, 49_400) >= (1 - CLOSE) * 49_400
