"""Settings of the language-model task. Plain values: importing this file imports no torch."""

from dataclasses import dataclass
from typing import Any, Literal

from karui.tasks.sequence_settings import LayerSettings

OutputName = Literal[
    "full",
    "importance",
    "importance-target",
    "sampled",
    "nce",
    "negative",
    "blackout",
    "self-normalized",
    "huffman",
    "class",
    "adaptive",
]
LevelName = Literal["word", "char"]
TokensName = Literal["auto", "blank", "text"]
NoiseName = Literal["auto", "unigram", "uniform", "log-uniform"]
OptionValue = bool | int | float | str | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LanguageData:
    """A running text, how it is cut into tokens, and how it is read in training."""

    name: str = "stdlib-docs"
    """Named set (ptb, wikitext2, enwiki2015, stdlib-docs), text file, folder of train, valid and test, or Hub name."""

    text: str | None = None
    """Column of the text, for Hub names; none: guessed."""

    level: LevelName = "word"
    """Tokens are words, or characters."""

    tokens: TokensName = "auto"
    """Words are split at blanks ("blank") or found in raw text ("text"); auto: blank for ptb and wikitext2."""

    lower: bool | None = None
    """Lower-case the text; none: the set's own (enwiki2015 and stdlib-docs yes, others no)."""

    min_count: int = 0
    """Words seen fewer times in the training part become <unk>; 0: the set's own (enwiki2015 3, stdlib-docs 2, 1)."""

    max_words: int = 0
    """Most frequent words kept; 0 = all."""

    batch_size: int = 32
    """Columns that the training text is cut into, read side by side."""

    bptt_len: int = 35
    """Steps back-propagation goes back; the state is carried beyond them."""

    random_lengths: bool = False
    """Draw the length of each piece around bptt_len (Merity, Keskar, Socher 2018), and weigh its loss by it."""

    valid_fraction: float = 0.05
    """Share of the end of the training text kept for validation, and again for the test, where a set brings none."""

    limit: int = 0
    """Training tokens used, for short trials; 0 = all."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "bptt_len"):
            _check(name, getattr(self, name), ">= 1", getattr(self, name) >= 1)
        for name in ("min_count", "max_words", "limit"):
            _check(name, getattr(self, name), ">= 0", getattr(self, name) >= 0)
        _check("valid_fraction", self.valid_fraction, "in (0, 0.5)", 0 < self.valid_fraction < 0.5)
        is_short = self.random_lengths and self.bptt_len < 6
        _check("bptt_len", self.bptt_len, ">= 6 with random_lengths", not is_short)


@dataclass(frozen=True, kw_only=True)
class LanguageModelSettings(LayerSettings):
    """Embedding, recurrent stack, output layer."""

    hidden_size: int = 256
    """Units of a layer."""

    num_layers: int = 2
    """Stacked layers."""

    variant: Literal["v1", "v2"] = "v2"
    """sru: equations of 2018 ("v2") or of 2017 ("v1")."""

    embedding_dim: int = 0
    """Features of a token; 0 = hidden_size."""

    one_hot: bool = False
    """lstm, gru: the first layer's input matrix has a column for each word, and there is no embedding (untied)."""

    tied: bool = True
    """The output layer's table is the embedding (Press and Wolf 2017); a projection joins unequal sizes."""

    word_dropout: float = 0.0
    """Share of the vocabulary whose embedding is zero in a training step (Gal and Ghahramani 2016)."""

    input_dropout: float = 0.0
    """Dropout on the embeddings that are read."""

    output_dropout: float = 0.0
    """Dropout on what the output layer reads."""

    shared_masks: bool = True
    """input_dropout and output_dropout draw one mask a piece, the same at every step."""

    embedding_init: Literal["sru", "uniform"] = "sru"
    """First values of the embedding: "sru" uniform in ±sqrt(3 / E) as published for SRU, "uniform" in ±0.1."""

    output: OutputName = "full"
    """Output layer and its training loss; the exact softmax is what is measured, whichever it is."""

    output_finish: OutputName | None = None
    """Output layer of the last share of the epochs, of the same family; none: the same throughout."""

    finish_share: float = 0.2
    """That share."""

    num_samples: int = 1024
    """Classes that a sampled output draws."""

    noise: NoiseName = "auto"
    """What a sampled output draws from; auto: the layer's own."""

    output_options: dict[str, OptionValue] | None = None
    """Further arguments of the output layer's constructor, as JSON: {"log_z": "learned"}, {"cutoffs": [2000, 9000]}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("word_dropout", "input_dropout", "output_dropout"):
            _check(name, getattr(self, name), "in [0, 1)", 0 <= getattr(self, name) < 1)
        _check("embedding_dim", self.embedding_dim, ">= 0", self.embedding_dim >= 0)
        fits = (
            self.recurrent in ("lstm", "gru")
            and not (self.tied or self.embedding_dim)
            and self.layer_norm != "pre"
        )
        expected = "false, or lstm or gru with tied=false, embedding_dim=0 and no layer_norm=pre"
        _check("one_hot", self.one_hot, expected, fits or not self.one_hot)
        _check("num_samples", self.num_samples, ">= 1", self.num_samples >= 1)
        _check("finish_share", self.finish_share, "in [0, 1]", 0 <= self.finish_share <= 1)

    def options(self) -> dict[str, Any]:
        """What the recurrent layer's constructor takes beyond sizes and dropout."""
        own = super().options()
        return {**own, "variant": self.variant} if self.recurrent == "sru" else own


def _check(name: str, value: object, expectation: str, is_met: bool) -> None:
    if not is_met:
        raise ValueError(f"{name} must be {expectation}, got {value!r}")
