"""The training loop on Lightning Fabric: backward, then clip, then step.

loss(t) = data loss + penalty_weight(t) * penalty / num_examples
"""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from karui.errors import UserError
from karui.files import alone_in, os_reason
from karui.train.device import make_fabric, repeatable
from karui.train.metrics import MetricsLog
from karui.train.progress import Progress
from karui.train.protocol import Task
from karui.train.run import Run
from karui.train.settings import TrainSettings
from karui.train.state import CheckpointFolder


@dataclass(frozen=True)
class FitResult:
    """What a finished run returns."""

    metrics: dict[str, float]
    """Validation metrics (and status) of the weights returned."""

    epoch: int
    """Epoch of these weights, counted from 0."""

    epochs: int
    """Epochs trained."""

    steps: int
    """Steps trained."""

    seconds: float
    """Time spent in the loop, over all resumed parts."""

    weights: Path
    """The weights returned (`checkpoints/final.safetensors`); the task's model holds them too."""

    stopped_early: bool
    """The validation metric no longer improved."""

    was_finished: bool
    """The run had ended before; nothing was trained."""


def fit(
    task: Task,
    settings: TrainSettings,
    run_dir: Path | str,
    *,
    resume: bool = False,
    recipe: Mapping[str, Any] | None = None,
    quiet: bool = False,
    tensorboard: bool = True,
) -> FitResult:
    """Train the task's model into a run folder; afterwards the model holds the weights that the run chose.

    `recipe` (JSON-able; by default the settings) is kept in the checkpoints: a run resumed with another one
    is refused. With `resume`, a folder without a checkpoint starts from the beginning.

    Raises:
        UserError: the loss became NaN or infinite; the folder cannot be written; it holds a run already
            (without `resume`), or another process is at work in it; its checkpoint is damaged or of another
            recipe; the device or the precision is missing.
    """
    fabric = make_fabric(settings)
    folder = CheckpointFolder(Path(run_dir), {"train": asdict(settings)} if recipe is None else recipe)
    if folder.exists() and not resume:
        raise UserError(f"{run_dir} already holds a run; add --resume, or choose another folder")
    try:
        folder.folder.mkdir(parents=True, exist_ok=True)
        alone = alone_in(Path(run_dir)) if fabric.is_global_zero else contextlib.nullcontext()
        with alone, repeatable(settings, fabric.device):
            folder.tidy()
            run = Run(task, settings, fabric, folder)
            notes = run.restore() if resume and folder.exists() else []
            was_finished = run.state.finished
            progress = Progress(run.schedule.total_steps, done=run.state.global_step, quiet=quiet)
            try:
                for note in notes:
                    progress.say(note)
                if not was_finished:
                    with _open_log(Path(run_dir), run, tensorboard=tensorboard) as log:
                        run.train(log, progress)
            finally:
                progress.close()
            chosen = run.load_final()
    except OSError as error:
        reason = os_reason(error)
        if reason is None:
            raise
        raise UserError(f"cannot write into {run_dir}: {reason}; continue with --resume") from error
    state = run.state
    return FitResult(
        metrics={name: value for name, value in chosen.items() if name not in ("epoch", "step")},
        epoch=chosen["epoch"],
        epochs=state.epoch,
        steps=state.global_step,
        seconds=state.seconds,
        weights=folder.final,
        stopped_early=state.stopped_early,
        was_finished=was_finished,
    )


def _open_log(run_dir: Path, run: Run, *, tensorboard: bool) -> MetricsLog:
    state = run.state
    purge_step = state.global_step + 1 if state.global_step else 0
    return MetricsLog(run_dir, offset=state.metrics_offset, purge_step=purge_step, tensorboard=tensorboard)
