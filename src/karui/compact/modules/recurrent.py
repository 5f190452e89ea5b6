"""torch's and karui's LSTM and GRU: which units live, what is silent, and the smaller stack.

G gate blocks, H units of a direction, I inputs, L layers, D directions. Inside a layer a unit stays where something
outside, or a unit that stays, reads it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from karui.compact.modules.features import Atoms, Features, Packed, Value
from karui.compact.modules.layers import Built, LayerRule, array, chosen_columns, with_selection
from karui.compact.modules.names import name_of
from karui.compact.modules.rules import Walk, features_in
from karui.compact.reach import GRU_CANDIDATE, GRU_RESET, LSTM_CANDIDATE, reachable
from karui.nn.gru import GRU
from karui.nn.lstm import LSTM

GATES = {nn.LSTM: 4, nn.GRU: 3, LSTM: 4, GRU: 3}
_KINDS = {nn.LSTM: "LSTM", nn.GRU: "GRU", LSTM: "karui:lstm", GRU: "karui:gru"}


@dataclass
class Direction:
    """The weights of one direction of one layer, and its units' atoms."""

    weights: dict[str, np.ndarray]
    """weight_ih (G*H, I), weight_hh (G*H, H), and with bias bias_ih, bias_hh (G*H,)."""
    atoms: np.ndarray

    def gates(self, name: str, count: int) -> np.ndarray:
        """View (G, H, ...) of a weight, or zeros where the layer has none."""
        found = self.weights.get(name)
        if found is None:
            return np.zeros((count, len(self.atoms)))
        return found.reshape(count, -1, *found.shape[1:])


@dataclass
class RecurrentRule(LayerRule):
    """One LSTM or GRU of any depth, one or two directions."""

    layers: list[list[Direction]] = field(default_factory=list)
    inside: list[Features] = field(default_factory=list)

    def call(self, walk: Walk, node: fx.Node) -> Value:
        """Give (output, h_n) or (output, (h_n, c_n))."""
        if self.shared:
            return walk.barrier(node)
        x = self.input_features(walk, node)
        hx = node.args[1] if len(node.args) > 1 else node.kwargs.get("hx")
        for name in ("lengths", "padding_mask"):
            walk.own_features(node, node.kwargs.get(name), -1)
        self.read_weights(walk.atoms)
        whole = hx is not None or not states_read_apart(node, two=self.is_lstm)
        if hx is not None:
            self._begin_from(walk, hx)
        if whole:
            units = [d.atoms for layer in self.layers for d in layer]
            for other in units[1:]:
                walk.atoms.merge(units[0], other)
        self.x = x
        silent, out = self._walk_layers(walk.atoms, x, starts_from_zero=hx is None)
        sample_out, sample_state = walk.values[node]
        data = sample_out if isinstance(sample_out, Tensor) else sample_out.data
        self.positions = data.numel() / data.shape[-1]
        self.out = found = Features(data.dim() - 1, *out, data.dim())
        state = self._state(
            sample_state if isinstance(sample_state, Tensor) else sample_state[0], silent, whole=whole
        )
        output = Packed(found) if not isinstance(sample_out, Tensor) else found
        return output, (state, state) if self.is_lstm else state

    @property
    def is_lstm(self) -> bool:
        """Whether there is a second state."""
        return isinstance(self.module, nn.LSTM)

    def input_features(self, walk: Walk, node: fx.Node) -> Features | None:
        """Features of the input, padded or packed."""
        given: Any = node.args[0] if node.args else node.kwargs["input"]
        value = walk.found[given]
        return value.features if isinstance(value, Packed) else walk.own_features(node, given, -1)

    def read_weights(self, atoms: Atoms) -> None:
        """Copies of all weights, and an atom a unit."""
        module = self.module
        suffixes = ("", "_reverse") if module.bidirectional else ("",)
        names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ()))
        for k in range(module.num_layers):
            directions = []
            for suffix in suffixes:
                weights: dict[str, Any] = {n: array(getattr(module, f"{n}_l{k}{suffix}")) for n in names}
                directions.append(Direction(weights, atoms.new(module.hidden_size)))
            self.layers.append(directions)

    def _begin_from(self, walk: Walk, hx: Any) -> None:
        """First states from elsewhere: states of another layer lose the same units, anything else keeps all."""
        parts = hx if isinstance(hx, tuple | list) else (hx,)
        found: list[Value] = []
        for part in parts:
            value = walk.found.get(part) if isinstance(part, fx.Node) else None
            found.extend(value if isinstance(value, tuple) else [value])
        for value in found:
            if (
                isinstance(value, Features)
                and value.from_end == -1
                and len(value.atoms) == self.module.hidden_size
            ):
                walk.atoms.merge(value.atoms, self.layers[0][0].atoms)
                continue
            for features in features_in(value):
                walk.atoms.pin(features.atoms)
            for layer in self.layers:
                for direction in layer:
                    walk.atoms.pin(direction.atoms)

    def _walk_layers(
        self, atoms: Atoms, x: Features | None, *, starts_from_zero: bool
    ) -> tuple[list[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Fold constants upwards, note who reads whom; silent units (H,) a direction, and the last layer's features."""
        read = None if x is None else x.atoms
        const = np.full(self.module.input_size, np.nan) if x is None else x.const
        silent: list[np.ndarray] = []
        for layer in self.layers:
            quiet = [self._direction(atoms, d, read, const, starts_from_zero=starts_from_zero) for d in layer]
            silent.extend(quiet)
            read = np.concatenate([d.atoms for d in layer])
            const = np.where(np.concatenate(quiet), 0.0, np.nan)
            self.inside.append(Features(0, read, const, 1))
        assert read is not None
        return silent, (read, const)

    def _direction(
        self,
        atoms: Atoms,
        d: Direction,
        read: np.ndarray | None,
        const: np.ndarray,
        *,
        starts_from_zero: bool,
    ) -> np.ndarray:
        G = GATES[type(self.module)]
        known = ~np.isnan(const) if "bias_ih" in d.weights else const == 0.0
        if d.weights["weight_ih"][:, known].any():
            if "bias_ih" in d.weights:
                d.weights["bias_ih"] += d.weights["weight_ih"][:, known] @ const[known]
            d.weights["weight_ih"][:, known] = 0.0
        rows, recurrent = d.gates("weight_ih", G), d.gates("weight_hh", G)
        b_ih, b_hh = d.gates("bias_ih", G), d.gates("bias_hh", G)
        silent = np.zeros(len(d.atoms), bool)
        if starts_from_zero:
            # an LSTM's candidate reads the sum of both biases, a GRU's keeps them apart
            at = LSTM_CANDIDATE if self.is_lstm else GRU_CANDIDATE
            bias = b_ih[at] + b_hh[at] != 0 if self.is_lstm else (b_ih[at] != 0) | (b_hh[at] != 0)
            silent = ~reachable(rows[at].any(axis=1) | bias, (recurrent[at] != 0).T)
            recurrent[:, :, silent] = 0.0
        if not self.is_lstm:  # r scales W_hn h + b_hn alone
            idle = ~recurrent[GRU_CANDIDATE].any(axis=1) & (b_hh[GRU_CANDIDATE] == 0)
            rows[GRU_RESET, idle] = 0.0
            recurrent[GRU_RESET, idle] = 0.0
        if read is not None:
            atoms.reads(d.atoms, read, np.asarray(rows.any(axis=0)))
        atoms.reads(d.atoms, d.atoms, np.asarray(recurrent.any(axis=0)))
        return silent

    def _state(self, sample: Tensor, silent: list[np.ndarray], *, whole: bool) -> Value:
        """h_n or c_n: one tensor whose rows lose the same units, or one set of features a layer and direction."""
        units = [d.atoms for layer in self.layers for d in layer]
        if whole:
            return Features(sample.dim() - 1, units[0], np.full(len(units[0]), np.nan), sample.dim())
        return tuple(
            Features(sample.dim() - 2, atoms, np.where(quiet, 0.0, np.nan), sample.dim() - 1)
            for atoms, quiet in zip(units, silent, strict=True)
        )

    def tensors(self) -> list[Features]:
        """No layer may lose all of its units."""
        return self.inside

    def build(self, live: np.ndarray) -> Built:
        """One layer of torch's where all sizes agree, else a stack of them."""
        keeps = [[live[d.atoms] for d in layer] for layer in self.layers]
        sizes = [[int(keep.sum()) for keep in layer] for layer in keeps]
        columns = self.kept_inputs(live, self.module.input_size)
        cut: list[list[dict[str, np.ndarray]]] = []
        for layer, kept in zip(self.layers, keeps, strict=True):
            cut.append([self._cut(d, units, columns) for d, units in zip(layer, kept, strict=True)])
            columns = np.concatenate(kept)
        first = np.concatenate([d["weight_ih"] for d in cut[0]])
        selected = chosen_columns(first, len(first))
        if selected is not None:
            for d in cut[0]:
                d["weight_ih"] = d["weight_ih"][:, selected]
        spec, tensors = self._stack(cut, sizes)
        if selected is not None:
            spec, tensors = with_selection(spec, tensors, selected)
        part = "-".join("+".join(str(n) for n in layer) for layer in sizes)
        before = self.positions * sum(
            w.size
            for layer in self.layers
            for d in layer
            for n, w in d.weights.items()
            if n.startswith("weight")
        )
        after = self.positions * sum(
            w.size for layer in cut for d in layer for n, w in d.items() if n.startswith("weight")
        )
        return Built(spec, tensors, part, (before, after))

    def _cut(self, d: Direction, units: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
        rows = np.tile(units, GATES[type(self.module)])
        across = {"weight_ih": columns, "weight_hh": units}
        return {n: w[rows][:, across[n]] if n in across else w[rows] for n, w in d.weights.items()}

    def _stack(
        self, cut: list[list[dict[str, np.ndarray]]], sizes: list[list[int]]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        module, columns = self.module, cut[0][0]["weight_ih"].shape[1]
        suffixes = ("", "_reverse")
        options = {"bias": module.bias, "batch_first": module.batch_first}
        if getattr(module, "recurrent_dropout", 0.0):
            options["recurrent_dropout"] = module.recurrent_dropout
        if len({size for layer in sizes for size in layer}) == 1:
            options |= {
                "num_layers": module.num_layers,
                "bidirectional": module.bidirectional,
                "dropout": module.dropout,
            }
            tensors = {
                f"{name}_l{k}{suffixes[i]}": value
                for k, layer in enumerate(cut)
                for i, d in enumerate(layer)
                for name, value in d.items()
            }
            return self._layer_spec(sizes[0][0], columns, options), tensors
        layers: list[Any] = []
        tensors = {}
        for k, (layer, widths) in enumerate(zip(cut, sizes, strict=True)):
            even = len(set(widths)) == 1
            if even:
                both = options | {"bidirectional": module.bidirectional}
                layers.append(self._layer_spec(widths[0], columns, both))
            else:
                layers.append([self._layer_spec(n, columns, options) if n else None for n in widths])
            for i, d in enumerate(layer):
                if not widths[i]:
                    continue
                place = f"layers.{k}.0.{{}}_l0{suffixes[i]}" if even else f"layers.{k}.{i}.{{}}_l0"
                tensors |= {place.format(name): value for name, value in d.items()}
            columns = sum(widths)
        spec = {
            "kind": "uneven",
            "layers": layers,
            "batch_first": module.batch_first,
            "dropout": module.dropout,
            "parts": 2 if self.is_lstm else 1,
        }
        return spec, tensors

    def _layer_spec(self, rows: int, columns: int, options: dict[str, Any]) -> dict[str, Any]:
        return {"kind": _KINDS[type(self.module)], "rows": rows, "columns": columns, "options": options}


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
    """Tell whether a module is an LSTM or GRU without options that the rule above does not know."""
    options = [getattr(module, name, None) for name in ("proj_size", "layer_norm")]
    return type(module) in GATES and not any(options)
