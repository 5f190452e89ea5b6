"""Recurrent layers of an artifact: their kinds, weights, and the sizes that decide the shapes (docs/format.md).

I inputs of a layer, H hidden units of one direction; of a Statistical Recurrent Unit P statistics, A scales,
R recurrent units; of a QRNN W the window (1 or 2 inputs).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Kind: its number in the file, blocks of H rows in weight_ih and in bias, activations.
CODES = {"sru": 0, "lstm": 1, "gru": 2, "statistical": 4, "qrnn": 5, "mingru": 6}
KINDS = tuple(CODES)
ACTIVATIONS = ("identity", "tanh", "relu", "elu")
KIND_ACTIVATIONS = {
    "sru": ACTIVATIONS[:3],
    "lstm": ACTIVATIONS[:2],  # without meaning: both were written from the first version on
    "gru": ACTIVATIONS[:2],
    "statistical": ACTIVATIONS,
    "qrnn": ACTIVATIONS[:1],
    "mingru": ACTIVATIONS[:1],
}
MAX_CODE = 63
MAX_ALPHAS = 64
MAX_STATISTICS = 65_535  # A * P, columns of a matrix
FIELDS = ("weight_ih", "weight_c", "weight_hh", "weight_r", "weight_phi", "weight_o", "bias")
_MATRICES = {
    "sru": ("weight_ih", "weight_c", "bias"),
    "lstm": ("weight_ih", "weight_hh", "bias"),
    "gru": ("weight_ih", "weight_hh", "bias"),
    "statistical": ("weight_ih", "weight_r", "weight_phi", "weight_o", "bias"),
    "qrnn": ("weight_ih", "bias"),
    "mingru": ("weight_ih", "bias"),
}


@dataclass
class Direction:
    """Weights of one direction of a layer, float32; see `RecurrentLayer` for shapes and gate order."""

    weight_ih: np.ndarray
    weight_hh: np.ndarray | None
    bias: np.ndarray
    weight_c: np.ndarray | None = None
    weight_r: np.ndarray | None = None
    weight_phi: np.ndarray | None = None
    weight_o: np.ndarray | None = None
    alphas: np.ndarray | None = None


@dataclass(frozen=True)
class DirectionOutline:
    """Sizes of one direction; the last three only of a Statistical Recurrent Unit."""

    hidden_size: int
    num_stats: int = 0
    recur_size: int = 0
    alphas: tuple[float, ...] = ()


@dataclass
class RecurrentLayer:
    """One or two directions over the same input; the second walks backward. Its output is [forward, reverse].

    lstm: weight_ih (4H, I), weight_hh (4H, H), bias (4H,) = b_ih + b_hh; gates i, f, g, o.
    gru: weight_ih (3H, I), weight_hh (3H, H), bias (4H,): r, z merged, then n of the input, n of the state;
    gates r, z, n.
    sru: weight_ih (4H, I): candidate, forget, reset, skip; weight_c (2H,): v_f, v_r; bias (2H,): b_f, b_r.
    statistical: weight_ih (P, I), weight_r (R, A*P), weight_phi (P, R), weight_o (H, A*P), bias (P + R + H,): phi,
    r, o; alphas (A,) in [0, 1]; columns of the statistics scale by scale.
    qrnn: weight_ih (3H, W*I) and bias (3H,): candidate, forget, output; newest input first; 2H without output_gate.
    mingru: weight_ih (2H, I) and bias (2H,): hidden, gate.
    """

    kind: str
    directions: list[Direction]
    activation: str = "identity"
    window: int = 1
    output_gate: bool = True

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """H of each direction."""
        blocks = bias_blocks(self.kind, output_gate=self.output_gate)
        return tuple(
            len(d.bias) // blocks if d.weight_o is None else len(d.weight_o) for d in self.directions
        )


@dataclass(frozen=True)
class LayerOutline:
    """Kind and sizes of a layer."""

    kind: str
    activation: str
    directions: tuple[DirectionOutline, ...]
    window: int = 1
    output_gate: bool = True

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """H of each direction."""
        return tuple(direction.hidden_size for direction in self.directions)

    @property
    def code(self) -> int:
        """Number of the layer in the file."""
        number, activation = CODES[self.kind], ACTIVATIONS.index(self.activation)
        two = len(self.directions) - 1
        return number & 3 | (activation & 1) << 2 | two << 3 | activation >> 1 << 4 | number >> 2 << 5

    def matrices(self, direction: int, inputs: int) -> Iterator[tuple[str, int, int]]:
        """Field, rows and columns of each matrix of a direction, in the order of the file; vectors are one column."""
        sizes = self.directions[direction]
        H, P, R = sizes.hidden_size, sizes.num_stats, sizes.recur_size
        states, rows = len(sizes.alphas) * P, weight_blocks(self.kind, output_gate=self.output_gate) * H
        shapes = {
            "weight_ih": (P if self.kind == "statistical" else rows, inputs * self.window),
            "weight_c": (2 * H, 1),
            "weight_hh": (rows, H),
            "weight_r": (R, states),
            "weight_phi": (P, R),
            "weight_o": (H, states),
            "bias": (bias_blocks(self.kind, output_gate=self.output_gate) * H + P + R, 1),
        }
        return ((name, *shapes[name]) for name in _MATRICES[self.kind])

    def size_problem(self) -> str | None:
        """Say what about the statistics is outside the limits of the format, or None."""
        for direction in self.directions:
            if len(direction.alphas) > MAX_ALPHAS:
                return f"{len(direction.alphas)} scales, at most {MAX_ALPHAS} are allowed"
            if not all(0.0 <= alpha <= 1.0 and not np.signbit(alpha) for alpha in direction.alphas):
                return f"a scale outside of 0 to 1: {direction.alphas}"
            if (states := len(direction.alphas) * direction.num_stats) > MAX_STATISTICS:
                return f"{states} statistics, at most {MAX_STATISTICS} are allowed"
        return None


def weight_blocks(kind: str, *, output_gate: bool = True) -> int:
    """Blocks of H rows of weight_ih; 0 for a Statistical Recurrent Unit, which has P rows."""
    return {"sru": 4, "lstm": 4, "gru": 3, "statistical": 0, "qrnn": 2 + output_gate, "mingru": 2}[kind]


def bias_blocks(kind: str, *, output_gate: bool = True) -> int:
    """Blocks of H values of bias; a Statistical Recurrent Unit has P + R values before its one."""
    return {"sru": 2, "lstm": 4, "gru": 4, "statistical": 1, "qrnn": 2 + output_gate, "mingru": 2}[kind]


def outline_of_layer(layer: RecurrentLayer) -> LayerOutline:
    """Kind and sizes of a layer that `layer_problem` finds no fault with."""
    directions = tuple(
        DirectionOutline(H)
        if d.weight_r is None or d.alphas is None
        else DirectionOutline(
            H, len(d.weight_ih), len(d.weight_r), tuple(np.asarray(d.alphas, np.float32).tolist())
        )
        for d, H in zip(layer.directions, layer.hidden_sizes, strict=True)
    )
    return LayerOutline(layer.kind, layer.activation, directions, layer.window, layer.output_gate)


def layer_problem(layer: RecurrentLayer) -> str | None:
    """Say what about the form of a layer does not fit its kind, or None; the shapes are checked elsewhere."""
    if layer.kind not in KINDS:
        return f"kind must be one of {KINDS}, got {layer.kind!r}"
    allowed = KIND_ACTIVATIONS[layer.kind]
    if layer.activation not in allowed:
        return f"activation must be one of {allowed}, got {layer.activation!r}"
    if len(layer.directions) not in (1, 2):
        return "a layer must have 1 or 2 directions"
    if layer.window not in ((1, 2) if layer.kind == "qrnn" else (1,)):
        return f"window is {layer.window}, only qrnn may have 2"
    if layer.kind != "qrnn" and not layer.output_gate:
        return f"{layer.kind} has no output gate to leave out"
    for direction in layer.directions:
        wanted, found = _MATRICES[layer.kind], [n for n in FIELDS if getattr(direction, n) is not None]
        if found != [name for name in FIELDS if name in wanted]:
            return f"{layer.kind} needs {', '.join(wanted)}, got {', '.join(found)}"
        if (layer.kind == "statistical") != (direction.alphas is not None):
            return f"{layer.kind} needs {'' if layer.kind == 'statistical' else 'no '}alphas"
        if direction.alphas is not None and direction.alphas.ndim != 1:
            return f"alphas must be a vector, got shape {direction.alphas.shape}"
    return None


def layer_from(outline: LayerOutline, arrays: list[dict[str, np.ndarray]]) -> RecurrentLayer:
    """Put the matrices of each direction back into a layer."""
    directions = []
    for sizes, fields in zip(outline.directions, arrays, strict=True):
        parts = {name: a.reshape(-1) if name in ("weight_c", "bias") else a for name, a in fields.items()}
        alphas = np.asarray(sizes.alphas, np.float32) if outline.kind == "statistical" else None
        directions.append(Direction(**{"weight_hh": None, **parts}, alphas=alphas))
    return RecurrentLayer(outline.kind, directions, outline.activation, outline.window, outline.output_gate)
