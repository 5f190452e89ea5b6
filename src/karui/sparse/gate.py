"""A gate: one factor for each unit of a weight, random in training, fixed at test time, exactly zero where pruned.

Every gate ranks its units by a score, larger = kept longer. Which units are kept is the method's own rule until a
projection sets a `Cut`; then a unit is kept while its score reaches the cutoff, whatever the method would say.
"""

import math
import struct
from typing import Any

import torch
from torch import Tensor, nn

from karui.sparse.division import Division


class Cut(nn.Module):
    """Which units of one array are kept after a projection: those above a score, and of equal ones the first few.

    The buffer `cut` holds two whole numbers, so that no change of dtype rounds them: the bits of the float64 cutoff
    (NaN = the method's own rule) and the position of the last unit kept among those whose score equals it.
    Checkpoints written before there were cuts load as "own rule".
    """

    cut: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cut", torch.tensor([_bits(math.nan), -1]))

    @property
    def cutoff(self) -> float:
        """Score that a unit needs; NaN = the method's own rule."""
        return self._read()[0]

    def _read(self) -> tuple[float, int]:
        cut = self.cut.cpu()
        return float(cut[:1].view(torch.float64)), int(cut[1])

    def set_cut(self, cutoff: float, last: int = -1) -> None:
        """Keep units whose score is above `cutoff`, and those equal to it up to position `last` in index order."""
        self.cut.copy_(torch.tensor([_bits(cutoff), last]))

    def release(self) -> None:
        """Back to the method's own rule."""
        self.set_cut(math.nan)

    def select(self, score: Tensor, own: Tensor, division: Division, rows: Tensor | None = None) -> Tensor:
        """Boolean, True = kept: by the cut where there is one, else `own`, the method's rule.

        score, own: of all units, or of those that `division.take(..., rows)` gives.
        """
        cutoff, last = self._read()
        if math.isnan(cutoff):
            return own
        kept = score > cutoff
        if last >= 0:
            kept = kept | ((score == cutoff) & (division.positions(rows, score.device) <= last))
        return kept

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}cut", torch.tensor([_bits(math.nan), -1]))
        super()._load_from_state_dict(state_dict, prefix, *args)


class Gate(Cut):
    """One factor a unit; base of what each method makes of it.

    divisions: how the units lie in each weight that this gate multiplies; a gate shared by several weights has one
    division a weight, all with the same units. `weights` below are these weights' means, in that order; only methods
    that judge a unit by its weights read them.
    """

    def __init__(self, *divisions: Division) -> None:
        super().__init__()
        if len({division.units for division in divisions}) != 1:
            raise ValueError(f"a gate's divisions must have the same units, got {divisions}")
        self.divisions = divisions

    @property
    def units(self) -> tuple[int, ...]:
        """Shape of the array of factors."""
        return self.divisions[0].units

    def sample(self, rows: Tensor | None = None, *, shape: tuple[int, ...] = ()) -> Tensor:
        """Factors of one training step: of all units, or of those that `rows` of the weight meet.

        shape: leading dimensions of independent samples, for local reparametrisation.
        """
        raise NotImplementedError

    def scale(self, weight: Tensor, division: Division, rows: Tensor | None = None) -> Tensor:
        """A weight, or its given rows, times factors of one training step."""
        return weight * division.spread(self.sample(rows)).to(weight.dtype)

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:  # noqa: A002, ARG002
        """input (..., C) times the weight (R, C) times factors, plus bias, where there is one short way for all."""
        return None

    def deployed(self, rows: Tensor | None = None) -> Tensor:
        """Factors at test time, zero where pruned."""
        raise NotImplementedError

    def score(self, *weights: Tensor) -> Tensor:
        """One number a unit, comparable over all gates of a model: the larger, the longer it is kept."""
        raise NotImplementedError

    def keep_mask(self, rows: Tensor | None = None) -> Tensor:
        """Boolean, True = kept: of all units, or of those that `rows` meet."""
        raise NotImplementedError

    def settle(self, kept: Tensor) -> None:
        """Put the scores of all but the `kept` units, boolean, far below theirs, so that none comes back."""
        raise NotImplementedError

    def open_probability(self) -> Tensor:
        """Probability that a unit is kept, differentiable where the method learns it."""
        raise NotImplementedError

    def renew(self, *weights: Tensor) -> None:
        """Take the mask that the cut gives now, for methods whose masks stand still in between."""

    def expected_elements(self, division: Division) -> Tensor | None:  # noqa: ARG002
        """Expected number of kept elements of a weight with no other gate, (), where there is a short way to it."""
        return None

    def penalty(self) -> Tensor | None:
        """What the gate itself adds to the loss (KL in nats), or None; costs a weight are counted by the weight."""
        return None


def _bits(number: float) -> int:
    return struct.unpack("<q", struct.pack("<d", number))[0]
