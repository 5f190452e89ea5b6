import math
from statistics import mean

import pytest

from karui.train.search import STARTUP_TRIALS, Trial, best, propose

pytest.importorskip("optuna", reason="needs karui[tune]")
RANGES = {"lr": (1e-4, 1e-1), "dropout": (0.0, 0.5)}


def loss(values):
    return abs(math.log10(values["lr"]) + 2) + values["dropout"]


def run(trials, *, seed=0):
    done = []
    for _ in range(trials):
        values = propose(RANGES, done, seed=seed)
        done.append(Trial(values, loss(values)))
    return done


def test_a_search_depends_on_its_seed_and_its_results_alone():
    whole = run(8)
    assert run(8) == whole
    assert propose(RANGES, whole[:5], seed=0) == whole[5].values
    assert run(1, seed=1) != whole[:1]


def test_values_lie_in_their_ranges_the_logarithmic_ones_spread_over_decades():
    drawn = [propose(RANGES, [], seed=seed) for seed in range(40)]
    assert all(low <= values[name] <= high for values in drawn for name, (low, high) in RANGES.items())
    assert 10 <= sum(values["lr"] < math.sqrt(1e-4 * 1e-1) for values in drawn) <= 30


def test_results_guide_the_later_trials():
    searches = [run(14, seed=seed) for seed in range(4)]
    at_random = mean(trial.value for found in searches for trial in found[:STARTUP_TRIALS])
    guided = mean(trial.value for found in searches for trial in found[STARTUP_TRIALS:])
    assert guided < at_random


def test_a_run_that_diverged_is_no_choice_but_no_obstacle():
    trials = [Trial({"lr": 0.1, "dropout": 0.0}, None), Trial({"lr": 0.01, "dropout": 0.1}, 0.3)]
    assert best(trials) is trials[1]
    assert best(trials[:1]) is None
    assert RANGES["lr"][0] <= propose(RANGES, trials, seed=0)["lr"] <= RANGES["lr"][1]
