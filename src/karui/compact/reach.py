"""What a recurrent layer can say, and to whom.

Units that are zero for ever, gates that act on nothing, units that are read.

H units of a direction, I inputs, G gate blocks; row g * H + j of a weight belongs to gate g of unit j.
"""

import numpy as np

from karui.runtime.format import Direction, RecurrentLayer

# Gate blocks in the order of the rows.
SRU_CANDIDATE, SRU_FORGET, SRU_RESET, SRU_SKIP = range(4)
LSTM_CANDIDATE = 2  # i, f, g, o
GRU_RESET, GRU_CANDIDATE = 0, 2  # r, z, n
GRU_HIDDEN_BIAS = 3  # biases r, z, n of the input, n of the hidden product


WEIGHT_BLOCKS = {"sru": 4, "lstm": 4, "gru": 3}
BIAS_BLOCKS = {"sru": 2, "lstm": 4, "gru": 4}


def blocks(array: np.ndarray, count: int) -> np.ndarray:
    """View a contiguous (count*H, ...) as (count, H, ...)."""
    assert array.flags.c_contiguous, "reshape would copy, and what is written into the copy would be lost"
    return array.reshape(count, len(array) // count, *array.shape[1:])


def never_active(kind: str, direction: Direction) -> np.ndarray:
    """(H,) boolean: the unit's output is exactly 0 at every step of every text.

    All states start at zero. A unit stays there if its candidate has no bias and reads no input (columns known
    to be zero must be cleared before) and no unit outside the silent set: the largest such set holds by
    induction over time.
    """
    rows, bias = blocks(direction.weight_ih, WEIGHT_BLOCKS[kind]), blocks(direction.bias, BIAS_BLOCKS[kind])
    if kind == "sru":  # c' = f c + (1 - f) u_c and h = r g(c') + (1 - r) u_skip, both without bias
        return ~(rows[SRU_CANDIDATE].any(axis=1) | rows[SRU_SKIP].any(axis=1))
    assert direction.weight_hh is not None
    recurrent = blocks(direction.weight_hh, WEIGHT_BLOCKS[kind])
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


def without_idle_gates(kind: str, direction: Direction) -> None:
    """Set to zero, in place, the weights and biases of gates that only ever multiply zeros."""
    rows, bias = blocks(direction.weight_ih, WEIGHT_BLOCKS[kind]), blocks(direction.bias, BIAS_BLOCKS[kind])
    if kind == "sru":
        # no candidate: the cell stays 0, its forget gate and both reads of it do nothing
        idle = ~rows[SRU_CANDIDATE].any(axis=1)
        rows[SRU_FORGET, idle] = 0.0
        bias[SRU_FORGET - 1, idle] = 0.0  # biases and weight_c have no row for the candidate
        assert direction.weight_c is not None
        blocks(direction.weight_c, 2)[:, idle] = 0.0
    elif kind == "gru":
        assert direction.weight_hh is not None
        recurrent = blocks(direction.weight_hh, WEIGHT_BLOCKS[kind])
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
    for direction in layer.directions:
        H = len(direction.bias) // BIAS_BLOCKS[layer.kind]
        units = read[start : start + H]
        if direction.weight_hh is not None:
            recurrent = blocks(direction.weight_hh, WEIGHT_BLOCKS[layer.kind])
            units = reachable(units, (recurrent != 0).any(axis=0))  # edges[reader, read]
        live.append(units)
        start += H
    return live
