"""L0 regularisation with the hard concrete gate: differentiable, yet exactly 0 or 1 with positive probability.

Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018, equations 10 to 13:

    u ~ U(0, 1);  s = sigmoid((log u - log(1 - u) + la) / beta);  z = clip(s (zeta - gamma) + gamma, 0, 1)
    P(z > 0) = sigmoid(la - beta log(-gamma / zeta))
    test time: z = clip(sigmoid(la) (zeta - gamma) + gamma, 0, 1), without noise and without beta

The test gate is zero where la <= log(-gamma / zeta), -2.398 for the defaults, while P(z > 0) is still 0.31 there: a
projection (`karui.sparse.project`) makes the deployed count what the training asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from karui.ops import hard_concrete as op
from karui.sparse.division import Axis, Blocks, Division, Elements
from karui.sparse.gate import Gate
from karui.sparse.groups import check_groups
from karui.sparse.remembered import Remembered, versions
from karui.sparse.weight import SharedGate, SparseWeight

LOW, HIGH = -10.0, math.log(100.0)
"""Bounds of log alpha. The published lower one, log 0.01, keeps P(z > 0) above 4.7 %: no target below that could be
reached; at -10 it is 0.02 %. The upper one is the published."""


@dataclass(frozen=True)
class HardConcrete:
    """How to make weights sparse by L0: pass it to `sparsify`."""

    groups: tuple[str, ...] = ("weight",)
    """What has gates, by the names of `karui.sparse.GROUPS`; layers without any of them stay dense."""
    drop_rate: float | Mapping[str, float] = 0.2
    """Rate d in (0, 1) that gates start from, log alpha ~ N(log(1 - d) - log d, 0.01); a mapping names every layer."""
    rescale: bool = False
    """Multiply weights by 1 / (1 - d) at the start for each kind of gate on them, as the published wide ResNet does."""
    lambda_: float | Mapping[str, float] = 1.0
    """Price of a kept weight in `penalty`, in nats once that is divided by the number of examples; or one a layer."""
    weight_decay: float = 0.0
    """Precision p of the L2 term: p / 2 w^2 times the open probability; gates get no gradient of it."""
    beta: float = 2.0 / 3.0
    """Temperature."""
    beta_end: float | None = None
    """Temperature at the end of an annealing (`karui.sparse.anneal`), None: constant."""
    gamma: float = -0.1
    zeta: float = 1.1
    """Ends of the stretched interval."""

    name = "l0"

    def __post_init__(self) -> None:
        check_groups(self.groups)
        if not self.groups:
            raise ValueError("groups must name at least one group: without gates nothing can be pruned")
        rates = self.drop_rate.values() if isinstance(self.drop_rate, Mapping) else [self.drop_rate]
        if not all(0.0 < rate < 1.0 for rate in rates):
            raise ValueError(f"drop_rate must be in (0, 1), got {self.drop_rate}")
        if not (self.gamma < 0.0 and self.zeta > 1.0):
            raise ValueError(f"gamma must be below 0 and zeta above 1, got {self.gamma} and {self.zeta}")
        for name in ("beta", "beta_end"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} must be above 0, got {value}")

    def gate(self, *divisions: Division, layer: str = "") -> Gate:
        """One hard concrete gate a unit."""
        return HardConcreteGate(
            *divisions, method=self, drop_rate=of_layer("drop_rate", self.drop_rate, layer)
        )

    def weight(
        self,
        weight: Tensor,
        divisions: Mapping[str, Division] | None = None,
        shared: tuple[SharedGate, ...] = (),
        *,
        zero_row: int | None = None,
        layer: str = "",
    ) -> "HardConcreteWeight":
        """State for one weight whose elements fall into the given divisions, by the names of their places."""
        gates = {place: self.gate(division, layer=layer) for place, division in (divisions or {}).items()}
        if self.rescale:
            kinds = len(gates) + sum(use.scales for use in shared)
            with torch.no_grad():
                weight.mul_((1.0 - of_layer("drop_rate", self.drop_rate, layer)) ** -kinds)
        return HardConcreteWeight(self, weight.shape, gates, shared, zero_row=zero_row, layer=layer)


def of_layer(name: str, value: float | Mapping[str, float], layer: str) -> float:
    """The number of one layer; raises ValueError where a mapping does not name it."""
    if not isinstance(value, Mapping):
        return value
    if layer not in value:
        raise ValueError(f"{name} names {sorted(value)}, but not the sparse layer {layer!r}")
    return value[layer]


class HardConcreteGate(Gate):
    """Hard concrete gates, one draw a mini-batch, shared by its time steps and sequences."""

    def __init__(self, *divisions: Division, method: HardConcrete, drop_rate: float) -> None:
        super().__init__(*divisions)
        self.beta, self.beta_start, self.beta_end = method.beta, method.beta, method.beta_end
        self.gamma, self.zeta = method.gamma, method.zeta
        start = math.log(1.0 - drop_rate) - math.log(drop_rate)
        self.log_alpha = nn.Parameter(start + 0.01 * torch.randn(self.units))
        self._counted: Remembered | None = None
        self._drawing: tuple[Any, Any] | None = None  # of `linear`, and what it was made for

    def anneal(self, progress: float) -> None:
        """Set the temperature: geometric from `beta` to `beta_end` while progress goes from 0 to 1."""
        if self.beta_end is not None:
            share = min(max(progress, 0.0), 1.0)
            self.beta = self.beta_start ** (1.0 - share) * self.beta_end**share

    @property
    def law(self) -> op.Law:
        """The constants as they are now."""
        return op.Law(self.beta, self.gamma, self.zeta, LOW, HIGH)

    def sample(self, rows: Tensor | None = None, *, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw gates; those that `rows` do not meet are independent, so they need not be drawn."""
        if rows is None and not shape and op.runs_compiled(self.log_alpha):
            return self._draw(None, None)
        log_alpha = self.divisions[0].take(self._bounded(), rows)
        return op.draw(log_alpha.expand(*shape, *log_alpha.shape).contiguous(), self.law)

    def scale(self, weight: Tensor, division: Division, rows: Tensor | None = None) -> Tensor:
        """A weight, or its given rows, times gates: drawn and multiplied at once where each has an element or block."""
        block = _block(division)
        if not isinstance(division, Elements | Blocks):
            return super().scale(weight, division, rows)
        if rows is None and op.runs_compiled(self.log_alpha, weight):
            return self._draw(weight, block)
        return op.draw(division.take(self._bounded(), rows), self.law, weight=weight, block=block)

    def _draw(self, weight: Tensor | None, block: tuple[int, int] | None) -> Tensor:
        """Draw all gates, and remember the count that comes with them for the penalty of the same step."""
        division = self.divisions[0]
        found = op.draw_with_count(
            self.log_alpha, self.law, weight=weight, block=block, sizes=division.sizes(self.log_alpha.device)
        )
        return self._remember(found, self.log_alpha)

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:  # noqa: A002
        """As the base class: one node of the graph, for units that are elements, columns or blocks."""
        log_alpha: Any = self._parameters["log_alpha"]
        about = (self.beta, log_alpha.dtype, log_alpha.device)
        if self._drawing is None or self._drawing[0] != about:
            self._drawing = about, self._put_together(weight)
        draw = self._drawing[1]
        found = None if draw is None else draw(input, weight, bias, log_alpha)
        return None if found is None else self._remember(found, log_alpha)

    def _put_together(self, weight: Tensor) -> Any:
        """What `linear` draws at each step; None for units that it has no short way for."""
        division = self.divisions[0]
        block = _block(division)
        if isinstance(division, Axis) and division.dim == 1:
            block = (max(1, len(weight)), 1)
        elif not isinstance(division, Elements | Blocks):
            return None
        sizes = division.sizes(self.log_alpha.device)
        return op.drawn_linear(self.log_alpha, self.law, block=block, sizes=sizes)

    def _remember(self, found: op.Counted, log_alpha: Tensor) -> Tensor:
        drawn, count, state = found
        counted = Remembered(count, state, (self.divisions[0], self.beta), versions(log_alpha))
        object.__setattr__(self, "_counted", counted)  # a module's own takes ten times as long
        return drawn

    def _bounded(self) -> Tensor:
        """Log alpha within its bounds: as published, after each step; no gate is ever stuck beyond a bound."""
        with torch.no_grad():
            self.log_alpha.clamp_(LOW, HIGH)
        return self.log_alpha

    def expected_elements(self, division: Division) -> Tensor | None:
        """That of the last draw, where nothing has changed since; or computed."""
        log_alpha: Any = self._parameters["log_alpha"]
        last = self._counted
        if last is not None and last.fits((division, self.beta), log_alpha):
            return last.value
        if not op.runs_compiled(log_alpha):
            return None
        return op.count_open(log_alpha, self.law, division.sizes(log_alpha.device))

    def deployed(self, rows: Tensor | None = None) -> Tensor:
        """The test gate; where a projection keeps a unit whose test gate is zero, the mean of its gate."""
        log_alpha = self.divisions[0].take(self.log_alpha, rows).clamp(LOW, HIGH)
        gate = (torch.sigmoid(log_alpha) * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)
        if math.isnan(self.cutoff):
            return gate
        kept = self.keep_mask(rows)
        closed = kept & (gate == 0.0)
        gate = torch.where(kept, gate, torch.zeros_like(gate))
        if closed.any():
            gate = gate.index_put((closed,), self.mean(log_alpha[closed]))
        return gate

    def mean(self, log_alpha: Tensor) -> Tensor:
        """E[z] = integral of P(z > t) for t in (0, 1), by 16 nodes of Gauss and Legendre.

        At the temperature that training ends with, whatever it is now: a model read from its file answers the same.
        """
        nodes, weights = _legendre(log_alpha)
        shift = (self.beta_end or self.beta_start) * torch.log((nodes - self.gamma) / (self.zeta - nodes))
        return (torch.sigmoid(log_alpha[..., None] - shift) * weights).sum(-1)

    def score(self, *weights: Tensor) -> Tensor:  # noqa: ARG002
        """Log alpha, within its bounds."""
        return self.log_alpha.clamp(LOW, HIGH)

    def keep_mask(self, rows: Tensor | None = None) -> Tensor:
        """True where the test gate is not zero, or where a projection says so."""
        score = self.divisions[0].take(self.score(), rows)
        own = torch.sigmoid(score) * (self.zeta - self.gamma) + self.gamma > 0.0
        return self.select(score, own, self.divisions[0], rows)

    @torch.no_grad()
    def settle(self, kept: Tensor) -> None:
        """As the base class."""
        self.log_alpha[~kept] = LOW

    def open_probability(self) -> Tensor:
        """P(z > 0) of a gate in training (equation 12)."""
        return torch.sigmoid(self.log_alpha - self.beta * math.log(-self.gamma / self.zeta))


def _block(division: Division) -> tuple[int, int] | None:
    return (division.height, division.width) if isinstance(division, Blocks) else None


class HardConcreteWeight(SparseWeight):
    """A weight times its gates."""

    def __init__(
        self,
        method: HardConcrete,
        shape: torch.Size,
        gates: Mapping[str, Gate],
        shared: tuple[SharedGate, ...],
        *,
        zero_row: int | None,
        layer: str,
    ) -> None:
        super().__init__(shape, gates, shared, zero_row=zero_row)
        self.lambda_ = of_layer("lambda_", method.lambda_, layer)
        self.weight_decay = method.weight_decay

    def penalty(self, weight: Tensor) -> Tensor:
        """Lambda times the expected number of kept weights, plus the L2 term."""
        total = self.expected_kept(weight)
        if self.lambda_ != 1.0:
            total = self.lambda_ * total
        if not self.weight_decay:
            return total
        squares = weight * weight
        for probability, division in self.open_probabilities(weight):
            squares = squares * division.spread(probability.detach())
        return total + 0.5 * self.weight_decay * squares.sum()


def _legendre(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights (16,) of Gauss and Legendre's rule on (0, 1)."""
    off = torch.arange(1, 16, dtype=torch.float64)
    off = off / torch.sqrt(4.0 * off * off - 1.0)
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (0.5 + 0.5 * values).to(like), (vectors[0] ** 2).to(like)
