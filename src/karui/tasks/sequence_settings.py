"""Settings of the sequence tasks (pixels, music, adding, copy). Plain values: importing this file imports no torch."""

from dataclasses import dataclass
from typing import Any, Literal

LayerName = Literal["sru", "statistical-ru", "lstm", "gru", "qrnn", "mingru"]
MusicName = Literal["jsb", "nottingham", "piano-midi", "musedata"]
LayerNormName = Literal["none", "pre", "post"]
SruActivation = Literal["identity", "tanh", "relu"]

ALPHAS_DEFAULT = (0.0, 0.25, 0.5, 0.9, 0.99)
"""The scales of the authors' code."""

ALPHAS_LONG = (0.0, 0.5, 0.9, 0.99, 0.999)
"""The scales of the paper's figure on MNIST; 0.999 still holds 46 % of the first of 784 steps at the last."""


@dataclass(frozen=True, kw_only=True)
class LayerSettings:
    """One recurrent layer (or a stack), its size, and the options of each kind; a kind reads its own only."""

    recurrent: LayerName = "sru"
    """Recurrent layer; statistical-ru is the Statistical, sru the Simple Recurrent Unit."""

    hidden_size: int = 64
    """Units of a layer."""

    num_layers: int = 1
    """Stacked layers."""

    dropout: float = 0.0
    """Dropout between stacked layers and before the output."""

    recurrent_dropout: float = 0.0
    """Dropout on the input of a layer's large matrix product, one mask a sequence."""

    layer_norm: LayerNormName = "none"
    """Layer normalisation before or after a layer."""

    gate_bias: float | None = None
    """First bias of the gate that keeps the state (LSTM and SRU forget, GRU update); none: the layer's own."""

    activation: SruActivation = "identity"
    """sru: what it applies to its state."""

    highway_bias: float = 0.0
    """sru: first bias of the reset gate; below zero the input passes by the state."""

    rescale: bool = True
    """sru: scale the skip so that the variance stays level from layer to layer."""

    num_stats: int = 64
    """statistical-ru: width of the statistics at each scale."""

    recur_size: int = 16
    """statistical-ru: width of the feedback from the statistics; 0 leaves it out (iid, multi)."""

    alphas: tuple[float, ...] = ALPHAS_DEFAULT
    """statistical-ru: the decay of each scale; one value alone is the ablation of the scales (iid, recur)."""

    learn_alphas: bool = False
    """statistical-ru: train the scales too."""

    window: int = 1
    """qrnn: inputs a step reads, itself and those before it."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers", "num_stats"):
            _check(name, getattr(self, name), ">= 1", getattr(self, name) >= 1)
        for name in ("dropout", "recurrent_dropout"):
            _check(name, getattr(self, name), "in [0, 1)", 0 <= getattr(self, name) < 1)
        _check("recur_size", self.recur_size, ">= 0", self.recur_size >= 0)
        _check("alphas", self.alphas, "numbers in [0, 1], at least one", _are_alphas(self.alphas))
        _check("window", self.window, "1 or 2", self.window in (1, 2))

    def options(self) -> dict[str, Any]:
        """What the constructor of this kind of layer takes beyond sizes and dropout; shared defaults are left out."""
        own: dict[str, Any] = {
            "sru": {
                "activation": self.activation,
                "highway_bias": self.highway_bias,
                "rescale": self.rescale,
            },
            "statistical-ru": {
                "num_stats": self.num_stats,
                "recur_size": self.recur_size,
                "alphas": self.alphas,
                "learn_alphas": self.learn_alphas,
            },
            "qrnn": {"window": self.window},
            "mingru": {} if self.gate_bias is None else {"bias": True},  # published without
        }.get(self.recurrent, {})
        if self.recurrent_dropout:
            own = {**own, "recurrent_dropout": self.recurrent_dropout}
        return own if self.layer_norm == "none" else {**own, "layer_norm": self.layer_norm}


@dataclass(frozen=True, kw_only=True)
class PixelData:
    """Images read pixel by pixel."""

    name: Literal["mnist"] = "mnist"
    """The images."""

    side: int = 28
    """28: every pixel, 784 steps; 14: means of 2 by 2 pixels, 196 steps."""

    permuted: bool = False
    """Read the pixels in one fixed random order instead of line by line."""

    batch_size: int = 128
    """Images in a batch."""

    valid_examples: int = 6000
    """Training images kept for validation."""

    split_seed: int = 0
    """Seed of that split; the same for every run, so that runs can be compared."""

    limit: int = 0
    """Training images used, for short trials; 0 = all."""

    def __post_init__(self) -> None:
        _check_counts(self, "batch_size", "valid_examples")
        _check("side", self.side, "28 or 14", self.side in (28, 14))
        _check("limit", self.limit, ">= 0", self.limit >= 0)
        _check("valid_examples", self.valid_examples, "below 60000", self.valid_examples < 60000)


@dataclass(frozen=True, kw_only=True)
class MusicData:
    """Sequences of chords: the notes of the next step from those before it."""

    name: MusicName = "jsb"
    """The collection."""

    batch_size: int = 8
    """Pieces in a batch."""

    piece_steps: int = 0
    """Training sequences are cut into pieces of this many steps, each from a zero state; 0 = whole. Validation and
    test never cut."""

    limit: int = 0
    """Training sequences used, for short trials; 0 = all."""

    def __post_init__(self) -> None:
        _check_counts(self, "batch_size")
        for name in ("limit", "piece_steps"):
            _check(name, getattr(self, name), ">= 0", getattr(self, name) >= 0)
        _check("piece_steps", self.piece_steps, "0 or at least 2", self.piece_steps != 1)


@dataclass(frozen=True, kw_only=True)
class AddingData:
    """The adding problem: the sum of two marked numbers among many."""

    name: Literal["adding"] = "adding"
    """The problem."""

    steps: int = 200
    """Length of a sequence."""

    batch_size: int = 50
    """Sequences in a batch."""

    examples: int = 10_000
    """Training sequences an epoch; every epoch has new ones."""

    heldout_examples: int = 1000
    """Sequences for validation, and as many for the test."""

    def __post_init__(self) -> None:
        _check_counts(self, "batch_size", "examples", "heldout_examples")
        _check("steps", self.steps, ">= 2", self.steps >= 2)


@dataclass(frozen=True, kw_only=True)
class CopyData:
    """The copy problem: ten symbols, a delay, the same ten symbols."""

    name: Literal["copy"] = "copy"
    """The problem."""

    delay: int = 100
    """Steps between the last symbol to remember and the first answer."""

    batch_size: int = 50
    """Sequences in a batch."""

    examples: int = 10_000
    """Training sequences an epoch; every epoch has new ones."""

    heldout_examples: int = 1000
    """Sequences for validation, and as many for the test."""

    def __post_init__(self) -> None:
        _check_counts(self, "delay", "batch_size", "examples", "heldout_examples")


def _are_alphas(alphas: tuple[float, ...]) -> bool:
    return bool(alphas) and all(0 <= alpha <= 1 for alpha in alphas)


def _check_counts(settings: Any, *names: str) -> None:
    for name in names:
        _check(name, getattr(settings, name), ">= 1", getattr(settings, name) >= 1)


def _check(name: str, value: object, expectation: str, is_met: bool) -> None:
    if not is_met:
        raise ValueError(f"{name} must be {expectation}, got {value!r}")
