"""Choosing settings by short trials: tree-structured Parzen estimators (Bergstra et al. 2011), through Optuna.

What a trial is given depends on the seed, its number and the results before it, nothing else: a search that was
stopped goes on as if it had not been.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STARTUP_TRIALS = 4
"""Trials drawn at random before the estimator is asked."""


@dataclass(frozen=True)
class Trial:
    """Settings that were tried and what came out; `value` is lower for better, None where the run diverged."""

    values: dict[str, float]
    value: float | None


def propose(
    ranges: Mapping[str, tuple[float, float]], trials: Sequence[Trial], *, seed: int
) -> dict[str, float]:
    """Return the settings of the next trial, after `trials`; on a logarithmic scale where a range starts above 0."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(low, high, log=low > 0)
        for name, (low, high) in ranges.items()
    }
    sampler = optuna.samplers.TPESampler(
        seed=(seed * 1_000_003 + len(trials)) % 2**32, n_startup_trials=STARTUP_TRIALS
    )
    study = optuna.create_study(sampler=sampler, direction="minimize")
    worst = max((trial.value for trial in trials if trial.value is not None), default=0.0)
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.values,
                distributions=distributions,
                value=worst
                if trial.value is None
                else trial.value,  # a run that diverged is as bad as the worst
            )
        )
    return {name: rounded(value) for name, value in study.ask(distributions).params.items()}


def best(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the lowest value, the first of equals; None where every run diverged."""
    finished = [trial for trial in trials if trial.value is not None]
    return min(finished, key=lambda trial: trial.value if trial.value is not None else math.inf, default=None)


def rounded(value: float) -> float:
    """Keep four digits: what is written in a record is what was run."""
    return float(f"{value:.4g}")
