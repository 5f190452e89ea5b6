"""Training towards a stated density, number of weights, file size or number of FLOPs.

While the model trains, a constraint holds its expected density near a path that falls from one to the target. What is
evaluated and kept is projected: exactly as many weights as the target allows, those with the highest scores.

s expected density: expected kept weights / weights that can be pruned, or for a target of FLOPs the expected FLOPs over
the dense ones; t the path; r progress of the run in [0, 1].
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from karui.errors import UserError
from karui.sparse.fitting import largest_fitting
from karui.sparse.flops import FlopCount
from karui.sparse.gate import Cut
from karui.sparse.measures import (
    density,
    expected_density,
    harden,
    penalty,
    prunable_parameters,
    sparse_layers,
)
from karui.sparse.projection import Projection, project, release
from karui.targets import Target, parse_size

__all__ = ["Control", "Lagrangian", "Measure", "Target", "parse_size"]

Measure = Callable[[nn.Module], float]
"""What a target of size or FLOPs is compared with: bytes of the file, or FLOPs, of the model as it is deployed."""

MEASURED = ("size", "flops")
GUESS = 0.05  # of the weights are kept: where the search for a size begins

KL_SHARE = 0.1
"""Weight of the KL / N of sparse variational dropout under a target. The smooth count has no gradient far from the
threshold, so something must bring weights there; the whole evidence bound would rather decide the density itself.
LeNet-300-100 on 12,000 digits, 8 epochs, 5 % asked: KL weight 0.1 and this Lagrangian 7.0 % errors, whole KL and the
Lagrangian 10.6 %, a KL weight that follows the density and nothing else 10.6 %; without KL 8.2 % are kept, not 5 %."""

RENEWALS = 200
"""Times in a run that the masks of magnitude pruning are drawn anew."""


class Lagrangian:
    """l (s / t - 1) + q (s / t - 1)^2, l by gradient ascent, and back to zero as soon as s <= t (dual restart).

    Wang, Wohlwend, Lei 2020 (1910.04732), section 4; the restart is that of Gallego-Posada et al. 2022 (2208.04425),
    section 4.2. The constraint is relative, so that one `rate` (of l, in nats a run) suits 50 % and 1 %; without the
    restart l would still push when the density has arrived. The square pulls from both sides: with q = `quadratic`
    from above, and ten times that from below, where opening gates harms nothing and l is zero.
    """

    def __init__(self, *, rate: float = 50.0, quadratic: float = 1.0) -> None:
        self.rate, self.quadratic = rate, quadratic
        self.multiplier = torch.zeros((), dtype=torch.float64)

    def term(self, share: Tensor, path: float, passed: float) -> Tensor:
        """Nats to add to the loss where s is `share` and t `path`, after a share `passed` of the run since the last."""
        excess = share / path - 1.0
        l1 = self.multiplier.to(device=excess.device)
        above = excess.detach().double()
        pull = torch.where(above > 0, self.quadratic, 10.0 * self.quadratic).to(excess.dtype)
        found = l1.to(excess.dtype) * excess + pull * excess.square()
        risen = l1 + self.rate * passed * above.clamp(max=1.0)
        self.multiplier = torch.where(above > 0, risen, torch.zeros_like(risen))
        return found


class Control:
    """Holds a sparse model to a target.

    model: what `sparsify` returned. method: "l0" and "vd" are held by a Lagrangian term of the loss, "vd" beside
    `KL_SHARE` of its KL / num_examples, ramped up to `end`; "magnitude" by a schedule (Zhu and Gupta 2017, 1710.01878,
    equation 1: the density falls by a cubic from 1 at the share `begin` of the run to the target at `end`), which is
    the path of the others too. measure: bytes or FLOPs of the model as it is deployed, for these targets; where that is
    a `FlopCount`, the Lagrangian holds the expected FLOPs, and embeddings, which cost none, are not pruned for it.
    rate: of the multiplier, in nats a run. settle: the share of the run from which "l0" and "vd" train on what is left
    then, without gates and noise (`SparseLayer.settle`); 1: never. The masks of "magnitude" are at rest by themselves.

    Raises UserError where the model cannot come so low, saying what is reachable, ValueError on arguments out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        target: Target,
        *,
        method: str,
        measure: Measure | None = None,
        num_examples: int = 1,
        begin: float = 0.0,
        end: float = 0.6,
        rate: float = 50.0,
        settle: float = 1.0,
    ) -> None:
        if method not in ("l0", "vd", "magnitude"):
            raise ValueError(f"method must be l0, vd or magnitude, got {method!r}")
        if not 0 <= begin < end <= 1:
            raise ValueError(f"begin and end must be 0 <= begin < end <= 1, got {begin} and {end}")
        if not end <= settle <= 1:
            raise ValueError(f"settle must be in [end = {end}, 1], got {settle}")
        if measure is None and target.kind in MEASURED:
            raise ValueError(f"a target of {target.kind} needs measure=, a function of the model")
        self.model, self.target, self.measure = model, target, measure
        self.begin, self.end = begin, end
        self.settle = settle if method != "magnitude" else 1.0
        self.is_settled = False
        self.kl_share = KL_SHARE / num_examples if method == "vd" else 0.0
        self.term = None if method == "magnitude" else Lagrangian(rate=rate)
        self.flops = measure if isinstance(measure, FlopCount) and target.kind == "flops" else None
        self.leave = frozenset() if self.flops is None else self.flops.free_layers(model)
        self.prunable = sum(
            prunable_parameters(layer) for name, layer in sparse_layers(model) if name not in self.leave
        )
        self.reached = math.nan  # bytes or FLOPs of the last projection
        self.keep = self._first_keep()
        self._progress, self._renewed = 0.0, -1.0

    # In training.

    def before_step(self, progress: float) -> None:
        """Settle the model when it is time: before the loss of the step at `progress`, whose draws must stay."""
        if self.settle < 1.0 and progress >= self.settle and not self.is_settled:
            self.project()
            for _, layer in sparse_layers(self.model):
                layer.settle()
            self.is_settled = True

    def constraint(self, progress: float) -> Tensor | None:
        """Nats to add to the loss of the step at `progress` (share of the run, in [0, 1]); None for magnitude pruning,
        and once the model is settled.

        It must be called once a step, in order: the multiplier moves, or masks are drawn anew.
        """
        passed, self._progress = progress - self._progress, progress
        if self.is_settled:
            return None
        if self.term is not None:
            found = self.term.term(self._share(), self.path(progress), passed)
            ramp = min(progress / self.end, 1.0)
            return found + penalty(self.model) * (self.kl_share * ramp) if self.kl_share else found
        if math.floor(progress * RENEWALS) > math.floor(self._renewed * RENEWALS):
            self._renewed = progress
            project(self.model, keep=round(self.path(progress) * self.prunable), leave=self.leave)
        return None

    def _share(self) -> Tensor:
        """What the Lagrangian holds."""
        if self.flops is None:
            return expected_density(self.model)
        return self.flops.expected(self.model) / self.flops.dense

    def path(self, progress: float) -> float:
        """The density (share of FLOPs) wanted at a share of the run."""
        goal = max(self.keep, 1) / self.prunable
        if self.flops is not None and self.term is not None:
            goal = min(self.target.value / self.flops.dense, 1.0)
        left = 1.0 - min(max((progress - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return goal + (1.0 - goal) * left**3

    # What is delivered.

    def project(self) -> int:
        """Prune exactly to the final target, by the scores as they are now; returns the number of weights kept."""
        projection = Projection(self.model, leave=self.leave)
        if self.measure is None or self.target.kind not in MEASURED:
            return projection.keep(self.keep)
        self.keep = max(self._fitting(projection, self.keep), 0)
        return self.keep if self._is_by_units(projection) else projection.keep(self.keep)

    def _is_by_units(self, projection: Projection) -> bool:
        """Whether units are opened by what they cost, not by their weights: few weights of a convolution cost much."""
        return self.flops is not None and not projection.single

    @contextlib.contextmanager
    def deployed(self) -> Iterator[None]:
        """The model projected to its target inside the block; then its masks are those of training again."""
        gates = [module for module in self.model.modules() if isinstance(module, Cut)]
        before = [[buffer.clone() for buffer in gate.buffers()] for gate in gates]
        try:
            self.project()
            yield
        finally:
            for gate, buffers in zip(gates, before, strict=True):
                for buffer, value in zip(gate.buffers(), buffers, strict=True):
                    buffer.copy_(value)

    def _fitting(self, projection: Projection, guess: int) -> int:
        measure, model = self.measure, self.model
        assert measure is not None

        if self._is_by_units(projection):
            found = projection.keep_where(lambda: measure(model) <= self.target.value)
            self.reached = measure(model)
            return found
        costs: dict[int, float] = {}

        def cost(count: int) -> float:
            projection.keep(count)
            costs[count] = measure(model)
            return costs[count]

        found = largest_fitting(cost, self.target.value, most=self.prunable, guess=guess)
        self.reached = costs.get(found, math.nan)
        return found

    def _first_keep(self) -> int:
        """Weights to keep as things are before training; raises UserError where the target is out of reach."""
        kind, value = self.target.kind, self.target.value
        if kind == "density":
            return max(1, int(value * self.prunable + 1e-9))
        if kind == "params":
            stored = sum(p.numel() for p in harden(self.model).parameters()) - self.prunable
            if value <= stored:
                raise UserError(
                    f"a target of {int(value):,} params cannot be met: {stored:,} numbers (biases, norms, dense "
                    f"layers) are never pruned; ask for more"
                )
            return min(int(value) - stored, self.prunable)
        try:
            projection = Projection(self.model, leave=self.leave)
            found = self._fitting(projection, int(self.prunable * GUESS))
            if found < 0:
                if not self._is_by_units(projection):
                    projection.keep(0)
                least = self.measure(self.model) if self.measure is not None else 0
                unit = "bytes" if kind == "size" else "FLOPs"
                raise UserError(
                    f"a target of {int(value):,} {unit} cannot be met: with everything pruned that can be, this "
                    f"model comes to {int(least):,}; ask for more, or train a smaller one"
                )
        finally:
            release(self.model)
        return found

    @torch.no_grad()
    def status(self) -> dict[str, float]:
        """Figures for the log: density and expected density, the density that the target comes to, the multiplier."""
        found = {"density": density(self.model), "target_density": self.keep / self.prunable}
        if self.target.kind in MEASURED:
            found[self.target.kind] = float(self.reached)
        if self.term is not None:
            found["expected_density"] = float(expected_density(self.model))
            found["multiplier"] = float(self.term.multiplier)
            if self.flops is not None:
                found["expected_flops"] = float(self.flops.expected(self.model))
        return found

    # For exact resumption.

    def state(self) -> dict[str, Tensor]:
        """What the next step needs besides the model, by name."""
        numbers = [self._progress, self._renewed, float(self.keep), float(self.is_settled)]
        found = {"numbers": torch.tensor(numbers, dtype=torch.float64)}
        return found if self.term is None else {**found, "multiplier": self.term.multiplier}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned; the model has its own state by then."""
        self._progress, self._renewed, keep, is_settled = [*state["numbers"].tolist(), 0.0][:4]
        self.keep = int(keep)
        self.is_settled = bool(is_settled)
        for _, layer in sparse_layers(self.model) if self.is_settled else ():
            layer.hold()
        if self.term is not None:
            self.term.multiplier = state["multiplier"]
