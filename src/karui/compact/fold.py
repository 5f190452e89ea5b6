"""Constants of a layer that a bias or a weight can take over: fewer numbers, the same answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from karui.compact import statistics
from karui.compact.reach import constant_output_gate, gate_rows
from karui.runtime.format import RecurrentLayer

if TYPE_CHECKING:
    from karui.compact.stack import Reads


def fold_layer(layer: RecurrentLayer, readers: "Sequence[Reads]") -> None:
    """Fold, in place, recurrent units of statistics, constant outputs of these, and constant output gates.

    readers: all that read the layer's outputs; they take the constants over where they can.
    """
    if layer.kind == "statistical":
        for direction in layer.directions:
            statistics.fold_constants(direction, layer.activation)
        if all(reader.can_shift for reader in readers):
            outputs = [statistics.constant_outputs(d, layer.activation) for d in layer.directions]
            for reader in readers:
                reader.shift(np.concatenate(outputs))
            for direction, values in zip(layer.directions, outputs, strict=True):
                statistics.biases(direction)[2][~np.isnan(values)] = (
                    0.0  # f(0) is 0: nothing is taken over twice
                )
    factors = constant_output_gate(layer)
    if factors is not None and all(reader.can_scale for reader in readers):
        for reader in readers:
            reader.scale(factors)
        for direction in layer.directions:
            rows, bias = gate_rows(layer, direction)
            direction.weight_ih = rows[:2].reshape(-1, rows.shape[2]).copy()
            direction.bias = bias[:2].reshape(-1).copy()
        layer.output_gate = False
