"""What the loop needs to know about a task, and nothing else."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

if TYPE_CHECKING:
    from karui.train.settings import TrainSettings


@runtime_checkable
class Task(Protocol):
    """Data, model and metric of one job.

    Resuming is exact because `batch` is a pure function of (seed, epoch, step) and because everything random
    in `loss` and `penalty` comes from torch's global generator, whose state the loop saves.
    """

    model: nn.Module
    """The model; the loop moves it to the device and switches train and eval mode."""

    num_examples: int
    """Training examples: documents, or tokens in language modelling. The penalty is divided by it."""

    def steps_per_epoch(self, epoch: int) -> int:
        """Return the number of batches of an epoch, counted from 0."""
        ...

    def batch(self, epoch: int, step: int) -> Any:
        """Return the batch of a step: tensors, or a tuple, list, dict or dataclass of tensors, on the CPU."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """Return the mean loss of the batch as a scalar, in train mode, without the penalty."""
        ...

    def penalty(self) -> Tensor | None:
        """Return the penalty summed over the weights (nats), or None where the model has none."""
        ...

    def evaluate(self, split: str) -> dict[str, float]:
        """Return metrics ("accuracy", "nll", ...) of "valid" or "test"; called in eval mode, without grad."""
        ...

    def status(self) -> dict[str, float]:
        """Return figures of the model for the log, such as density and words_kept; may be empty."""
        ...

    def parameter_groups(self, settings: "TrainSettings") -> list[dict[str, Any]]:
        """Return parameter groups as torch.optim takes them; a group may bring its own lr or weight_decay."""
        ...


@runtime_checkable
class CarriesState(Protocol):
    """A task that carries something from step to step: the hidden state of a language model over its stream.

    The loop keeps it in the checkpoint, so that a killed run goes on with it to the bit.
    """

    def training_state(self) -> dict[str, Tensor]:
        """Return what the next step needs besides the model, by name; empty where there is nothing yet."""
        ...

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `training_state` returned; the tensors are on the CPU and belong to the task."""
        ...


@runtime_checkable
class Constrained(Protocol):
    """A task whose model must come to something: a density, a size. What it carries is part of `CarriesState`."""

    def before_step(self, progress: float) -> None:
        """Make the model ready for the step at `progress`, its share of the run in [0, 1): called before `loss`."""
        ...

    def constraint(self, progress: float) -> Tensor | None:
        """Return what the step at `progress`, its share of the run in [0, 1), adds to the loss, unscaled, or None.

        Called once a step, in order, between `loss` and the step of the optimizer.
        """
        ...

    def deployed(self) -> AbstractContextManager[None]:
        """Return a context in which the model is what would be delivered; it is evaluated and kept in there alone.

        Afterwards the model is as before, to the bit.
        """
        ...


@runtime_checkable
class Gated(Protocol):
    """A task some of whose parameters, gates, learn at a rate of their own."""

    def gate_remedy(self, settings: "TrainSettings") -> str:
        """Return the option that lowers this rate, to be told where a run diverges; empty without gates."""
        ...


@runtime_checkable
class Described(Protocol):
    """A task whose model is worth more lines in the log than a few figures."""

    def sparsity(self) -> dict[str, Any]:
        """Return what the log keeps of the deployed model at an evaluation, as JSON; empty where there is nothing."""
        ...


class SavesArtifacts(Protocol):
    """A task that keeps files of its own (vocabulary, labels) in the run folder."""

    def save_artifacts(self, run_dir: Path) -> None:
        """Write what rebuilding the task needs besides the recipe."""
        ...
