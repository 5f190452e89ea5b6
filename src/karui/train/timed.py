"""Training by the clock: what a task reaches in equal time, and after equal numbers of examples.

The clock is the CPU time of this process, all threads, in training steps alone: on a busy machine it says what an idle
one would have taken, and evaluation is free. The wall clock of the same steps stands beside it.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from karui.optim import clip_grad_norm_
from karui.train.device import make_optimizer, repeatable
from karui.train.protocol import Task
from karui.train.settings import TrainSettings


@dataclass(frozen=True)
class Budget:
    """When to look and when to stop."""

    seconds: float
    """Equal time: CPU seconds of training."""

    examples: int
    """Equal examples (tokens, documents); training goes on until both are reached; 0 = seconds alone."""

    marks: tuple[float, ...] = ()
    """CPU seconds at which the validation part is scored, besides `seconds`; doubled from there on."""

    most_seconds: float = math.inf
    """CPU seconds after which training stops, whatever is reached."""

    opens_test: bool = True
    """Score the test part at equal time and examples; a trial must not."""


@dataclass
class TimedResult:
    """One entry an evaluation: `cpu_seconds`, `seconds` (wall clock), `steps`, `examples`, `valid`.

    A score that is not finite is None.
    """

    curve: list[dict[str, Any]] = field(default_factory=list)
    at_time: dict[str, Any] | None = None
    """The entry at equal time, with `test` where the budget opens that part; None: not reached."""
    at_examples: dict[str, Any] | None = None
    """The same at equal examples."""
    diverged: dict[str, Any] | None = None
    """Where the loss was no longer finite; nothing was trained from there on."""
    step_seconds: list[float] = field(default_factory=list)
    """CPU seconds of each step."""


Score = Callable[[str], float]


def train_timed(
    task: Task,
    settings: TrainSettings,
    budget: Budget,
    *,
    examples_of: Callable[[Any], int],
    score: Score,
    say: Callable[[dict[str, Any]], None] = lambda _: None,
    after_steps: Callable[[int], None] = lambda _: None,
) -> TimedResult:
    """Train the task's model on the CPU at a constant learning rate until the budget is used.

    examples_of: examples in a batch. score: of "valid" or "test", lower is better; called in eval mode, without grad.
    say: is told each entry of the curve. after_steps: is told the number of steps after each.
    """
    result = TimedResult()
    with repeatable(settings, torch.device("cpu")):
        optimizer = make_optimizer(task.parameter_groups(settings), settings)
        spent, wall, examples = 0.0, 0.0, 0
        marks = _marks(budget)
        mark = next(marks)
        task.model.train()
        for steps, (epoch, step) in enumerate(_steps(task), 1):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            batch = task.batch(epoch, step)
            finite = _step(task, batch, optimizer, settings)
            result.step_seconds.append(time.process_time() - cpu_begin)
            spent, wall = spent + result.step_seconds[-1], wall + time.perf_counter() - begin
            examples += examples_of(batch)
            after_steps(steps)
            at = {
                "cpu_seconds": round(spent, 3), "seconds": round(wall, 3), "steps": steps, "examples": examples,
            }  # fmt: skip
            if not finite:
                result.diverged = at
                return result
            wants_time = result.at_time is None and spent >= budget.seconds
            wants_examples = result.at_examples is None and 0 < budget.examples <= examples
            if spent >= mark or wants_time or wants_examples:
                while mark <= spent:
                    mark = next(marks)
                at["valid"] = _scored(task, score, "valid")
                result.curve.append(at)
                say(at)
            if wants_time or wants_examples:
                tested = {**at, "test": _scored(task, score, "test")} if budget.opens_test else at
                result.at_time = tested if wants_time else result.at_time
                result.at_examples = tested if wants_examples else result.at_examples
            done = result.at_time is not None and (result.at_examples is not None or not budget.examples)
            if done or spent >= budget.most_seconds:
                break
    return result


def _step(task: Task, batch: Any, optimizer: torch.optim.Optimizer, settings: TrainSettings) -> bool:
    """Train one step; return False, before anything is changed, where the loss is not finite."""
    loss = task.loss(batch)
    if not math.isfinite(loss.item()):
        return False
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if settings.grad_clip_norm:
        clip_grad_norm_(task.model.parameters(), settings.grad_clip_norm)
    optimizer.step()
    return True


@torch.no_grad()
def _scored(task: Task, score: Score, split: str) -> float | None:
    task.model.eval()
    value = score(split)
    task.model.train()
    return value if math.isfinite(value) else None


def _steps(task: Task) -> Iterator[tuple[int, int]]:
    epoch = 0
    while True:
        for step in range(task.steps_per_epoch(epoch)):
            yield epoch, step
        epoch += 1


def _marks(budget: Budget) -> Iterator[float]:
    """The seconds at which to look, in rising order, then doubling for ever."""
    last = budget.seconds
    yield from _below(budget.marks, last)
    while True:
        yield last
        last *= 2


def _below(marks: Sequence[float], end: float) -> list[float]:
    return sorted(mark for mark in set(marks) if mark < end)
