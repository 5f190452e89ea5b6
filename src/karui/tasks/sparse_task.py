"""What a task has to do where its model is sparse, the same for every task."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from karui.errors import UserError
from karui.sparse import (
    HardConcrete,
    MagnitudePruning,
    SparseVariationalDropout,
    anneal,
    density,
    gate_parameters,
    penalty,
    sparsify,
)
from karui.sparse.control import Control
from karui.tasks.settings import SparseSettings
from karui.tasks.sparse_details import sparse_details

GATE_RATE = {"l0": 20.0, "vd": 1.0, "magnitude": 1.0}
"""Learning rate of gates over that of weights, where none is set: log alpha has to travel 5 from open to closed."""

CONTROL = "control."


def make_sparse(
    model: nn.Module, settings: SparseSettings, *, exclude: Sequence[str] = (), scope: str = "global"
) -> nn.Module:
    """The model with its layers replaced as the settings say, in place; as it is where the method is "none".

    exclude: names of submodules to leave dense. scope: what "auto" means to magnitude pruning here.
    Raises UserError where a layer or group is not offered.
    """
    if settings.method == "none":
        return model
    method = sparse_method(settings, scope=scope)
    try:
        return sparsify(model, method, exclude=tuple(exclude))
    except ValueError as error:
        raise UserError(f"sparse: {error}") from error


def sparse_method(settings: SparseSettings, *, scope: str = "global") -> Any:
    """The method of the settings, as `sparsify` takes it; they must name one."""
    own: dict[str, Any] = {} if settings.groups is None else {"groups": settings.groups}
    if settings.method == "vd":
        noise = {"threshold": settings.threshold, "log_sigma_init": settings.log_sigma_init}
        return SparseVariationalDropout(**noise, **own)
    if settings.method == "l0":
        return HardConcrete(
            drop_rate=settings.drop_rate,
            lambda_=settings.l0_lambdas or settings.l0_lambda,
            beta_end=settings.beta_end,
            **own,
        )
    chosen = scope if settings.scope == "auto" else settings.scope
    return MagnitudePruning(regrow=settings.regrow, scope=chosen, **own)


class SparseTask:
    """Base of tasks whose model may be sparse (`make_sparse`) and held to a target.

    The constructor of a task sets `model`, `num_examples` and `sparse`. Part of `karui.train.Task`, all of
    `karui.train.protocol.Constrained`, and for a held model `CarriesState`.
    """

    model: nn.Module
    num_examples: int
    sparse = SparseSettings()
    control: Control | None = None
    measure: Callable[[nn.Module], float] | None = None

    def hold(self, measure: Callable[[nn.Module], float] | None = None) -> None:
        """Hold the model to the target of the settings from now on, where there is one.

        measure: bytes of the file, for a target of size, or FLOPs of the deployed model. Raises UserError where the
        model cannot come so low.
        """
        settings = self.sparse
        if settings.target is not None:
            self.control = Control(
                self.model,
                settings.target,
                method=settings.method,
                measure=measure,
                num_examples=self.num_examples,
                begin=settings.prune_from,
                end=settings.prune_until,
                settle=settings.settle_from,
            )

    def penalty(self) -> Tensor | None:
        """What the method adds to the loss (nats, summed); None without one, and where a target decides instead."""
        is_free = self.sparse.method in ("vd", "l0") and self.sparse.target is None
        return penalty(self.model) if is_free else None

    def before_step(self, progress: float) -> None:
        """See `karui.train.protocol.Constrained`."""
        if self.control is not None:
            self.control.before_step(progress)

    def constraint(self, progress: float) -> Tensor | None:
        """See `karui.train.protocol.Constrained`. Lowers the temperature of gates, too, where that is asked for."""
        if self.sparse.beta_end is not None:
            anneal(self.model, progress)
        return None if self.control is None else self.control.constraint(progress)

    def deployed(self) -> AbstractContextManager[None]:
        """See `karui.train.protocol.Constrained`."""
        return nullcontext() if self.control is None else self.control.deployed()

    def status(self) -> dict[str, float]:
        """Density of a sparse model, and how it stands to its target."""
        if self.sparse.method == "none":
            return {}
        return {"density": density(self.model)} if self.control is None else self.control.status()

    def sparsity(self) -> dict[str, Any]:
        """See `karui.train.protocol.Described`."""
        return {} if self.sparse.method == "none" else sparse_details(self.model, self.sparse.method)

    def gate_group(self, settings: Any) -> list[dict[str, Any]]:
        """The parameter group of the gates: a learning rate of their own and no weight decay; empty without gates."""
        if self.sparse.method == "none":
            return []
        gates = list(gate_parameters(self.model))
        return [{"params": gates, "lr": self._gate_lr(settings), "weight_decay": 0.0}] if gates else []

    def _gate_lr(self, settings: Any) -> float:
        return self.sparse.gate_lr or GATE_RATE[self.sparse.method] * settings.lr

    def gate_remedy(self, settings: Any) -> str:
        """See `karui.train.protocol.Gated`."""
        if self.sparse.method not in ("l0", "vd"):
            return ""
        return f"--set sparse.gate_lr={self._gate_lr(settings) / 4:g}"

    def parameter_groups(self, settings: Any) -> list[dict[str, Any]]:
        """All parameters at one learning rate, gates at their own."""
        own = self.gate_group(settings)
        taken = {id(parameter) for group in own for parameter in group["params"]}
        rest = [p for p in self.model.parameters() if id(p) not in taken and p.requires_grad]
        return [{"params": rest}, *own]

    def training_state(self) -> dict[str, Tensor]:
        """What the target's control carries from step to step."""
        if self.control is None:
            return {}
        return {f"{CONTROL}{name}": tensor for name, tensor in self.control.state().items()}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `training_state` returned."""
        if self.control is not None:
            own = {
                name.removeprefix(CONTROL): part for name, part in state.items() if name.startswith(CONTROL)
            }
            self.control.load_state(own)
