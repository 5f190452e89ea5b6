"""Recurrent layers, torch's and karui's: the units of all layers in the graph of who reads whom.

Inside a layer a unit stays where something outside, or a unit that stays, reads it.

H units of a direction, I inputs, L layers, D directions.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, fx

from karui.compact.modules.cells import Cell
from karui.compact.modules.features import Features, Packed, Value
from karui.compact.modules.layers import Built, LayerRule
from karui.compact.modules.names import name_of
from karui.compact.modules.parameters import KINDS
from karui.compact.modules.rules import Walk, features_in
from karui.compact.modules.stacks import build_stack


@dataclass
class RecurrentRule(LayerRule):
    """One recurrent layer of any depth, one or two directions."""

    cells: list[Cell] = field(default_factory=list)
    joined: bool = False
    """Whether states are read as one tensor, so that all units keep one size."""

    def call(self, walk: Walk, node: fx.Node) -> Value:
        """Give (output, h_n), (output, (h_n, c_n)), or (output, None) where no state is followed."""
        if self.shared:
            return walk.barrier(node)
        module = self.module
        x = self._input_features(walk, node)
        hx = node.args[1] if len(node.args) > 1 else node.kwargs.get("hx")
        for name in ("lengths", "padding_mask"):
            walk.own_features(node.kwargs.get(name), -1)
        self.x = x
        self._make_cells(walk, x)
        opaque = self._is_opaque() and (hx is not None or state_is_read(node))
        self.joined = hx is not None or not states_read_apart(node, two=self.is_lstm)
        if opaque:
            for cell in self.cells:
                cell.pin(walk.atoms)
            walk.barrier(node)
        elif hx is not None:
            self._begin_from(walk, hx)
        if self.joined and not self._is_opaque():
            units = self._units()
            for other in units[1:]:
                walk.atoms.merge(units[0], other)
        const = np.full(len(x.atoms), np.nan) if opaque else x.const
        for cell in self.cells:
            quiet = const = cell.settle(walk.atoms, const, starts_from_zero=hx is None)
        if node.kwargs.keys() & {"lengths", "padding_mask"}:  # zero stands in the padding
            quiet = np.where(quiet == 0.0, 0.0, np.nan)
        sample_out, sample_state = walk.values[node]
        source: Any = node.args[0] if node.args else node.kwargs["input"]
        given = walk.values[source]
        read = given if isinstance(given, Tensor) else given.data
        self.positions = read.numel() / module.input_size
        data = sample_out if isinstance(sample_out, Tensor) else sample_out.data
        self.out = found = Features(data.dim() - 1, self.cells[-1].outputs(), quiet, data.dim())
        output = Packed(found) if not isinstance(sample_out, Tensor) else found
        if self._is_opaque():
            return output, None
        state = self._state(sample_state if isinstance(sample_state, Tensor) else sample_state[0])
        return output, (state, state) if self.is_lstm else state

    @property
    def is_lstm(self) -> bool:
        """Whether there is a second state."""
        return KINDS[type(self.module)] == "lstm"

    def _is_opaque(self) -> bool:
        """Whether the state is not one number a unit and nothing else."""
        module, kind = self.module, KINDS[type(self.module)]
        return (
            bool(module.proj_size)
            or kind == "statistical"
            or getattr(module, "window", 1) > 1
            or getattr(module, "memory_len", 0) > 0
        )

    def _input_features(self, walk: Walk, node: fx.Node) -> Features:
        """Features of the input, padded or packed; kept ones where nothing is known of it."""
        given: Any = node.args[0] if node.args else node.kwargs["input"]
        value = walk.found[given]
        found = value.features if isinstance(value, Packed) else walk.own_features(given, -1)
        if found is not None:
            return found
        fresh = walk.atoms.new(self.module.input_size)
        walk.atoms.pin(fresh)
        return Features(0, fresh, np.full(len(fresh), np.nan), 1)

    def _make_cells(self, walk: Walk, x: Features) -> None:
        below = x.atoms
        for layer in range(self.module.num_layers):
            self.cells.append(Cell(self.module, layer, walk.atoms, below))
            below = self.cells[-1].outputs()

    def _units(self) -> list[np.ndarray]:
        """Atoms of the units, for each layer and direction."""
        return [cell.of("unit", suffix) for cell in self.cells for suffix in cell.suffixes]

    def _begin_from(self, walk: Walk, hx: Any) -> None:
        """First states from elsewhere: states of another layer lose the same units, anything else keeps all."""
        parts = hx if isinstance(hx, tuple | list) else (hx,)
        found: list[Value] = []
        for part in parts:
            value = walk.found.get(part) if isinstance(part, fx.Node) else None
            found.extend(value if isinstance(value, tuple) else [value])
        units = self._units()
        for value in found:
            if isinstance(value, Features) and value.from_end == -1 and len(value.atoms) == len(units[0]):
                walk.atoms.merge(value.atoms, units[0])
                continue
            for features in features_in(value):
                walk.atoms.pin(features.atoms)
            for atoms in units:
                walk.atoms.pin(atoms)

    def _state(self, sample: Tensor) -> Value:
        """h_n or c_n: one tensor whose rows lose the same units, or one set of features a layer and direction."""
        units = self._units()
        if self.joined:
            return Features(sample.dim() - 1, units[0], np.full(len(units[0]), np.nan), sample.dim())
        return tuple(
            Features(sample.dim() - 2, atoms, np.full(len(atoms), np.nan), sample.dim() - 1)
            for atoms in units
        )

    def tensors(self) -> list[Features]:
        """No layer may lose all of its units."""
        outputs = [cell.outputs() for cell in self.cells]
        return [Features(0, atoms, np.full(len(atoms), np.nan), 1) for atoms in outputs]

    def build(self, live: np.ndarray) -> Built:
        """One layer of its own class where all sizes agree, else a stack of them."""
        return build_stack(self.cells, live, self.positions, joined=self.joined)


def states_read_apart(node: fx.Node, *, two: bool) -> bool:
    """Tell whether every use of h_n and c_n takes one layer and direction by its number, as in `h_n[-1]`."""
    states = _items(node)
    if states is None:
        return False
    tensors = [state for place, state in states if place % 2]
    if two:
        inner = [_items(state) for state in tensors]
        if any(found is None for found in inner):
            return False
        tensors = [state for found in inner if found is not None for _, state in found]
    return all(_items(tensor) is not None for tensor in tensors)


def _items(node: fx.Node) -> list[tuple[int, fx.Node]] | None:
    """The uses of a node where all of them are `node[3]`, else None."""
    found = []
    for user in node.users:
        if name_of(user) != "getitem" or user.args[0] is not node or not isinstance(user.args[1], int):
            return None
        found.append((user.args[1], user))
    return found


def state_is_read(node: fx.Node) -> bool:
    """Tell whether anything but the output of a recurrent layer is used."""
    items = _items(node)
    return items is None or any(place % 2 and state.users for place, state in items)


def plain_recurrent(module: Any) -> bool:
    """Tell whether a module is a recurrent layer that the rule above knows."""
    return type(module) in KINDS
