"""Constants of a description that a bias or a weight can take over: fewer numbers, the same answers."""

import numpy as np

from karui.compact import statistics
from karui.compact.reach import constant_output_gate, gate_rows
from karui.runtime.format import ClassifierSpec


def pooled_copies(spec: ClassifierSpec) -> int:
    """How often a feature of the last layer appears among the pooled ones."""
    return 2 if spec.pooling == "mean+max" else 1


def fold_constants(spec: ClassifierSpec) -> None:
    """Fold, in place, recurrent units of statistics, constant output gates, and constant outputs of the last layer."""
    for k, layer in enumerate(spec.layers):
        if layer.kind == "statistical":
            for direction in layer.directions:
                statistics.fold_constants(direction, layer.activation)
        factors = constant_output_gate(layer)
        if factors is not None:
            _scale_readers(spec, k + 1, factors)
            for direction in layer.directions:
                rows, bias = gate_rows(layer, direction)
                direction.weight_ih = rows[:2].reshape(-1, rows.shape[2]).copy()
                direction.bias = bias[:2].reshape(-1).copy()
            layer.output_gate = False
    if spec.layers and spec.layers[-1].kind == "statistical":
        layer = spec.layers[-1]
        values = np.concatenate([statistics.constant_outputs(d, layer.activation) for d in layer.directions])
        constant = np.flatnonzero(np.tile(~np.isnan(values), pooled_copies(spec)))
        read = spec.output_weight[:, constant].astype(np.float64)
        spec.output_bias += (read @ np.tile(values, pooled_copies(spec))[constant]).astype(np.float32)
        spec.output_weight[:, constant] = 0.0


def _scale_readers(spec: ClassifierSpec, k: int, factors: np.ndarray) -> None:
    """Multiply the weights with which layer k, or the output, reads each feature (D*H,) by its factor."""
    if k == len(spec.layers):
        scaled = spec.output_weight * np.tile(factors, pooled_copies(spec))
        spec.output_weight = scaled.astype(np.float32)
        return
    for direction in spec.layers[k].directions:
        scaled = direction.weight_ih * np.tile(factors, spec.layers[k].window)
        direction.weight_ih = scaled.astype(np.float32)
