"""Which layer offers which groups, and what each group is there; a new layer is one row of `OFFERS`."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from karui.sparse.division import Axis, Blocks, Division, Elements
from karui.sparse.factorised import Factorised
from karui.sparse.layers import (
    SparseConv,
    SparseEmbedding,
    SparseFactorised,
    SparseLayer,
    SparseLinear,
    SparseRecurrent,
)

BLOCKS = {"16x1": (16, 1), "8x4": (8, 4)}
ADDED_UP = re.compile(r"weight_(ih|hh|phi)(_l\d+(_reverse)?)$")  # matrices whose products one gate adds up


class SharedPlan(NamedTuple):
    """How one gate of a layer lies in its weights: (parameter, division, whether the factor multiplies there)."""

    uses: tuple[tuple[str, Division, bool], ...]


class Plan(NamedTuple):
    """What is gated in one layer: divisions of each weight by their places, and the gates that weights share."""

    own: dict[str, dict[str, Division]]
    shared: dict[str, SharedPlan]


class Offer(NamedTuple):
    """A kind of layer, its sparse version, its groups, and what they are in one such layer."""

    kind: type[nn.Module]
    sparse: type[SparseLayer]
    groups: tuple[str, ...]
    plan: Callable[[nn.Module, tuple[str, ...]], Plan]


def places(
    shape: tuple[int, ...], groups: tuple[str, ...], *, row: str | None = None, column: str | None = None
) -> dict[str, Division]:
    """Divisions of one weight by place; row and column: the groups that its first two axes form."""
    found: dict[str, Division] = {}
    if "weight" in groups:
        found["element"] = Elements(shape)
    if row in groups:
        found["row"] = Axis(shape, 0)
    if column in groups:
        found["column"] = Axis(shape, 1)
    for name, (height, width) in BLOCKS.items():
        if name in groups:
            found["block"] = Blocks(shape, height, width)
    return found


def _shape(module: nn.Module, name: str = "weight") -> tuple[int, ...]:
    return tuple(getattr(module, name).shape)


def _linear(module: nn.Module, groups: tuple[str, ...]) -> Plan:
    return Plan({"weight": places(_shape(module), groups, row="output", column="input")}, {})


def _conv(module: nn.Module, groups: tuple[str, ...]) -> Plan:
    if "input" in groups and module.groups != 1:
        raise ValueError(
            f"group 'input' needs a convolution with groups=1, got groups={module.groups}: "
            "its columns are not its input channels; exclude it or leave the group out"
        )
    return Plan({"weight": places(_shape(module), groups, row="output", column="input")}, {})


def _embedding(module: nn.Module, groups: tuple[str, ...]) -> Plan:
    return Plan({"weight": places(_shape(module), groups, row="word", column="dimension")}, {})


def recurrent_matrices(module: nn.Module) -> list[str]:
    """Parameters of a recurrent layer that are matrices of weights."""
    return [name for name, p in module.named_parameters() if name.startswith("weight") and p.dim() == 2]


def _recurrent(module: nn.Module, groups: tuple[str, ...]) -> Plan:
    names = recurrent_matrices(module)
    own = {name: places(_shape(module, name), groups, column="input") for name in names}
    together: dict[str, list[str]] = {}
    for name in names if "gate" in groups else ():
        found = ADDED_UP.match(name)
        if found:
            together.setdefault(f"gate{found[2]}", []).append(name)
    shared = {
        gate: SharedPlan(tuple((name, Axis(_shape(module, name), 0), True) for name in members))
        for gate, members in together.items()
    }
    return Plan(own, shared)


def _factorised(module: nn.Module, groups: tuple[str, ...]) -> Plan:
    into, out = _shape(module, "weight_in"), _shape(module, "weight_out")
    own = {
        "weight_in": places(into, groups, column="input"),
        "weight_out": places(out, groups, row="output"),
    }
    rank = SharedPlan((("weight_in", Axis(into, 0), True), ("weight_out", Axis(out, 1), False)))
    return Plan(own, {"rank": rank} if "rank" in groups else {})


def recurrent(kind: type[nn.Module]) -> Offer:
    """The row of a recurrent layer."""
    return Offer(kind, SparseRecurrent, ("weight", "input", "gate", "16x1", "8x4"), _recurrent)


def table(kind: type[nn.Module], sparse: type[SparseLayer]) -> Offer:
    """The row of an output layer with one table (V, H) named weight: rows are classes, columns what they read."""
    return Offer(kind, sparse, ("weight", "input", "output", "16x1", "8x4"), _linear)


# First match wins; `karui.sparse.apply` adds the layers of `karui.nn`.
OFFERS: tuple[Offer, ...] = (
    Offer(nn.Embedding, SparseEmbedding, ("weight", "word", "dimension"), _embedding),
    Offer(nn.Linear, SparseLinear, ("weight", "input", "output", "16x1", "8x4"), _linear),
    Offer(nn.Conv1d, SparseConv, ("weight", "input", "output"), _conv),
    Offer(nn.Conv2d, SparseConv, ("weight", "input", "output"), _conv),
    Offer(Factorised, SparseFactorised, ("weight", "input", "output", "rank", "16x1", "8x4"), _factorised),
    recurrent(nn.LSTM),
    recurrent(nn.GRU),
)


def offered(offers: tuple[Offer, ...]) -> Mapping[str, tuple[str, ...]]:
    """Names of layers and the groups that each offers, for messages and documentation."""
    return {offer.kind.__name__: offer.groups for offer in offers}
