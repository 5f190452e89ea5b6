"""From "about so many" to "exactly so many": the cutoffs that make the deployed model keep a wanted number of weights.

Units of all gates are ranked by one score (log alpha of L0 gates, the logarithm of the signal-to-noise ratio, root mean
square). Where single weights have gates, exactly the wanted number is kept: group gates open down to the score at which
enough weights are reached, then the best weights within open groups are taken. Where only groups have gates, units are
opened from the best down; a unit that would exceed the number closes its gate for the rest, and the others go on, so
that what is left unused is smaller than the smallest next unit.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from karui.sparse.division import Division, Elements
from karui.sparse.gate import Cut
from karui.sparse.measures import harden, kept_parameters, prunable_parameters, sparse_layers
from karui.sparse.weight import count_open


@dataclass
class _Units:
    """One array of units and its scores; they are sorted when that is first asked for."""

    cut: Cut
    score: Tensor
    is_element: bool

    @cached_property
    def order(self) -> Tensor:
        """Positions from best to worst."""
        return torch.argsort(self.score, descending=True, stable=True)

    @cached_property
    def sorted(self) -> Tensor:
        """Scores in that order."""
        return self.score[self.order]

    @cached_property
    def limit(self) -> int:
        """Units that may be opened at all."""
        return int((self.score > -math.inf).sum())


class _Weight(NamedTuple):
    """One weight: (which units, how they lie in it)."""

    shape: tuple[int, ...]
    parts: list[tuple[int, Division]]
    zero_row: int | None


class Projection:
    """All scores of a model, read once; then any number of weights can be asked for."""

    @torch.no_grad()
    def __init__(self, model: nn.Module, *, leave: frozenset[str] = frozenset()) -> None:
        """leave: names of sparse layers that stay as they are and do not count."""
        self.layers = [(name, layer) for name, layer in sparse_layers(model) if name not in leave]
        self.units: list[_Units] = []
        self.weights: list[_Weight] = []
        position: dict[int, int] = {}
        for name, layer in self.layers:
            zero_rows = [state.zero_row for _, _, state in layer.states()]
            for score, cut, division in layer.ranked():
                score = score.detach().double()
                if score.isnan().any():
                    raise ValueError(
                        f"{name or 'the layer'} has scores that are not numbers: training diverged"
                    )
                if zero_rows[0] is not None and division.units[0] == division.shape[0]:
                    score = score.clone()
                    score[zero_rows[0]] = -math.inf
                position[id(cut)] = len(self.units)
                self.units.append(_Units(cut, score.flatten(), isinstance(division, Elements)))
            for _, mean, state in layer.states():
                parts = [(position[id(cut)], division) for cut, division in state.cuts()]
                self.weights.append(_Weight(tuple(mean.shape), parts, state.zero_row))
        if not self.weights:
            raise ValueError("the model has no sparse layer: call sparsify first")
        self.single = all(any(self.units[u].is_element for u, _ in weight.parts) for weight in self.weights)

    @cached_property
    def levels(self) -> Tensor:
        """All scores, from the best down."""
        every = torch.cat([units.score for units in self.units])
        return torch.sort(every[every > -math.inf], descending=True).values

    def keep(self, count: int) -> int:
        """Set the cuts so that `count` weights are kept, or as many as can be but never more; returns how many."""
        if count < 0:
            raise ValueError(f"keep must be at least 0, got {count}")

        def fits(opened: list[int]) -> bool:
            return self._count(opened) <= count

        if all(units.is_element for units in self.units) and count < sum(u.limit for u in self.units):
            self._trim(count, -math.inf)  # there are no groups to open: nothing need be sorted
            return self._renewed()
        levels = self._levels(fits)
        if self.single and levels < len(self.levels):
            self._set(self._down_to(levels + 1))
            self._trim(count, float(self.levels[levels]))
        else:
            self._set(self._fill(self._down_to(levels), fits))
        return self._renewed()

    def keep_where(self, fits: Callable[[], bool]) -> int:
        """Open whole units from the best down while fits(), asked about the model, holds; returns the weights kept.

        The best unit of each array is always open: a layer without any would end the network. fits() must hold for
        fewer units wherever it holds for more. Where not even these fit, they are what is kept, and -1 is returned.
        """

        def holds(opened: list[int]) -> bool:
            self._set(opened)
            self._renewed()
            return fits()

        least = [min(1, units.limit) for units in self.units]

        def at_least(opened: list[int]) -> list[int]:
            return [max(pair) for pair in zip(opened, least, strict=True)]

        if not holds(least):
            return -1
        levels = self._levels(lambda opened: holds(at_least(opened)))
        self._set(self._fill(at_least(self._down_to(levels)), holds))
        return self._renewed()

    def _renewed(self) -> int:
        for _, layer in self.layers:
            layer.renew()
        return sum(kept_parameters(layer) for _, layer in self.layers)

    def _levels(self, fits: Callable[[list[int]], bool]) -> int:
        """The largest number of levels that fits."""
        first, past = 0, len(self.levels)  # it is in [first, past]
        while first < past:
            middle = (first + past + 1) // 2
            if fits(self._down_to(middle)):
                first = middle
            else:
                past = middle - 1
        return first

    def _down_to(self, levels: int) -> list[int]:
        """How many units of each array reach the score at that position of all scores."""
        if levels == 0:
            return [0] * len(self.units)
        level = self.levels[levels - 1]
        return [int(torch.searchsorted(-units.sorted, -level, right=True)) for units in self.units]

    def _masks(self, opened: list[int]) -> list[Tensor]:
        masks = []
        for units, count in zip(self.units, opened, strict=True):
            mask = torch.zeros(len(units.score), dtype=torch.bool, device=units.score.device)
            mask[units.order[:count]] = True
            masks.append(mask)
        return masks

    def _count(self, opened: list[int]) -> int:
        """Weights kept when the best `opened[g]` units of each array are."""
        masks = [mask.to(torch.float64) for mask in self._masks(opened)]
        total = 0
        for shape, parts, zero_row in self.weights:
            values = [(masks[u].view(division.units), division) for u, division in parts]
            total += int(count_open(values, shape, zero_row=zero_row))
        return total

    def _fill(self, opened: list[int], fits: Callable[[list[int]], bool]) -> list[int]:
        """Open more units from the best down; the array of the first that does not fit is left as it is."""
        active = set(range(len(self.units)))
        while active:
            scores = torch.cat(
                [self.units[g].sorted[opened[g] : self.units[g].limit].cpu() for g in sorted(active)]
            )
            owners = torch.cat([torch.full((self.units[g].limit - opened[g],), g) for g in sorted(active)])
            owners = owners[torch.sort(scores, descending=True, stable=True).indices]
            first, past = 0, len(owners)

            while first < past:
                middle = (first + past + 1) // 2
                if fits(_with_more(opened, owners[:middle])):
                    first = middle
                else:
                    past = middle - 1
            opened = _with_more(opened, owners[:first])
            if first == len(owners):
                break
            active.remove(int(owners[first]))
        return opened

    def _set(self, opened: list[int]) -> None:
        for units, count in zip(self.units, opened, strict=True):
            if count == 0:
                units.cut.set_cut(math.inf)
            else:
                last = int(units.order[count - 1])
                units.cut.set_cut(float(units.score[last]), last)

    def _trim(self, count: int, level: float) -> None:
        """Keep the best `count` of the elements whose groups are open down to `level`."""
        alive: list[tuple[_Units, Tensor]] = []
        opened = [units.score >= level for units in self.units]
        for shape, parts, zero_row in self.weights:
            groups = torch.ones(shape, dtype=torch.bool, device=self.units[0].score.device)
            for u, division in parts:
                if not self.units[u].is_element:
                    groups = groups & division.spread(opened[u].view(division.units))
            if zero_row is not None:
                groups[zero_row] = False
            element = next(self.units[u] for u, _ in parts if self.units[u].is_element)
            alive.append((element, groups.flatten()))
        scores = torch.cat([units.score[mask] for units, mask in alive])
        if count == 0:
            cutoff, ties = math.inf, 0
        else:
            cutoff = float(torch.topk(scores, count, sorted=False).values.min())
            ties = count - int((scores > cutoff).sum())
        for units, mask in alive:
            equal = (mask & (units.score == cutoff)).nonzero()[:, 0]
            taken = min(ties, len(equal))
            ties -= taken
            units.cut.set_cut(cutoff, int(equal[taken - 1]) if taken else -1)


def _with_more(opened: list[int], owners: Tensor) -> list[int]:
    """Counts after one more unit is opened for each entry of `owners`, positions of arrays."""
    more = torch.bincount(owners, minlength=len(opened)).tolist()
    return [now + extra for now, extra in zip(opened, more, strict=True)]


def project(model: nn.Module, *, keep: int, leave: frozenset[str] = frozenset()) -> int:
    """Make the deployed model keep `keep` of the weights that could be pruned; returns how many it keeps.

    Exactly that many where single weights have gates (or the model has no more), else as many as whole units allow but
    never more. The cuts stay until the next projection or `release`; they are part of the state dict. Masks of
    `MagnitudePruning` are renewed. leave: names of sparse layers that stay as they are and do not count.
    Raises ValueError where a score is not a number or keep is negative.
    """
    return Projection(model, leave=leave).keep(keep)


def project_where(model: nn.Module, fits: Callable[[], bool], *, tolerance: float = 0.0) -> int:
    """Make the deployed model keep as many weights as `fits` allows; returns how many it keeps.

    fits() is asked about the model as it then stands, for numbers found by bisection: it should hold below some
    number and not above. tolerance: stop where the two sides are closer than this share. What is left fits.
    Raises ValueError where not even a model without any of these weights fits.
    """
    projection = Projection(model)
    everything = projection.keep(sum(math.prod(weight.shape) for weight in projection.weights))
    if fits():
        return everything
    low, kept, high = 0, projection.keep(0), everything
    if not fits():
        raise ValueError("the model does not fit even with every weight that can be pruned at zero")
    while high - low > max(1.0, tolerance * high):
        middle = (low + high) // 2
        found = projection.keep(middle)
        if found == kept or fits():
            low, kept = middle, found
        else:
            high = min(middle, found)
    return projection.keep(low)


def dense_copy(model: nn.Module) -> nn.Module:
    """A plain copy (`harden`) in evaluation mode in which every weight is kept, whatever its gates say."""
    model = copy.deepcopy(model).eval()
    if not any(sparse_layers(model)):
        return model
    project(model, keep=prunable_parameters(model))
    return harden(model).eval()


def release(model: nn.Module) -> None:
    """Back to the method's own rule of what is pruned."""
    for module in model.modules():
        if isinstance(module, Cut):
            module.release()
    for _, layer in sparse_layers(model):
        layer.renew()
