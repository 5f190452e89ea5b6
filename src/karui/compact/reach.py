"""What a recurrent layer can say, and to whom.

Units that are zero for ever, gates that act on nothing, units that are read.

H units of a direction, I inputs, G gate blocks; row g * H + j of a weight belongs to gate g of unit j.
"""

import numpy as np

from karui.compact import statistics
from karui.runtime.format import Direction, RecurrentLayer, bias_blocks, weight_blocks

# Gate blocks in the order of the rows.
SRU_CANDIDATE, SRU_FORGET, SRU_RESET, SRU_SKIP = range(4)
LSTM_CANDIDATE = 2  # i, f, g, o
GRU_RESET, GRU_CANDIDATE = 0, 2  # r, z, n
GRU_HIDDEN_BIAS = 3  # biases r, z, n of the input, n of the hidden product
QRNN_CANDIDATE, QRNN_OUTPUT = 0, 2  # candidate, forget, output


def blocks(array: np.ndarray, count: int) -> np.ndarray:
    """View a contiguous (count*H, ...) as (count, H, ...)."""
    assert array.flags.c_contiguous, "reshape would copy, and what is written into the copy would be lost"
    return array.reshape(count, len(array) // count, *array.shape[1:])


def gate_rows(layer: RecurrentLayer, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
    """Views of weight_ih (G, H, I) and bias (G', H) by gate; for any kind but `statistical`."""
    rows = blocks(direction.weight_ih, weight_blocks(layer.kind, output_gate=layer.output_gate))
    return rows, blocks(direction.bias, bias_blocks(layer.kind, output_gate=layer.output_gate))


def never_active(layer: RecurrentLayer, direction: Direction) -> np.ndarray:
    """(H,) boolean: the unit's output is exactly 0 at every step of every text.

    All states start at zero. A unit stays there if its candidate has no bias and reads no input (columns known
    to be zero must be cleared before) and no unit outside the silent set: the largest such set holds by
    induction over time. minGRU's candidate g is positive everywhere, so its units never stay there.
    """
    kind = layer.kind
    if kind == "statistical":
        return statistics.silent_outputs(direction, layer.activation)
    rows, bias = gate_rows(layer, direction)
    if kind == "mingru":
        return np.zeros(rows.shape[1], bool)
    if kind == "qrnn":  # c' = f c + (1 - f) tanh(z), h = o c'
        return ~(rows[QRNN_CANDIDATE].any(axis=1) | (bias[QRNN_CANDIDATE] != 0))
    if kind == "sru":  # c' = f c + (1 - f) u_c and h = r g(c') + (1 - r) u_skip, both without bias; g(0) = 0
        return ~(rows[SRU_CANDIDATE].any(axis=1) | rows[SRU_SKIP].any(axis=1))
    assert direction.weight_hh is not None
    recurrent = blocks(direction.weight_hh, weight_blocks(kind))
    if kind == "lstm":  # c' = f c + i tanh(a_g), h = o tanh(c')
        driven = rows[LSTM_CANDIDATE].any(axis=1) | (bias[LSTM_CANDIDATE] != 0)
        reads = recurrent[LSTM_CANDIDATE] != 0
    else:  # h' = (1 - z) tanh(a_n + r (W_hn h + b_hn)) + z h
        driven = rows[GRU_CANDIDATE].any(axis=1) | (bias[GRU_CANDIDATE] != 0) | (bias[GRU_HIDDEN_BIAS] != 0)
        reads = recurrent[GRU_CANDIDATE] != 0
    return ~reachable(driven, reads.T)


def reachable(start: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Smallest set (H,) that holds `start` (H,) and with u every v where edges[u, v] (H, H)."""
    found = start.copy()
    while True:
        more = found | edges[found].any(axis=0)
        if (more == found).all():
            return found
        found = more


def without_idle_gates(layer: RecurrentLayer, direction: Direction) -> None:
    """Set to zero, in place, the weights and biases of gates that only ever multiply zeros."""
    if layer.kind == "statistical":
        statistics.forget_silent(direction, layer.activation)
        return
    rows, bias = gate_rows(layer, direction)
    if layer.kind == "sru":
        # no candidate: the cell stays 0, its forget gate and both reads of it do nothing
        idle = ~rows[SRU_CANDIDATE].any(axis=1)
        rows[SRU_FORGET, idle] = 0.0
        bias[SRU_FORGET - 1, idle] = 0.0  # biases and weight_c have no row for the candidate
        assert direction.weight_c is not None
        blocks(direction.weight_c, 2)[:, idle] = 0.0
    elif layer.kind == "gru":
        assert direction.weight_hh is not None
        recurrent = blocks(direction.weight_hh, weight_blocks("gru"))
        # r scales W_hn h + b_hn alone
        idle = ~recurrent[GRU_CANDIDATE].any(axis=1) & (bias[GRU_HIDDEN_BIAS] == 0)
        rows[GRU_RESET, idle] = 0.0
        recurrent[GRU_RESET, idle] = 0.0
        bias[GRU_RESET, idle] = 0.0


def live_units(layer: RecurrentLayer, read: np.ndarray) -> list[np.ndarray]:
    """For each direction (H,) boolean: something downstream, or a live unit of the direction, reads it.

    read: (D*H,) boolean, which outputs of the layer something downstream multiplies by a non-zero weight.
    """
    live, start = [], 0
    for direction, H in zip(layer.directions, layer.hidden_sizes, strict=True):
        units = read[start : start + H]
        if direction.weight_hh is not None:
            recurrent = blocks(direction.weight_hh, weight_blocks(layer.kind))
            units = reachable(units, (recurrent != 0).any(axis=0))  # edges[reader, read]
        live.append(units)
        start += H
    return live


def constant_output_gate(layer: RecurrentLayer) -> np.ndarray | None:
    """What each output of a QRNN (D*H,) is multiplied by, where no output gate reads any input; else None.

    h = sigmoid(b) c is then a positive multiple of c, which means, maxima and every reader pass on.
    """
    if layer.kind != "qrnn" or not layer.output_gate:
        return None
    factors = []
    for direction in layer.directions:
        rows, bias = gate_rows(layer, direction)
        if rows[QRNN_OUTPUT].any():
            return None
        factors.append(np.exp(-np.logaddexp(0.0, -bias[QRNN_OUTPUT].astype(np.float64))))  # sigmoid
    return np.concatenate(factors)
