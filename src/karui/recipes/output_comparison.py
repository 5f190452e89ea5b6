"""The comparison of output layers: one recurrent model, one text, every method of `karui.output` in turn.

A row trains one method by the clock (`karui.train.timed`): short trials choose the learning rates, one run ends at
equal CPU time, one after equal numbers of tokens. The learning rates fall linearly to zero over each of them, so that
each figure is the end of a run of its own.
"""

from dataclasses import dataclass
from typing import Any

from karui.tasks.language_settings import LanguageData, LanguageModelSettings
from karui.train.settings import TrainSettings

METHODS = (
    "full", "importance", "importance-target", "sampled", "nce", "negative", "blackout", "self-normalized", "huffman",
    "class", "adaptive",
)  # fmt: skip
PEERS = ("torch-softmax", "torch-adaptive")


@dataclass(frozen=True, kw_only=True)
class TextComparison:
    """One text; the settings every method has in common."""

    name: str
    """What its rows begin with."""

    data: LanguageData
    """The text, and how it is read."""

    model: LanguageModelSettings
    """The model; `output` is the row's."""

    train: TrainSettings
    """The optimizer; its learning rates are multiplied by the factor that the trials choose."""

    seconds: float
    """Equal time: CPU seconds of training, over which the learning rates fall to zero."""

    tokens: int
    """Equal epochs: training tokens of the other run, over which they fall to zero too."""

    most_seconds: float
    """CPU seconds that the run of equal tokens may take; one that would take longer is not made."""

    marks: tuple[float, ...]
    """CPU seconds at which validation is scored, besides the end."""

    factors: tuple[float, ...] = (1 / 3, 1.0, 3.0)
    """Factors on both learning rates, rising, one short trial each; the best on validation is the row's."""

    extensions: int = 2
    """Further factors that are tried, one by one, while the best one is the smallest or the largest."""

    trial_seconds: float = 8.0
    """CPU seconds of training that a trial takes at least."""

    trial_tokens: int = 0
    """Training tokens that a trial reads at least: slow methods need steps too before their rates can be told apart."""

    valid_tokens: int = 0
    """Validation tokens of a point of the curve; 0 = all."""

    test_tokens: int = 0
    """Test tokens of the two final scores; 0 = all."""

    queries: int = 50
    """Hidden vectors of the validation text that are asked for their ten best words, one by one."""

    def __post_init__(self) -> None:
        for name in ("seconds", "tokens", "most_seconds", "trial_seconds", "queries"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("extensions", "trial_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        rising = all(a < b for a, b in zip((0.0, *self.factors), self.factors, strict=False))
        if not self.factors or not rising:
            raise ValueError(f"factors must hold at least one factor > 0, rising, got {self.factors}")


@dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """The layers alone, without a text: a training step, its memory and one query."""

    name: str
    classes: int
    hidden: int = 256
    positions: int = 1024
    num_samples: int = 1024
    repeats: int = 15
    seconds: float = 20.0
    """A slower layer stops after this long and two steps."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One method in one comparison."""

    comparison: TextComparison | LayerComparison
    method: str
    seed: int = 0

    @property
    def name(self) -> str:
        """The name of the row: SET-METHOD."""
        return f"{self.comparison.name}-{self.method}"


_MODEL = LanguageModelSettings(
    recurrent="sru",
    hidden_size=200,
    num_layers=2,
    embedding_dim=200,
    tied=False,
    num_samples=1024,
    gate_bias=None,
)
_TRAIN = TrainSettings(
    lr=3e-3,
    sparse_lr=0.15,
    schedule="linear",
    decay_start=0.0,
    grad_clip_norm=1.0,
    monitor="perplexity",
    threads=1,
)
PTB = TextComparison(
    name="ptb",
    data=LanguageData(name="ptb", batch_size=32, bptt_len=35),
    model=_MODEL,
    train=_TRAIN,
    seconds=60.0,
    tokens=929_568,
    most_seconds=900.0,
    marks=(2.5, 5.0, 10.0, 20.0, 40.0),
    trial_tokens=65_536,
    valid_tokens=20_000,
)
"""Penn Treebank, 10,000 words; equal epochs: one, of all tokens that fill the columns."""

ENWIKI = TextComparison(
    name="enwiki2015",
    data=LanguageData(name="enwiki2015", batch_size=32, bptt_len=35),
    model=_MODEL,
    train=_TRAIN,
    seconds=60.0,
    tokens=131_072,
    most_seconds=900.0,
    marks=(5.0, 10.0, 20.0, 40.0),
    trial_tokens=16_384,
    valid_tokens=2048,
    test_tokens=16_384,
)
"""A part of the English Wikipedia, every word seen at least three times; for equal epochs, equal numbers of tokens."""

LM1B = LayerComparison(name="lm1b", classes=793_471)
"""The counts of the One Billion Word benchmark."""

COMPARISONS = {comparison.name: comparison for comparison in (PTB, ENWIKI, LM1B)}


def _rows() -> dict[str, ComparisonRow]:
    made = [
        ComparisonRow(comparison=comparison, method=method)
        for comparison in COMPARISONS.values()
        for method in (*METHODS, *(PEERS if isinstance(comparison, LayerComparison) else ()))
    ]
    return {row.name: row for row in made}


ROWS = _rows()
"""Row name -> row."""

DEFAULT_ROWS = tuple(ROWS)
"""Rows that are made where none is named."""


def settings_of(row: ComparisonRow) -> dict[str, Any]:
    """Return the settings of a row as plain values, as its record holds them."""
    from karui.recipes.base import to_dict

    return to_dict(row.comparison)
