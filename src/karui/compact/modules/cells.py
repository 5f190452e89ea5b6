"""One layer of a recurrent module: what its parameters are, what is silent in it, who reads whom.

Layers are described as the artifact's are (`karui.runtime.format`), so that the rules of `karui.compact.reach` and
`karui.compact.statistics` hold for both; what the artifact has no place for is added here.

H units of a direction, I inputs, G gate blocks, P outputs of a projection, A scales.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from karui.compact import statistics
from karui.compact.modules.features import Atoms
from karui.compact.modules.layers import array
from karui.compact.modules.layout import Axes, entries, length
from karui.compact.modules.parameters import KINDS, TORCH, axes_of, sizes_of, skips_of
from karui.compact.reach import never_active, without_idle_gates
from karui.runtime.format import Direction, RecurrentLayer

_ONE_FOR_BOTH = frozenset({"input", "rank"})  # labels that both directions share
Key = tuple[str, str]


class Cell:
    """One layer, all its directions. `weights` and `atoms` have a name and the direction's suffix as their keys."""

    def __init__(self, module: Any, layer: int, atoms: Atoms, inputs: np.ndarray) -> None:
        """Copy the weights, and make an atom of everything that can be removed; `inputs` (I,) are those below."""
        self.module, self.layer, self.kind = module, layer, KINDS[type(module)]
        self.suffixes = ("", "_reverse") if module.bidirectional else ("",)
        self.sizes = sizes_of(module, layer, len(inputs))
        own, both = axes_of(module, layer, self.kind)
        self.axes: dict[Key, Axes] = {(n, s): axes for n, axes in own.items() for s in self.suffixes}
        self.axes |= {(n, ""): axes for n, axes in both.items()}
        self.weights = {key: self._weight(*key) for key in self.axes}
        labels = {part for axes in self.axes.values() for axis in axes for block in axis for part in block}
        self.labels = [label for label in labels if isinstance(label, str) and label not in _ONE_FOR_BOTH]
        self.atoms: dict[Key, np.ndarray] = {("input", ""): inputs}
        if "rank" in labels:
            self.atoms["rank", ""] = atoms.new(self.sizes["rank"])
        for label in sorted(self.labels):
            self.atoms |= {(label, suffix): atoms.new(self.sizes[label]) for suffix in self.suffixes}
        self.input_reads: list[tuple[np.ndarray, np.ndarray]] = []
        """(atoms of rows, which inputs each reads)."""
        self.skips: dict[str, np.ndarray] = skips_of(module, layer, self.kind, self.suffixes)
        """Input (H,) that the highway adds to each unit, by direction; empty without."""
        self.whole_input = False
        """Whether something else than the matrices looks at the input."""
        self._keep_together(atoms)

    def _weight(self, name: str, suffix: str) -> np.ndarray:
        found = array(getattr(self.module, f"{name}_l{self.layer}{suffix}", None))
        return np.zeros([length(a, self.sizes) for a in self.axes[name, suffix]]) if found is None else found

    def _keep_together(self, atoms: Atoms) -> None:
        """A norm needs all that it averages over; what directions share keeps them the same size."""
        norm = self.module.layer_norm if type(self.module) not in {nn.LSTM, nn.GRU} else None
        pinned = {"pre": "input", "post": self.out if self.kind in TORCH else "unit"}.get(norm or "")
        if pinned is not None:
            self.pin(atoms, pinned)
        if self.kind == "srupp":
            self.pin(atoms, "rank")
        if len(self.suffixes) == 2 and (norm is not None or ("rank", "") in self.atoms):
            for label in self.labels:
                atoms.merge(*(self.atoms[label, suffix] for suffix in self.suffixes))

    def pin(self, atoms: Atoms, label: str | None = None) -> None:
        """Keep all things of a label, or of all labels."""
        self.whole_input |= label in {None, "input"}
        for (name, _), found in self.atoms.items():
            if label in {None, name}:
                atoms.pin(found)

    @property
    def out(self) -> str:
        """The label of what the layer gives."""
        return "out" if self.module.proj_size else "unit"

    def of(self, label: str, suffix: str) -> np.ndarray:
        """Atoms of a label in a direction."""
        return self.atoms[label, "" if label in _ONE_FOR_BOTH else suffix]

    def outputs(self) -> np.ndarray:
        """(D*P,) atoms of the output's features."""
        return np.concatenate([self.of(self.out, suffix) for suffix in self.suffixes])

    def settle(self, atoms: Atoms, const: np.ndarray, *, starts_from_zero: bool) -> np.ndarray:
        """Take in constant inputs (I,), clear what does nothing, note who reads whom.

        Returns the value of each feature of the output (D*P,) that never changes, NaN for the others.
        """
        norm = getattr(self.module, "layer_norm", None)
        if norm == "pre":
            const = np.full(len(const), np.nan)
        found = []
        for suffix in self.suffixes:
            for weight, bias in self._input_weights(suffix):
                known = const == 0.0 if bias is None else ~np.isnan(const)
                if bias is not None:
                    bias += weight[:, known] @ const[known]
                weight[:, known] = 0.0
            if ("rank", "") in self.atoms and self.kind == "sru":
                idle = ~self.weights["weight_rank", ""].any(axis=1)
                self.weights["weight_ih", suffix][:, idle] = 0.0
            units = _RULES[self.kind](self, suffix, const, starts_from_zero)
            if norm == "post" and self.kind not in TORCH:
                units = np.full(len(units), np.nan)
            if self.module.proj_size:
                through = self.weights["weight_hr", suffix]
                through[:, units == 0.0] = 0.0
                units = np.where(through.any(axis=1), np.nan, 0.0)
            found.append(np.full(len(units), np.nan) if norm == "post" else units)
        self._note(atoms, const)
        return np.concatenate(found)

    def _input_weights(self, suffix: str) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Views (R, I) of what multiplies the input, and the bias (R,) that can take a constant over."""
        inputs, weights, has_bias = self.sizes["input"], self.weights, self.module.bias
        if self.kind == "srupp" or ("rank", "") in self.atoms:
            yield weights["weight_rank", ""], None
            return
        weight = weights["weight_ih", suffix]
        bias = "bias_phi" if self.kind == "statistical" else "bias_ih"
        takes = has_bias and self.kind != "sru"
        yield weight[:, :inputs], weights[bias, suffix] if takes else None
        if weight.shape[1] > inputs:  # before the first input a window holds zeros
            yield weight[:, inputs:], None
        if getattr(self.module, "include_input", False):
            yield weights["weight_o", suffix][:, -inputs:], weights["bias_o", suffix] if has_bias else None

    def _note(self, atoms: Atoms, const: np.ndarray) -> None:
        for (name, suffix), axes in self.axes.items():
            if len(axes) == 2:
                for reader, read, matrix in entries(self.weights[name, suffix], axes, self.sizes):
                    self._read(atoms, self.of(reader, suffix), read, suffix, matrix)
        for suffix, skip in self.skips.items():
            matrix = np.zeros((len(skip), self.sizes["input"]), bool)
            matrix[np.arange(len(skip)), skip] = const[skip] != 0.0
            self._read(atoms, self.of("unit", suffix), "input", suffix, matrix)

    def _read(self, atoms: Atoms, readers: np.ndarray, read: str, suffix: str, matrix: np.ndarray) -> None:
        atoms.reads(readers, self.of(read, suffix), matrix)
        if read == "input":
            self.input_reads.append((readers, matrix))

    def described(self, suffix: str, **arrays: Any) -> tuple[RecurrentLayer, Direction]:
        """The direction as the artifact describes it; `arrays` replace those that have the same names there."""
        module, weights = self.module, self.weights
        names = ("weight_ih", "weight_hh", "weight_c", "weight_r", "weight_phi")
        found: dict[str, Any] = {name: weights.get((name, suffix)) for name in names} | arrays
        if "bias" not in found:
            found["bias"] = weights["bias_ih", suffix]
        direction = Direction(**found)
        options = {name: getattr(module, name) for name in ("activation", "window") if hasattr(module, name)}
        gate = getattr(module, "output_gate", True)
        kind = "sru" if self.kind == "srupp" else self.kind
        return RecurrentLayer(kind, [direction], output_gate=gate, **options), direction


# What is silent in a direction: each clears what does nothing, in place, and gives the units' constants (H,).


def _torch_rule(cell: Cell, suffix: str, const: np.ndarray, starts_from_zero: bool) -> np.ndarray:  # noqa: ARG001
    weights = cell.weights
    recurrent, through = weights["weight_hh", suffix], weights.get(("weight_hr", suffix))
    b_ih, b_hh = weights["bias_ih", suffix], weights["bias_hh", suffix]
    H = cell.sizes["unit"]
    # an LSTM's candidate reads the sum of both biases, a GRU's keeps them apart
    bias = b_ih + b_hh if cell.kind == "lstm" else np.concatenate([b_ih + b_hh, b_hh[2 * H :]])
    if cell.kind == "gru":
        bias[2 * H : 3 * H] = b_ih[2 * H :]
    whole = recurrent if through is None else np.abs(recurrent) @ np.abs(through)
    layer, direction = cell.described(suffix, bias=bias, weight_hh=whole)
    silent = never_active(layer, direction) if starts_from_zero else np.zeros(H, bool)
    if through is None:
        recurrent[:, silent] = 0.0
    if cell.kind == "gru":
        without_idle_gates(layer, direction)
    return np.where(silent, 0.0, np.nan)


def _sru_rule(cell: Cell, suffix: str, const: np.ndarray, starts_from_zero: bool) -> np.ndarray:
    """The artifact has four blocks always: here only where they are zero counts."""
    H, weight = cell.sizes["unit"], cell.weights["weight_ih", suffix]
    if not starts_from_zero:
        return np.full(H, np.nan)
    four = weight
    if len(weight) == 3 * H:
        four = np.concatenate([weight, np.zeros((H, weight.shape[1]))])
        if suffix in cell.skips:
            four[3 * H :] = (const[cell.skips[suffix]] != 0.0)[:, None]
    weight_c = cell.weights.get(("weight_c", suffix), np.zeros(2 * H))
    layer, direction = cell.described(
        suffix, weight_ih=four, weight_c=weight_c, bias=cell.weights["bias", suffix]
    )
    silent = never_active(layer, direction)
    without_idle_gates(layer, direction)
    weight[:] = four[: len(weight)]
    return np.where(silent, 0.0, np.nan)


def _input_gates_rule(cell: Cell, suffix: str, const: np.ndarray, starts_from_zero: bool) -> np.ndarray:  # noqa: ARG001
    silent = never_active(*cell.described(suffix))
    return np.where(silent & starts_from_zero, 0.0, np.nan)


def _statistical_rule(cell: Cell, suffix: str, const: np.ndarray, starts_from_zero: bool) -> np.ndarray:  # noqa: ARG001
    module, weights, sizes = cell.module, cell.weights, cell.sizes
    states = sizes["scale"] * sizes["stat"]
    names = [name for name in ("bias_phi", "bias_r", "bias_o") if (name, suffix) in weights]
    arrays: dict[str, Any] = {
        "bias": np.concatenate([weights[name, suffix] for name in names]),
        "weight_o": weights["weight_o", suffix][:, :states],
        "alphas": array(module.decays(cell.layer, suffix, torch.zeros((), dtype=torch.float64))),
    }
    if not sizes["recur"]:
        arrays |= {"weight_r": np.zeros((0, states)), "weight_phi": np.zeros((sizes["stat"], 0))}
    layer, direction = cell.described(suffix, **arrays)
    if starts_from_zero:
        statistics.forget_silent(direction, layer.activation)
    statistics.fold_constants(direction, layer.activation)
    found = statistics.constant_outputs(direction, "identity" if module.linear_output else layer.activation)
    if module.include_input:
        found[weights["weight_o", suffix][:, states:].any(axis=1)] = np.nan
    start = 0
    for name in names:
        target = weights[name, suffix]
        target[:] = direction.bias[start : start + len(target)]
        start += len(target)
    return found


_RULES = {
    "lstm": _torch_rule,
    "gru": _torch_rule,
    "sru": _sru_rule,
    "srupp": _sru_rule,
    "qrnn": _input_gates_rule,
    "mingru": _input_gates_rule,
    "statistical": _statistical_rule,
}
