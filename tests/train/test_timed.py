"""Training by the clock: equal time and equal examples from one run, evaluation free, divergence recorded."""

import itertools
import math

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


def run(budget, task=None, **arguments):
    task = task or TinyTask(has_penalty=False)
    asked = []

    def score(split):
        asked.append((split, task.model.training, torch.is_grad_enabled()))
        return task.evaluate(split)["nll"]

    result = train_timed(
        task, SETTINGS, budget, examples_of=lambda batch: len(batch[1]), score=score, **arguments
    )
    return result, asked, task


def test_one_run_gives_equal_time_and_equal_examples(clock):
    told, steps = [], []
    result, asked, task = run(
        Budget(8.0, 5 * BATCH, marks=(2.0, 4.0)), say=told.append, after_steps=steps.append
    )
    assert [(e["cpu_seconds"], e["seconds"], e["steps"], e["examples"]) for e in result.curve] == [
        (2.0, 4.0, 2, 2 * BATCH), (4.0, 8.0, 4, 4 * BATCH), (5.0, 10.0, 5, 5 * BATCH), (8.0, 16.0, 8, 8 * BATCH),
    ]  # fmt: skip
    assert told == result.curve
    assert steps == list(range(1, 9))
    assert result.step_seconds == [1.0] * 8
    assert result.at_examples["steps"] == 5
    assert result.at_time["steps"] == 8
    assert result.at_time["valid"] < result.curve[0]["valid"], "it learns"
    assert [split for split, *_ in asked] == ["valid", "valid", "valid", "test", "valid", "test"]
    assert {(training, grad) for _, training, grad in asked} == {(False, False)}, "eval mode, no gradient"
    task.model.eval()
    with torch.no_grad():
        assert result.at_time["test"] == task.evaluate("test")["nll"]
    assert result.diverged is None


def test_a_slow_method_trains_on_until_it_has_the_examples(clock):
    result, _, _ = run(Budget(2.0, 11 * BATCH))
    assert [entry["steps"] for entry in result.curve] == [2, 4, 8, 11], (
        "past equal time it is looked at less often"
    )
    assert (result.at_time["steps"], result.at_examples["steps"]) == (2, 11)


def test_it_stops_at_the_end_of_its_patience(clock):
    result, _, _ = run(Budget(2.0, 1000 * BATCH, most_seconds=6.0))
    assert len(result.step_seconds) == 6
    assert result.at_time is not None
    assert result.at_examples is None


def test_a_trial_does_not_open_the_test_part(clock):
    result, asked, _ = run(Budget(3.0, 0, opens_test=False))
    assert asked == [("valid", False, False)]
    assert "test" not in result.at_time


def test_a_loss_that_is_not_finite_ends_the_run_before_it_reaches_the_weights(clock):
    task = TinyTask(has_penalty=False)
    true, calls = task.loss, itertools.count(1)
    task.loss = lambda batch: true(batch) * (math.nan if next(calls) == 3 else 1.0)
    result, _, _ = run(Budget(5.0, 0), task)
    assert result.diverged == {"cpu_seconds": 3.0, "seconds": 6.0, "steps": 3, "examples": 3 * BATCH}
    assert result.at_time is None
    assert all(parameter.isfinite().all() for parameter in task.model.parameters())


def test_a_score_that_is_not_finite_is_none(clock):
    task = TinyTask(has_penalty=False)
    task.evaluate = lambda _: {"nll": math.inf}
    result, _, _ = run(Budget(1.0, 0), task)
    assert result.at_time["valid"] is None
    assert result.at_time["test"] is None


def test_the_steps_are_those_of_the_loop(tmp_path):
    """Same seed, constant rate: after one epoch the weights are those that karui.train.fit makes."""
    from dataclasses import replace

    from karui.train.loop import fit

    fitted, clocked = TinyTask(has_penalty=False), TinyTask(has_penalty=False)
    fit(fitted, replace(SETTINGS, max_epochs=1, keep="last"), tmp_path, quiet=True, tensorboard=False)
    torch.manual_seed(0x6B61727569)  # the stream that the loop draws dropout from
    run(Budget(1e-9, BATCH * clocked.steps_per_epoch(0)), clocked)
    for (name, one), other in zip(fitted.model.named_parameters(), clocked.model.parameters(), strict=True):
        assert torch.equal(one, other), name
