"""Training by the clock: runs of equal time and of equal examples, rates that fall, divergence recorded."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from karui.train import timed
from karui.train.settings import TrainSettings
from karui.train.timed import Budget, train_timed
from tests.support.tiny_task import BATCH, TinyTask

SETTINGS = TrainSettings(lr=1e-2, schedule="constant", grad_clip_norm=1.0, threads=1)


@pytest.fixture
def clock(monkeypatch):
    """A second of CPU time and two of the wall clock a step, whatever the machine does."""
    cpu, wall = itertools.count(), itertools.count(step=2)
    monkeypatch.setattr(timed.time, "process_time", lambda: float(next(cpu)))
    monkeypatch.setattr(timed.time, "perf_counter", lambda: float(next(wall)))


def run(budget, task=None, *, settings=SETTINGS, **arguments):
    task = task or TinyTask(has_penalty=False)
    asked = []

    def score(split):
        asked.append((split, task.model.training, torch.is_grad_enabled()))
        return task.evaluate(split)["nll"]

    result = train_timed(
        task, settings, budget, examples_of=lambda batch: len(batch[1]), score=score, **arguments
    )
    return result, asked, task


def test_a_run_ends_at_equal_time(clock):
    told, steps = [], []
    result, asked, task = run(Budget(8.0, marks=(4.0, 2.0)), say=told.append, after_steps=steps.append)
    assert [(e["cpu_seconds"], e["seconds"], e["steps"], e["examples"]) for e in result.curve] == [
        (2.0, 4.0, 2, 2 * BATCH), (4.0, 8.0, 4, 4 * BATCH), (8.0, 16.0, 8, 8 * BATCH),
    ]  # fmt: skip
    assert told == result.curve
    assert steps == list(range(1, 9))
    assert result.step_seconds == [1.0] * 8
    assert result.examples == 8 * BATCH
    assert result.end["steps"] == 8
    assert result.end["valid"] < result.curve[0]["valid"], "it learns"
    assert [split for split, *_ in asked] == ["valid", "valid", "valid", "test"]
    assert {(training, grad) for _, training, grad in asked} == {(False, False)}, "eval mode, no gradient"
    task.model.eval()
    with torch.no_grad():
        assert result.end["test"] == task.evaluate("test")["nll"]
    assert result.diverged is result.too_long is None


def test_a_run_ends_at_equal_examples(clock):
    result, _, _ = run(Budget(examples=5 * BATCH, marks=(2.0, 100.0)))
    assert [entry["steps"] for entry in result.curve] == [2, 5]
    assert result.end["examples"] == 5 * BATCH


def test_with_both_limits_it_trains_until_both_are_reached(clock):
    assert run(Budget(2.0, 7 * BATCH))[0].end["steps"] == 7
    assert run(Budget(7.0, 2 * BATCH))[0].end["steps"] == 7


@pytest.mark.parametrize("budget", [Budget(8.0), Budget(examples=8 * BATCH), Budget(8.0, 4 * BATCH)])
def test_the_rates_of_all_groups_fall_to_zero_over_the_budget(clock, monkeypatch, budget):
    rates = []
    true = timed._step

    def step(task, batch, optimizer, settings):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return true(task, batch, optimizer, settings)

    monkeypatch.setattr(timed, "_step", step)
    settings = replace(SETTINGS, schedule="linear", decay_start=0.0)
    task = TinyTask(has_penalty=False)
    groups = task.parameter_groups(settings)
    assert len(groups) > 1
    groups[-1]["lr"] = 0.5
    task.parameter_groups = lambda _: groups
    run(budget, task, settings=settings)
    first = [group.get("lr", settings.lr) for group in TinyTask(has_penalty=False).parameter_groups(settings)]
    first[-1] = 0.5
    expected = [[rate * (8 - k) / 8 for rate in first] for k in range(8)]
    assert rates == [pytest.approx(line) for line in expected]


def test_a_run_that_would_take_too_long_is_given_up_at_once_and_never_cut(clock):
    result, asked, _ = run(Budget(examples=1000 * BATCH, most_seconds=999.0))
    assert result.too_long == 1000.0
    assert len(result.step_seconds) == timed.LOOK_STEPS
    assert result.end is None
    assert asked == [], "no score of a run that was not made"
    result, _, _ = run(Budget(examples=20 * BATCH, most_seconds=20.0))
    assert result.too_long is None
    assert result.end["steps"] == 20


def test_a_budget_needs_a_limit():
    with pytest.raises(ValueError, match="seconds > 0 or examples > 0, got 0"):
        Budget(marks=(1.0,))


def test_a_trial_does_not_open_the_test_part(clock):
    result, asked, _ = run(Budget(3.0, opens_test=False))
    assert asked == [("valid", False, False)]
    assert "test" not in result.end


def test_a_loss_that_is_not_finite_ends_the_run_before_it_reaches_the_weights(clock):
    task = TinyTask(has_penalty=False)
    true, calls = task.loss, itertools.count(1)
    task.loss = lambda batch: true(batch) * (math.nan if next(calls) == 3 else 1.0)
    result, _, _ = run(Budget(5.0), task)
    assert result.diverged == {"cpu_seconds": 3.0, "seconds": 6.0, "steps": 3, "examples": 3 * BATCH}
    assert result.end is None
    assert all(parameter.isfinite().all() for parameter in task.model.parameters())


def test_a_score_that_is_not_finite_is_none(clock):
    task = TinyTask(has_penalty=False)
    task.evaluate = lambda _: {"nll": math.inf}
    result, _, _ = run(Budget(1.0), task)
    assert result.end["valid"] is None
    assert result.end["test"] is None


def test_the_steps_are_those_of_the_loop(tmp_path):
    """Same seed, constant rate: after one epoch the weights are those that karui.train.fit makes."""
    from karui.train.loop import fit

    fitted, clocked = TinyTask(has_penalty=False), TinyTask(has_penalty=False)
    fit(fitted, replace(SETTINGS, max_epochs=1, keep="last"), tmp_path, quiet=True, tensorboard=False)
    torch.manual_seed(0x6B61727569)  # the stream that the loop draws dropout from
    run(Budget(examples=BATCH * clocked.steps_per_epoch(0)), clocked)
    for (name, one), other in zip(fitted.model.named_parameters(), clocked.model.parameters(), strict=True):
        assert torch.equal(one, other), name
