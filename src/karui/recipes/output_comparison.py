"""The comparison of output layers: one recurrent model, one text, every method of `karui.output` in turn.

A row trains one method by the clock (`karui.train.timed`): the test perplexity at equal CPU time and that after equal
numbers of tokens come from the same run. The learning rate is constant, so that every point of a curve could have been
its end.
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
    """Equal time: CPU seconds of training."""

    tokens: int
    """Equal epochs: training tokens that every method reads, for slow methods beyond `seconds`."""

    most_seconds: float
    """CPU seconds after which a method stops, whatever it has read."""

    marks: tuple[float, ...]
    """CPU seconds at which validation is scored, besides `seconds`."""

    factors: tuple[float, ...] = (1 / 3, 1.0, 3.0)
    """Factors on both learning rates, one short trial each; the best on validation is the row's."""

    trial_seconds: float = 12.0
    """CPU seconds of training of a trial."""

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
        if not self.factors:
            raise ValueError("factors must hold at least one factor, got ()")


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
    lr=3e-3, sparse_lr=0.15, schedule="constant", grad_clip_norm=1.0, monitor="perplexity", threads=1
)
PTB = TextComparison(
    name="ptb",
    data=LanguageData(name="ptb", batch_size=32, bptt_len=35),
    model=_MODEL,
    train=_TRAIN,
    seconds=100.0,
    tokens=929_589,
    most_seconds=1200.0,
    marks=(2.5, 5.0, 10.0, 20.0, 40.0, 70.0),
    valid_tokens=20_000,
)
"""Penn Treebank, 10,000 words; equal epochs: one."""

ENWIKI = TextComparison(
    name="enwiki2015",
    data=LanguageData(name="enwiki2015", batch_size=32, bptt_len=35),
    model=_MODEL,
    train=_TRAIN,
    seconds=100.0,
    tokens=262_144,
    most_seconds=1200.0,
    marks=(5.0, 10.0, 20.0, 40.0, 70.0),
    valid_tokens=4096,
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
