"""One training run, step by step; `karui.train.fit` wraps it."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from karui.errors import UserError
from karui.train import checkpoint
from karui.train.averaging import WeightAverage
from karui.train.device import clip_gradients, make_optimizer, weights_of
from karui.train.metrics import MetricsLog
from karui.train.progress import Progress
from karui.train.protocol import Constrained, Described, Gated, Task
from karui.train.schedule import Schedule
from karui.train.settings import TrainSettings
from karui.train.state import CheckpointFolder, RunState, Trained

# The loop draws other numbers than those that made the first weights from the same seed.
_STREAM = 0x6B61727569


class Run:
    """The task on its device, the optimizer, and where the run stands."""

    def __init__(self, task: Task, settings: TrainSettings, fabric: Any, folder: CheckpointFolder) -> None:
        self.task, self.settings, self.fabric, self.folder = task, settings, fabric, folder
        optimizer = make_optimizer(task.parameter_groups(settings), settings)
        self.module, self.optimizer = fabric.setup(task.model, optimizer)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        averages = settings.weight_averaging > 0 or settings.average_from > 0
        average = WeightAverage(task.model, settings.weight_averaging or None) if averages else None
        scaler = getattr(fabric.strategy.precision, "scaler", None)
        self.trained = Trained(task.model, optimizer, average, scaler, task)
        self.steps_of = [task.steps_per_epoch(epoch) for epoch in range(settings.max_epochs)]
        self.schedule = Schedule(settings, sum(self.steps_of))
        self.constrained = task if isinstance(task, Constrained) else None
        self.remedy = task.gate_remedy(settings) if isinstance(task, Gated) else ""
        self.has_penalty = settings.penalty_weight > 0 and task.penalty() is not None
        self.state = RunState()
        self.best_weights: dict[str, Tensor] | None = None  # set while they are newer than their file
        self.pending: list[tuple[int, Tensor, Tensor, Tensor | None]] = []
        self.penalty = math.nan
        self._save_seconds = 0.0
        # Reading a number back is free on a CPU; elsewhere it waits for the device: it is done now and then.
        self.reads_at_once = fabric.device.type == "cpu"
        torch.manual_seed(settings.seed ^ _STREAM)

    def restore(self) -> list[str]:
        """Continue where the last checkpoint stands; return lines a person should see."""
        self.state, threads = self.folder.restore(self.trained)
        state = self.state
        notes = [] if state.finished else [f"resuming at epoch {state.epoch + 1}, step {state.step}"]
        if threads != torch.get_num_threads() and not state.finished:
            notes.append(
                f"the run began with {threads} threads and goes on with {torch.get_num_threads()}: "
                "the last bits of its weights may differ from an uninterrupted run's"
            )
        return notes

    def train(self, log: MetricsLog, progress: Progress) -> None:
        """Train the epochs that are left and write the weights the run chose."""
        self.log, self.progress = log, progress
        state, settings = self.state, self.settings
        self._began_at = time.monotonic() - state.seconds
        self._saved_at = time.monotonic()
        while state.epoch < settings.max_epochs and not state.stopped_early:
            self._train_epoch()
            epoch = state.epoch
            state.epoch, state.step = epoch + 1, 0
            if state.epoch % settings.evaluate_every == 0 or state.epoch == settings.max_epochs:
                self._evaluate(epoch)
            self._save_if_due()
        self._finish()

    def load_final(self) -> dict[str, Any]:
        """Put the weights the run chose into the model; return their epoch, step and metrics."""
        weights, info = checkpoint.read_file(self.folder.final)
        model = self.trained.model
        checkpoint.check_matches(weights, model.state_dict(), self.folder.final)
        model.load_state_dict(weights)
        model.eval()
        return info["metrics"]

    def _train_epoch(self) -> None:
        state, log_every = self.state, self.settings.log_every
        self.task.model.train()
        steps = self.steps_of[state.epoch]
        for step in range(state.step, steps):
            lr = self._step(step)
            state.step, state.global_step = step + 1, state.global_step + 1
            if step + 1 == steps or state.global_step % log_every == 0:
                self._log_training(lr)
            if step + 1 < steps:  # the end of an epoch is saved after its evaluation
                self._save_if_due()

    def _step(self, step: int) -> float:
        state, settings, task, fabric = self.state, self.settings, self.task, self.fabric
        factor = self.schedule.lr_factor(state.global_step, state.epoch)
        for group, base_lr in zip(self.trained.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base_lr * factor
        self.optimizer.zero_grad()  # here and not later: what gradients take is there for the forward pass
        batch = fabric.to_device(task.batch(state.epoch, step))
        if self.constrained is not None:
            self._before_step(step)
        with fabric.autocast():
            data_loss = task.loss(batch)
            penalty = task.penalty() if self.has_penalty else None
            loss = data_loss
            if penalty is not None:
                weight = self.schedule.penalty_weight(state.global_step) / task.num_examples
                loss = torch.add(data_loss, penalty, alpha=weight)
            if self.constrained is not None:
                constraint = self._constraint(step, data_loss)
                loss = loss if constraint is None else loss + constraint
        self.pending.append(
            (step, data_loss.detach(), loss.detach(), None if penalty is None else penalty.detach())
        )
        if self.reads_at_once:
            self._read_pending()  # before backward: a NaN never reaches the weights
        fabric.backward(loss)
        if settings.grad_clip_norm:
            clip_gradients(fabric, self.module, self.optimizer, settings.grad_clip_norm)
        average = self.trained.average
        if average is not None:
            average.before_step()
        self.optimizer.step()
        if average is not None and state.global_step >= settings.average_from * self.schedule.total_steps:
            average.update()
        return self.base_lrs[0] * factor

    def _before_step(self, step: int) -> None:
        assert self.constrained is not None
        try:
            self.constrained.before_step(self.state.global_step / self.schedule.total_steps)
        except ValueError:  # as in `_constraint`
            self._read_pending()
            self._stop_unless_finite(step)
            raise

    def _constraint(self, step: int, data_loss: Tensor) -> Tensor | None:
        """What the task's constraint adds to the loss of this step."""
        assert self.constrained is not None
        try:
            return self.constrained.constraint(self.state.global_step / self.schedule.total_steps)
        except ValueError:  # it may rank weights: of numbers that are none it has nothing to say
            self.pending.append((step, data_loss.detach(), data_loss.detach(), None))
            self._read_pending()
            self._stop_unless_finite(step)
            raise

    def _read_pending(self) -> None:
        """Read the losses of the steps since the last call, and stop at the first that is not finite."""
        state = self.state
        for step, data_loss, loss, penalty in self.pending:
            if not math.isfinite(float(loss)):
                parts = {"the loss": data_loss, "the penalty": penalty, "the constraint of the target": loss}
                broken = (p for p in parts.items() if p[1] is not None and not p[1].isfinite())
                name, value = next(broken)
                self._stop(f"{name} is {float(value)}", step)
            state.loss_sum += float(data_loss)
            state.loss_count += 1
            if penalty is not None:
                self.penalty = float(penalty)
        if self.pending:
            self.progress.step(state.global_step, state.loss_sum / state.loss_count)
        self.pending.clear()

    def _first_broken(self) -> str:
        """Name of the first parameter that is no longer finite; empty while all are."""
        named = self.trained.model.named_parameters()
        return next((name for name, weight in named if not bool(weight.isfinite().all())), "")

    def _stop_unless_finite(self, step: int, epoch: int | None = None) -> None:
        if self._first_broken():
            self._stop("the weights are no longer finite", step, epoch)

    def _stop(self, what: str, step: int, epoch: int | None = None) -> None:
        settings, broken = self.settings, self._first_broken()
        epoch = self.state.epoch if epoch is None else epoch
        kept = "the last checkpoint is kept" if self.folder.exists() else "there is no checkpoint yet"
        kept = f"{kept}; {broken} is not finite" if broken else kept
        clip = "" if settings.grad_clip_norm else " or clip the gradient (--set train.grad_clip_norm=1)"
        gates = f", that of the gates ({self.remedy})" if self.remedy else ""
        raise UserError(
            f"{what} at epoch {epoch + 1}, step {step} ({kept}): "
            f"lower the learning rate (--set train.lr={settings.lr / 4:g}){gates}{clip} in a new run"
        )

    def _log_training(self, lr: float) -> None:
        self._read_pending()
        state = self.state
        line: dict[str, Any] = {"epoch": state.epoch, "step": state.global_step, "split": "train"}
        line["loss"] = state.loss_sum / state.loss_count
        if self.has_penalty:
            line["penalty"] = self.penalty
            line["penalty_weight"] = self.schedule.penalty_weight(state.global_step - 1)
        self.log.write({**line, "lr": lr, "seconds": self._seconds()})
        state.loss_sum, state.loss_count = 0.0, 0

    @contextlib.contextmanager
    def _deployed(self) -> Iterator[None]:
        """The model as it would be delivered: averaged, then pruned to what the task holds it to."""
        average = self.trained.average
        with torch.no_grad(), contextlib.nullcontext() if average is None else average.applied():
            if self.constrained is None:
                yield
                return
            with self.constrained.deployed():
                yield

    def _evaluate(self, epoch: int) -> None:
        state, settings, task = self.state, self.settings, self.task
        self._read_pending()
        self._stop_unless_finite(self.steps_of[epoch] - 1, epoch)
        task.model.eval()
        with self._deployed():
            with self.fabric.autocast():
                metrics = {**task.evaluate("valid"), **task.status()}
            sparsity = task.sparsity() if isinstance(task, Described) else {}
            is_best = self._counts() and (state.best is None or self._is_better(metrics, state.best))
            weights = weights_of(task.model) if is_best else None
        record = {"epoch": epoch, "step": state.global_step, **metrics}
        more = {"sparsity": sparsity} if sparsity else {}
        self.log.write({"split": "valid", **record, **more, "seconds": self._seconds()})
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.progress.say(f"epoch {epoch + 1}/{settings.max_epochs}  {shown}  {self._seconds():.0f} s")
        state.latest = record
        if is_best:
            state.best, state.evaluations_since_best, self.best_weights = record, 0, weights
        elif self._counts():
            state.evaluations_since_best += 1
            state.stopped_early = 0 < settings.patience <= state.evaluations_since_best

    def _counts(self) -> bool:
        """Whether the epoch may be the best one: not before a penalty has its full weight."""
        return not self.has_penalty or self.schedule.is_past_ramp(self.state.global_step)

    def _is_better(self, new: dict[str, Any], old: dict[str, Any]) -> bool:
        monitor = self.settings.monitor
        return new[monitor] > old[monitor] if monitor == "accuracy" else new[monitor] < old[monitor]

    def _weights(self) -> dict[str, Tensor]:
        with self._deployed():
            return weights_of(self.trained.model)

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began_at, 3)

    def _save_if_due(self) -> None:
        wait = self.settings.checkpoint_every_s
        if wait:  # a large model takes seconds to write: that takes at most a fortieth of the time
            wait = max(wait, 39 * self._save_seconds)
        if time.monotonic() - self._saved_at >= wait:
            began_at = time.monotonic()
            self._save()
            self._save_seconds = time.monotonic() - began_at

    def _save(self) -> None:
        self._read_pending()
        state = self.state
        self._stop_unless_finite(state.step)
        state.seconds, state.metrics_offset = self._seconds(), self.log.sync()
        self.folder.save(state, self.trained, self.best_weights)
        self.best_weights = None
        self._saved_at = time.monotonic()

    def _finish(self) -> None:
        """Write the weights the run chose, then the checkpoint that says that the run has ended."""
        state = self.state
        chosen, weights = state.latest, None
        if self.settings.keep == "best" and state.best is not None:
            chosen, weights = state.best, self.best_weights
            if weights is None:
                weights = checkpoint.read_file(self.folder.best)[0]
        info = {"kind": "weights", "metrics": chosen}
        checkpoint.write_file(self.folder.final, self._weights() if weights is None else weights, info)
        state.finished = True
        self._save()
