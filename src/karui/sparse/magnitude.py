"""Magnitude pruning: the smallest weights, or groups of the smallest L2 norm, are set to zero; nothing is learned.

Zhu and Gupta, "To prune, or not to prune", 2017 (arXiv 1710.01878). A mask changes only when a projection renews it;
the schedule that asks for one is `karui.sparse.control`'s. In between, training uses masked weights. As they do it,
pruned weights get no gradient but keep their values, and a renewal ranks all weights by them: one may come back where
others have become smaller. (They rank each layer apart, `scope="layer"`.) With `regrow` the gradient reaches pruned
weights as if they were there (Lin et al., "Dynamic Model Pruning with Feedback", ICLR 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from karui.sparse.division import Division
from karui.sparse.gate import Gate
from karui.sparse.groups import check_groups
from karui.sparse.weight import SharedGate, SparseWeight

SCOPES = ("global", "layer")


@dataclass(frozen=True)
class MagnitudePruning:
    """How to make weights sparse by their size: pass it to `sparsify`, then ask `project` for a number of weights."""

    groups: tuple[str, ...] = ("weight",)
    """What is pruned as one, by the names of `karui.sparse.GROUPS`; layers without any of them stay dense."""
    regrow: bool = False
    """Pruned weights keep getting gradients, and come back where they have grown past others."""
    scope: str = "global"
    """"global" compares all units of a model by their root mean square; "layer" prunes the same share of each gate."""

    name = "magnitude"

    def __post_init__(self) -> None:
        check_groups(self.groups)
        if not self.groups:
            raise ValueError("groups must name at least one group: without any, nothing can be pruned")
        if self.scope not in SCOPES:
            raise ValueError(f"scope must be one of {SCOPES}, got {self.scope!r}")

    def gate(self, *divisions: Division, layer: str = "") -> Gate:  # noqa: ARG002
        """A mask over the units."""
        return MagnitudeGate(*divisions, by_rank=self.scope == "layer")

    def weight(
        self,
        weight: Tensor,
        divisions: Mapping[str, Division] | None = None,
        shared: tuple[SharedGate, ...] = (),
        *,
        zero_row: int | None = None,
        layer: str = "",  # noqa: ARG002
    ) -> "MagnitudeWeight":
        """State for one weight whose elements fall into the given divisions, by the names of their places."""
        gates = {place: self.gate(division) for place, division in (divisions or {}).items()}
        return MagnitudeWeight(weight.shape, gates, shared, zero_row=zero_row, regrow=self.regrow)


class MagnitudeGate(Gate):
    """A mask over units; the buffer `kept` changes only in `renew`."""

    kept: Tensor

    def __init__(self, *divisions: Division, by_rank: bool) -> None:
        super().__init__(*divisions)
        self.by_rank = by_rank
        self.register_buffer("kept", torch.ones(self.units, dtype=torch.bool))

    @torch.no_grad()
    def score(self, *weights: Tensor) -> Tensor:
        """Root mean square of a unit's weights: the L2 norm, made comparable between units of different sizes.

        By rank: the share of this gate's units that are smaller.
        """
        if len(weights) != len(self.divisions):
            raise ValueError(f"score needs the {len(self.divisions)} weights of the gate, got {len(weights)}")
        pairs = list(zip(self.divisions, weights, strict=True))
        if all(division.units == division.shape for division in self.divisions) and len(pairs) == 1:
            size = weights[0].abs()
        else:
            total = sum(division.sum(weight.float() ** 2) for division, weight in pairs)
            count = sum(division.sizes(self.kept.device) for division in self.divisions)
            assert isinstance(total, Tensor)
            size = torch.sqrt(total / count)
        if not self.by_rank:
            return size
        order = torch.argsort(size.flatten(), stable=True)
        rank = torch.empty(order.shape, dtype=torch.float64, device=order.device)
        rank[order] = torch.arange(len(order), dtype=torch.float64, device=order.device) / len(order)
        return rank.view(size.shape)

    def renew(self, *weights: Tensor) -> None:
        """Take the mask that the cut gives now; without a cut everything is kept."""
        score = self.score(*weights)
        self.kept.copy_(self.select(score, torch.ones_like(self.kept), self.divisions[0]))

    def settle(self, kept: Tensor) -> None:
        """Nothing: a mask is at rest until the next `renew`, which ranks all weights again."""

    def sample(self, rows: Tensor | None = None, *, shape: tuple[int, ...] = ()) -> Tensor:
        """The mask as numbers; there is nothing random in it."""
        return self.deployed(rows).expand(*shape, *self.divisions[0].take(self.kept, rows).shape)

    def deployed(self, rows: Tensor | None = None) -> Tensor:
        """The mask as numbers."""
        return self.keep_mask(rows).to(torch.get_default_dtype())

    def keep_mask(self, rows: Tensor | None = None) -> Tensor:
        """The mask of the last renewal."""
        return self.divisions[0].take(self.kept, rows)

    def open_probability(self) -> Tensor:
        """1 where kept, else 0; no gradient."""
        return self.deployed()


class MagnitudeWeight(SparseWeight):
    """A weight times the masks of its units."""

    def __init__(
        self,
        shape: torch.Size,
        gates: Mapping[str, Gate],
        shared: tuple[SharedGate, ...],
        *,
        zero_row: int | None,
        regrow: bool,
    ) -> None:
        super().__init__(shape, gates, shared, zero_row=zero_row)
        self.regrow = regrow

    def sample(
        self, weight: Tensor, rows: Tensor | None = None, *, shared: Mapping[Gate, Tensor] | None = None
    ) -> Tensor:
        """The masked weight, as at test time."""
        drawn = super().sample(weight, rows, shared=shared)
        if not self.regrow:
            return drawn
        mean = weight if rows is None else weight[rows]
        return _Straight.apply(mean, drawn.detach())  # type: ignore[return-value]

    def product(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        *,
        shared: Mapping[Gate, Tensor] | None = None,
    ) -> Tensor:
        """Times the masked weight, so that gradients reach the pruned ones."""
        return torch.nn.functional.linear(input, self.sample(weight, shared=shared), bias)

    def penalty(self, weight: Tensor) -> Tensor:
        """Zero: nothing is learned about what to prune."""
        return weight.new_zeros(())


class _Straight(torch.autograd.Function):
    """The value of `drawn`, the gradient of `mean`."""

    @staticmethod
    def forward(ctx, mean: Tensor, drawn: Tensor) -> Tensor:  # noqa: ANN001, ARG004
        return drawn.view_as(drawn)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001, ARG004
        return grad, None
