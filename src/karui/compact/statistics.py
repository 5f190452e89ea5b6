"""What of a Statistical Recurrent Unit can be left out without changing an answer.

r = f(W_r m + b_r); phi = f(W_ih x + W_phi r + b_phi); m_alpha = alpha m_alpha + (1 - alpha) phi; h = f(W_o m + b_o),
with m = 0 at first. P statistics, A scales, R recurrent units, H outputs; columns of m scale by scale.
"""

from dataclasses import replace

import numpy as np

from karui.runtime.format import Direction


def weights(direction: Direction) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """weight_r (R, A*P), weight_phi (P, R), weight_o (H, A*P), alphas (A,)."""
    r, phi, o, alphas = direction.weight_r, direction.weight_phi, direction.weight_o, direction.alphas
    assert r is not None
    assert phi is not None
    assert o is not None
    assert alphas is not None
    return r, phi, o, alphas


def biases(direction: Direction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the bias: phi (P,), r (R,), o (H,)."""
    r, phi, _, _ = weights(direction)
    P, R = len(phi), len(r)
    return direction.bias[:P], direction.bias[P : P + R], direction.bias[P + R :]


def activate(x: np.ndarray, activation: str) -> np.ndarray:
    """f of numbers, in float64."""
    x = x.astype(np.float64)
    if activation == "elu":
        return np.where(x < 0, np.expm1(np.minimum(x, 0.0)), x)
    return {"identity": x, "tanh": np.tanh(x), "relu": np.maximum(x, 0.0)}[activation]


def silent_statistics(direction: Direction, activation: str) -> tuple[np.ndarray, np.ndarray]:
    """(A*P,) and (R,) boolean: the statistic, the recurrent unit, is exactly 0 at every step of every text.

    A phi is if it reads no input and only silent r, and f(bias) = 0; an r if it reads only silent statistics, and
    f(bias) = 0: the largest such sets, by induction over time. A scale of 1 never takes anything in.
    """
    weight_r, weight_phi, _, alphas = weights(direction)
    b_phi, b_r, _ = biases(direction)
    driven = direction.weight_ih.any(axis=1) | (activate(b_phi, activation) != 0)
    r_active, count = activate(b_r, activation) != 0, -1
    states = np.zeros(weight_r.shape[1], bool)
    while count != (count := int(r_active.sum() + states.sum())):
        phi_active = driven | weight_phi[:, r_active].any(axis=1)
        states = np.outer(alphas != 1, phi_active).ravel()
        r_active = r_active | weight_r[:, states].any(axis=1)
    return ~states, ~r_active


def silent_outputs(direction: Direction, activation: str) -> np.ndarray:
    """(H,) boolean: the output is exactly 0 at every step of every text."""
    silent, _ = silent_statistics(direction, activation)
    _, _, weight_o, _ = weights(direction)
    return ~weight_o[:, ~silent].any(axis=1) & (activate(biases(direction)[2], activation) == 0)


def forget_silent(direction: Direction, activation: str) -> None:
    """Clear, in place, all weights that read something that is always 0."""
    weight_r, weight_phi, weight_o, _ = weights(direction)
    states, r = silent_statistics(direction, activation)
    weight_r[:, states] = 0.0
    weight_o[:, states] = 0.0
    weight_phi[:, r] = 0.0


def fold_constants(direction: Direction, activation: str) -> None:
    """In place: an r that reads nothing is f(b_r) at every step, so it becomes part of the bias of phi."""
    weight_r, weight_phi, _, _ = weights(direction)
    b_phi, b_r, _ = biases(direction)
    constant = ~weight_r.any(axis=1)
    values = activate(b_r[constant], activation)
    b_phi[:] = b_phi + weight_phi[:, constant].astype(np.float64) @ values
    weight_phi[:, constant] = 0.0


def constant_outputs(direction: Direction, activation: str) -> np.ndarray:
    """(H,) value of each output that reads no statistic, f(b_o); NaN for the others."""
    _, _, weight_o, _ = weights(direction)
    return np.where(weight_o.any(axis=1), np.nan, activate(biases(direction)[2], activation))


def keep_outputs(direction: Direction, units: np.ndarray) -> Direction:
    """Keep the outputs where `units` (H,) is True, and the statistics, scales and recurrent units they depend on."""
    weight_r, weight_phi, weight_o, alphas = weights(direction)
    b_phi, b_r, b_o = biases(direction)
    weight_o = weight_o[units]
    read, count = weight_o.any(axis=0), -1
    recur, stats = np.zeros(len(weight_r), bool), np.zeros(len(weight_phi), bool)
    while count != (count := int(read.sum() + recur.sum() + stats.sum())):
        stats = np.asarray(read.reshape(len(alphas), -1).any(axis=0)) if len(alphas) else stats
        recur = weight_phi[stats].any(axis=0)
        read = read | weight_r[recur].any(axis=0)
    scales = read.reshape(len(alphas), len(stats)).any(axis=1)
    states = np.outer(scales, stats).ravel()
    return replace(
        direction,
        weight_ih=direction.weight_ih[stats],
        weight_r=np.ascontiguousarray(weight_r[recur][:, states]),
        weight_phi=np.ascontiguousarray(weight_phi[stats][:, recur]),
        weight_o=np.ascontiguousarray(weight_o[:, states]),
        alphas=alphas[scales],
        bias=np.concatenate([b_phi[stats], b_r[recur], b_o[units]]),
    )
