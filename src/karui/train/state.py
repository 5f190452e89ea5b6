"""Where a run stands: the counters, and how they and the tensors go into a checkpoint and come back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from karui.errors import UserError
from karui.train import checkpoint
from karui.train.averaging import WeightAverage
from karui.train.differences import first_difference
from karui.train.protocol import CarriesState
from karui.train.settings import TrainSettings

ADDED_SETTINGS = ("sparse_lr", "average_from", "momentum")
"""Settings that came after the first runs; a run from before them can be resumed."""


@dataclass
class RunState:
    """Counters of a run. `epoch` and `step` name what is done next, both counted from 0."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: dict[str, Any] | None = None
    latest: dict[str, Any] | None = None
    evaluations_since_best: int = 0
    stopped_early: bool = False
    finished: bool = False
    metrics_offset: int = 0


@dataclass
class Trained:
    """The objects whose state a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    scaler: torch.amp.GradScaler | None
    task: object = None


def _with_new_settings(old: Any, new: Mapping[str, Any]) -> Any:
    """The old recipe with the settings that did not exist when it ran: their defaults are what it ran with."""
    if not all(isinstance(recipe.get("train"), Mapping) for recipe in (old, new)):
        return old
    defaults = {field.name: field.default for field in fields(TrainSettings) if field.name in ADDED_SETTINGS}
    known = {name: value for name, value in defaults.items() if name in new["train"]}
    return {**old, "train": {**known, **old["train"]}}


class CheckpointFolder:
    """The `checkpoints/` of one run."""

    def __init__(self, run_dir: Path, recipe: Mapping[str, Any]) -> None:
        self.folder = run_dir / "checkpoints"
        self.recipe = json.loads(json.dumps(recipe))  # as it comes back from a file: tuples are lists
        self.last = self.folder / checkpoint.LAST
        self.best = self.folder / checkpoint.BEST
        self.final = self.folder / checkpoint.FINAL
        self._next_best = self.folder / f"next-{checkpoint.BEST}"

    def exists(self) -> bool:
        """Tell whether there is something to resume from."""
        return self.last.exists()

    def save(self, state: RunState, trained: Trained, best_weights: Mapping[str, Tensor] | None) -> None:
        """Write everything a resumed run needs; `best_weights` only where they are new.

        The best weights are written beside the old ones first and take their place after `last` names them: a
        run killed in between finds out from the epoch which of the two belongs to its checkpoint.
        """
        if best_weights is not None and state.best is not None:
            checkpoint.write_file(self._next_best, best_weights, {"kind": "weights", "metrics": state.best})
        optimizer, tensors = checkpoint.flatten(trained.optimizer.state_dict(), "optimizer")
        tensors |= checkpoint.with_prefix("model", trained.model.state_dict())
        tensors |= checkpoint.with_prefix("random", checkpoint.random_state())
        info: dict[str, Any] = {
            "kind": "checkpoint",
            "recipe": self.recipe,
            "threads": torch.get_num_threads(),
        }
        info |= {"state": asdict(state), "optimizer": optimizer}
        if trained.average is not None:
            tensors |= checkpoint.with_prefix("average", trained.average.sums)
            tensors |= checkpoint.with_prefix("average_rows", trained.average.rows)
            info["average_updates"] = trained.average.num_updates
        if trained.scaler is not None:
            info["scaler"] = trained.scaler.state_dict()
        if isinstance(trained.task, CarriesState):
            tensors |= checkpoint.with_prefix("task", trained.task.training_state())
        checkpoint.write_file(self.last, tensors, info)
        if best_weights is not None:
            self._next_best.replace(self.best)

    def restore(self, trained: Trained) -> tuple[RunState, int]:
        """Fill `trained` from the last checkpoint; return the counters and the number of threads it ran with.

        Raises:
            UserError: the checkpoint is damaged, of another recipe or of another model.
        """
        tensors, info = checkpoint.read_file(self.last)
        try:
            state = RunState(**info["state"])
            recipe, threads = info["recipe"], info["threads"]
            optimizer = checkpoint.unflatten(info["optimizer"], tensors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"cannot read the checkpoint {self.last}: it was not written by karui; train again without it"
            ) from error
        difference = first_difference(_with_new_settings(recipe, self.recipe), self.recipe)
        if difference is not None:
            raise UserError(
                f"cannot resume with another recipe: {difference}; "
                "give the old value, or train into a new folder"
            )
        model = checkpoint.below_prefix("model", tensors)
        checkpoint.check_matches(model, trained.model.state_dict(), self.last)
        trained.model.load_state_dict(model)
        trained.optimizer.load_state_dict(optimizer)
        _lay_out_like_weights(trained.optimizer)
        if trained.average is not None:
            sums = checkpoint.below_prefix("average", tensors)
            checkpoint.check_matches(sums, trained.average.sums, self.last)
            rows = checkpoint.below_prefix("average_rows", tensors)
            trained.average.load(sums, info["average_updates"], rows)
        if trained.scaler is not None:
            trained.scaler.load_state_dict(info["scaler"])
        if isinstance(trained.task, CarriesState):
            trained.task.load_training_state(checkpoint.below_prefix("task", tensors))
        self._settle_best(state)
        checkpoint.set_random_state(checkpoint.below_prefix("random", tensors))
        return state, threads

    def tidy(self) -> None:
        """Remove half-written files that a killed run left in the folder."""
        for path in self.folder.glob(".tmp-*"):
            path.unlink(missing_ok=True)

    def _settle_best(self, state: RunState) -> None:
        if not self._next_best.exists():
            return
        metrics = checkpoint.read_file(self._next_best)[1]["metrics"]
        if metrics == state.best:
            self._next_best.replace(self.best)
        else:
            self._next_best.unlink()


def _lay_out_like_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give what was loaded the strides of its weight: a fused step takes both as they lie in memory.

    A file holds numbers row by row, a convolution's weight may lie in the order of channels last.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if (
                isinstance(value, torch.Tensor)
                and value.shape == weight.shape
                and value.stride() != weight.stride()
            ):
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
