"""Training by the clock: what a task reaches in a given time, or with a given number of examples.

The clock is the CPU time of this process, all threads, in training steps alone: on a busy machine it says what an idle
one would have taken, and evaluation is free. The wall clock of the same steps stands beside it. The learning rate
follows the schedule of the settings over the budget, whatever it is counted in: a run that ends at equal time and one
that ends at equal examples are two runs, and points inside a run are no ends.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from karui.optim import clip_grad_norm_
from karui.train.device import make_optimizer, repeatable
from karui.train.protocol import Task
from karui.train.schedule import Schedule
from karui.train.settings import TrainSettings

PARTS = 1_000_000
"""The schedule counts in parts of the budget."""

LOOK_STEPS = 5
"""Steps after which the time of the whole run is estimated; the first, which warms up, is not counted."""


@dataclass(frozen=True)
class Budget:
    """When to look and when to stop. Where both limits are given, training goes on until both are reached."""

    seconds: float = 0.0
    """CPU seconds of training; 0 = examples alone."""

    examples: int = 0
    """Training examples (tokens, documents); 0 = seconds alone."""

    marks: tuple[float, ...] = ()
    """CPU seconds at which the validation part is scored, besides the end."""

    most_seconds: float = math.inf
    """A run that would take longer, as its first steps say, is given up at once; one that goes on is never cut."""

    opens_test: bool = True
    """Score the test part at the end; a trial must not."""

    def __post_init__(self) -> None:
        if not (self.seconds > 0 or self.examples > 0):
            raise ValueError(
                f"a budget needs seconds > 0 or examples > 0, got {self.seconds} and {self.examples}"
            )

    def share(self, seconds: float, examples: int) -> float:
        """Return the share of the budget that is used, 1 or more at its end."""
        used = [seconds / self.seconds] if self.seconds > 0 else []
        return min([*used, examples / self.examples] if self.examples > 0 else used)

    def seconds_for(self, seconds: float, examples: int) -> float:
        """Return how many seconds the whole run takes at the pace of `examples` in `seconds`."""
        return max(self.seconds, self.examples * seconds / max(examples, 1))


@dataclass
class TimedResult:
    """One entry an evaluation: `cpu_seconds`, `seconds` (wall clock), `steps`, `examples`, `valid`.

    A score that is not finite is None.
    """

    curve: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None
    """The entry at the end of the budget, with `test` where the budget opens that part; None: not reached."""
    diverged: dict[str, Any] | None = None
    """Where the loss was no longer finite; nothing was trained from there on."""
    too_long: float | None = None
    """CPU seconds that the run would have taken, where they are more than the budget allows."""
    step_seconds: list[float] = field(default_factory=list)
    """CPU seconds of each step."""
    examples: int = 0
    """Examples that were read."""


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
    """Train the task's model on the CPU until the budget is used; the schedule falls over the budget.

    examples_of: examples in a batch. score: of "valid" or "test", lower is better; called in eval mode, without grad.
    say: is told each entry of the curve. after_steps: is told the number of steps after each.
    """
    result = TimedResult()
    with repeatable(settings, torch.device("cpu")):
        optimizer = make_optimizer(task.parameter_groups(settings), settings)
        rates = [group["lr"] for group in optimizer.param_groups]
        schedule = Schedule(settings, PARTS)
        spent, wall, first = 0.0, 0.0, 0
        marks = sorted(set(budget.marks))
        task.model.train()
        for steps, (epoch, step) in enumerate(_steps(task), 1):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            factor = schedule.lr_factor(int(PARTS * budget.share(spent, result.examples)), epoch)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            batch = task.batch(epoch, step)
            finite = _step(task, batch, optimizer, settings)
            result.step_seconds.append(time.process_time() - cpu_begin)
            spent, wall = spent + result.step_seconds[-1], wall + time.perf_counter() - begin
            result.examples += examples_of(batch)
            after_steps(steps)
            at = {
                "cpu_seconds": round(spent, 3), "seconds": round(wall, 3), "steps": steps, "examples": result.examples,
            }  # fmt: skip
            if not finite:
                result.diverged = at
                return result
            first = first or result.examples
            if steps == LOOK_STEPS:
                taken = (LOOK_STEPS - 1) * statistics.median(result.step_seconds[1:])
                needed = budget.seconds_for(taken, result.examples - first)
                if needed > budget.most_seconds:
                    result.too_long = round(needed, 1)
                    return result
            ends = budget.share(spent, result.examples) >= 1
            if ends or (marks and spent >= marks[0]):
                marks = [mark for mark in marks if mark > spent]
                at["valid"] = _scored(task, score, "valid")
                result.curve.append(at)
                say(at)
            if ends:
                result.end = {**at, "test": _scored(task, score, "test")} if budget.opens_test else at
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
