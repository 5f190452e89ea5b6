"""What the training loop can be told. Plain values: importing this file imports neither torch nor Fabric."""

from dataclasses import dataclass
from typing import Literal

OptimizerName = Literal["adam", "adamw", "sgd"]
ScheduleName = Literal["constant", "linear", "cosine", "step"]
MonitorName = Literal["accuracy", "nll", "mse", "perplexity", "bpc"]
KeepName = Literal["best", "last"]
PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of one training run.

    The defaults are what worked for sparse text classifiers on two CPU cores: Adam at 4e-3, constant for the
    first half and falling linearly to zero over the second, the penalty ramped over the first 45 %.
    """

    max_epochs: int = 10
    """Passes over the training examples."""

    lr: float = 4e-3
    """Learning rate before the schedule; a parameter group of the task may bring its own."""

    optimizer: OptimizerName = "adam"
    """"adam", "adamw" with decoupled weight decay, or "sgd"; a parameter group may name its own rule."""

    momentum: float = 0.0
    """Nesterov's momentum of "sgd"; 0 = plain gradient descent."""

    sparse_lr: float = 0.1
    """Learning rate of row-wise Adagrad, which tables with sparse gradients follow; the schedule holds for it too."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's two moving averages."""

    weight_decay: float = 0.0
    """Weight decay of the optimizer."""

    warmup_fraction: float = 0.0
    """Share of all steps over which the learning rate rises linearly; ignored where warmup_steps is set."""

    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly; 0 leaves it to warmup_fraction."""

    schedule: ScheduleName = "linear"
    """After the warm-up: "constant", "linear" or "cosine" fall to zero from decay_start on, or "step"."""

    decay_start: float = 0.5
    """Share of all steps after which "linear" and "cosine" begin to fall."""

    step_factor: float = 0.1
    """What "step" multiplies the learning rate by at each milestone."""

    milestones: tuple[int, ...] = ()
    """Epochs, counted from 0, at whose start "step" multiplies the learning rate by step_factor."""

    grad_clip_norm: float = 0.0
    """Largest global norm of the gradient, applied between backward and the optimizer's step; 0 = none."""

    patience: int = 0
    """Evaluations without a better monitored value after which training stops; 0 = never."""

    monitor: MonitorName = "accuracy"
    """The validation metric that picks the best epoch: "accuracy" (higher), the others lower."""

    keep: KeepName = "best"
    """Which weights the run returns. A run with a penalty looks for the best after the ramp only."""

    weight_averaging: float = 0.0
    """Decay of the exponential average of the weights used at evaluation; 0 = off."""

    average_from: float = 0.0
    """Share of all steps after which the plain mean of the weights is used at evaluation (Polyak); 0 = off."""

    penalty_weight: float = 1.0
    """Factor on the task's penalty, which the loop divides by the number of examples."""

    penalty_ramp: float = 0.45
    """Share of all steps over which penalty_weight rises linearly from 0; then it is held."""

    evaluate_every: int = 1
    """Epochs between evaluations on the validation split; the last epoch is always evaluated."""

    log_every: int = 50
    """Steps between two training lines in metrics.jsonl; one more is written at the end of each epoch."""

    checkpoint_every_s: float = 20.0
    """Seconds between checkpoints; they change nothing but how much a killed run loses."""

    precision: PrecisionName = "32-true"
    """"32-true", or mixed precision where the device has it."""

    accelerator: str = "cpu"
    """Device kind, as Lightning Fabric names it: "cpu", "cuda", "mps" or "auto"."""

    devices: int = 1
    """Number of devices; one is what the loop supports."""

    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice (OMP_NUM_THREADS). Equal bits need equal numbers of threads."""

    seed: int = 0
    """Seed of everything random in the run."""

    def __post_init__(self) -> None:
        for name in ("max_epochs", "evaluate_every", "log_every"):
            _check(name, getattr(self, name), ">= 1", getattr(self, name) >= 1)
        _check("lr", self.lr, "> 0 and finite", 0 < self.lr < float("inf"))
        _check("sparse_lr", self.sparse_lr, "> 0 and finite", 0 < self.sparse_lr < float("inf"))
        _check("betas", self.betas, "two numbers in [0, 1)", all(0 <= beta < 1 for beta in self.betas))
        _check("momentum", self.momentum, "in [0, 1)", 0 <= self.momentum < 1)
        _check(
            "momentum",
            self.momentum,
            "0 unless optimizer is sgd",
            not self.momentum or self.optimizer == "sgd",
        )
        for name in ("warmup_fraction", "decay_start", "penalty_ramp"):
            _check(name, getattr(self, name), "in [0, 1]", 0 <= getattr(self, name) <= 1)
        for name in ("weight_decay", "warmup_steps", "step_factor", "grad_clip_norm", "patience"):
            _check(name, getattr(self, name), ">= 0", getattr(self, name) >= 0)
        for name in ("penalty_weight", "checkpoint_every_s", "threads"):
            _check(name, getattr(self, name), ">= 0", getattr(self, name) >= 0)
        _check("weight_averaging", self.weight_averaging, "in [0, 1)", 0 <= self.weight_averaging < 1)
        _check("average_from", self.average_from, "in [0, 1)", 0 <= self.average_from < 1)
        both = self.average_from > 0 and self.weight_averaging > 0
        _check("average_from", self.average_from, "0 with weight_averaging: one average", not both)
        _check("devices", self.devices, "1: the loop does not yet split a run", self.devices == 1)
        _check("seed", self.seed, "in [0, 2**63)", 0 <= self.seed < 2**63)


def _check(name: str, value: object, expectation: str, is_met: bool) -> None:
    if not is_met:
        raise ValueError(f"{name} must be {expectation}, got {value!r}")
