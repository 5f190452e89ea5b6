"""Settings of data, model and sparsity. Plain values: importing this file imports no torch."""

from dataclasses import dataclass
from typing import Any, Literal

from karui.targets import KINDS, Target
from karui.tasks.sequence_settings import ALPHAS_DEFAULT

RecurrentName = Literal["sru", "statistical-ru", "lstm", "gru", "qrnn", "mingru", "none"]
PoolingName = Literal["last", "mean", "max", "mean+max"]
ActivationName = Literal["identity", "tanh", "relu"]
SparseMethod = Literal["none", "vd", "l0", "magnitude"]
TeacherName = Literal["none", "linear"]
ScopeName = Literal["auto", "global", "layer"]
GroupName = Literal["weight", "word", "dimension", "input", "neuron", "output", "gate", "rank", "16x1", "8x4"]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which texts, and how they become batches of word ids."""

    name: str = "stdlib-docs"
    """A named data set, or the path of a file or folder."""

    text: str | None = None
    """Column of the text; guessed where it is obvious."""

    label: str | None = None
    """Column of the label; guessed where it is obvious."""

    max_words: int = 20_000
    """Largest vocabulary: the most frequent words of the training texts; 0 = no limit."""

    min_count: int = 1
    """Occurrences in the training texts below which a word is left out."""

    max_tokens: int = 0
    """Tokens of a document that are read, from its start; 0 = all."""

    batch_size: int = 64
    """Documents in a batch."""

    valid_fraction: float = 0.1
    """Share of the training documents kept for validation, where the set has no validation split."""

    fold: int | None = None
    """Fold, from 0, of ten-fold cross-validation, for sets without a test split."""

    phrases: bool = True
    """Train on the labelled phrases of a treebank as well (sst1, sst2)."""

    teacher: TeacherName = "none"
    """"linear": a TF-IDF model of uni- and bigrams, fitted out of fold on the training texts, is part of the target."""

    teacher_share: float = 0.5
    """The teacher's share of the target; the label has the rest."""

    def __post_init__(self) -> None:
        for name, least in (("max_words", 0), ("min_count", 1), ("max_tokens", 0), ("batch_size", 1)):
            _check(name, getattr(self, name), f">= {least}", getattr(self, name) >= least)
        _check("teacher_share", self.teacher_share, "in [0, 1]", 0 <= self.teacher_share <= 1)
        _check("valid_fraction", self.valid_fraction, "in (0, 1)", 0 < self.valid_fraction < 1)
        _check("fold", self.fold, "from 0 to 9", self.fold is None or 0 <= self.fold <= 9)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Embedding, recurrent layers, pooling, linear output, and the per-word scalar path beside them."""

    recurrent: RecurrentName = "sru"
    """Recurrent layer; sru is the Simple, statistical-ru the Statistical Recurrent Unit; "none" pools the embeddings
    themselves."""

    embedding_dim: int = 16
    """Width of the embedding."""

    hidden_size: int = 16
    """Units of a recurrent layer in one direction."""

    num_layers: int = 1
    """Stacked recurrent layers."""

    directions: int = 2
    """1 reads forward; 2 reads backward as well."""

    pooling: PoolingName = "mean+max"
    """How the states of all steps become one vector."""

    word_scores: bool = True
    """Add one learned score a word and class: sum over the words / sqrt(length)."""

    linear_share: float = 0.0
    """Part of the logits that a linear model of words and pairs of adjacent words has, fitted apart; 0 = none."""

    linear_weights: int = 6000
    """Weights kept of that linear model, the largest."""

    embedding_dropout: float = 0.2
    """Dropout on the embedded words."""

    dropout: float = 0.0
    """Dropout between stacked layers and before the output."""

    word_dropout: float = 0.1
    """Share of the words of a document that are replaced by the unknown word in training."""

    activation: ActivationName = "identity"
    """sru: what it applies to its state."""

    num_stats: int = 64
    """statistical-ru: width of the statistics at each scale."""

    recur_size: int = 16
    """statistical-ru: width of the feedback from the statistics; 0 leaves it out."""

    alphas: tuple[float, ...] = ALPHAS_DEFAULT
    """statistical-ru: the decay of each scale."""

    learn_alphas: bool = False
    """statistical-ru: train the scales too."""

    window: int = 1
    """qrnn: inputs a step reads, itself alone or the one before it as well."""

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_size", "num_layers"):
            _check(name, getattr(self, name), ">= 1", getattr(self, name) >= 1)
        _check("directions", self.directions, "1 or 2", self.directions in (1, 2))
        _check("linear_share", self.linear_share, "in [0, 1)", 0 <= self.linear_share < 1)
        _check("linear_weights", self.linear_weights, ">= 1", self.linear_weights >= 1)
        for name in ("embedding_dropout", "dropout", "word_dropout"):
            _check(name, getattr(self, name), "in [0, 1)", 0 <= getattr(self, name) < 1)
        _check("num_stats", self.num_stats, ">= 1", self.num_stats >= 1)
        _check("recur_size", self.recur_size, ">= 0", self.recur_size >= 0)
        within = bool(self.alphas) and all(0 <= alpha <= 1 for alpha in self.alphas)
        _check("alphas", self.alphas, "numbers in [0, 1], at least one", within)
        _check("window", self.window, "1 or 2", self.window in (1, 2))

    def options(self) -> dict[str, Any]:
        """What the constructor of this kind of layer takes beyond sizes, dropout and activation."""
        if self.recurrent == "statistical-ru":
            names = ("num_stats", "recur_size", "alphas", "learn_alphas")
            return {name: getattr(self, name) for name in names}
        return {"window": self.window} if self.recurrent == "qrnn" else {}


@dataclass(frozen=True, kw_only=True)
class SparseSettings:
    """How weights become zero, and what the model shall come to; at most one target. Without a target the strength is
    the penalty's, whose weight and ramp are the training loop's.
    """

    method: SparseMethod = "none"
    """"vd" = sparse variational dropout, "l0" = hard concrete gates, "magnitude" = the smallest weights go; "none"
    trains a dense model."""

    groups: tuple[GroupName, ...] | None = None
    """What goes as one: weight, word, dimension (of an embedding), input, output, gate, rank, 16x1, 8x4; none: the
    method's own."""

    threshold: float = 3.0
    """vd: log noise ratio from which a weight is pruned where no target is set."""

    log_sigma_init: float = -3.0
    """vd: first log standard deviation of each weight's noise."""

    drop_rate: float = 0.1
    """l0: first probability that a gate is closed."""

    l0_lambda: float = 1.0
    """l0: price of an expected weight, in nats over all training examples, where no target is set."""

    l0_lambdas: dict[str, float] | None = None
    """l0: that price for each sparse layer by name, as JSON: {"embedding": 0.5, "output": 2}; none: one for all."""

    beta_end: float | None = None
    """l0: temperature of the gates at the end of the run, to which it falls from 2/3; none: it stays."""

    regrow: bool = False
    """magnitude: pruned weights keep getting gradients, as Lin et al. 2020 do; as published by Zhu and Gupta 2017 they
    keep their values, get none, and come back only where the others have become smaller."""

    scope: ScopeName = "auto"
    """magnitude: "global" compares all weights of the model, "layer" prunes the same share of each; auto: layer for
    language models, where the output's many small weights would go first, global elsewhere."""

    gate_lr: float = 0.0
    """Learning rate of gates and of the noise's variances; 0: the method's own multiple of train.lr."""

    target_density: float | None = None
    """Kept weights / weights that can be pruned (biases and norms are neither), such as 0.05."""

    target_params: int | None = None
    """Numbers that the model stores: kept weights, and all biases, norms and layers that stay dense."""

    target_size: str | None = None
    """Bytes of the file that `karui compact` writes, such as 50kB (k = 1000; 50KiB is 51,200); never above it."""

    target_flops: float | None = None
    """Floating-point operations of the matrix products of one step (a token, a pixel, an image), two a kept weight."""

    prune_from: float = 0.0
    """Share of the run at which the density begins to fall to its target."""

    prune_until: float = 0.6
    """Share of the run at which it is there."""

    settle_from: float = 1.0
    """l0, vd with a target: share of the run from which what is pruned stays so, gates and noise are out, and the rest
    trains on; 1: never."""

    def __post_init__(self) -> None:
        targets = {name: getattr(self, f"target_{name}") for name in KINDS}
        given = [name for name, value in targets.items() if value is not None]
        others = " and ".join(f"target_{name}" for name in given)
        _check(f"target_{(given or KINDS)[0]}", others, "the only target", len(given) < 2)
        if given:
            try:
                Target(**targets)
            except ValueError as error:
                raise ValueError(f"target_{error}") from error
            _check("method", self.method, "l0, vd or magnitude with a target", self.method != "none")
        elif self.method == "magnitude" and not self.has_target:
            raise ValueError(
                "method=magnitude needs a target: --target-size, --target-density, --target-params or --target-flops"
            )
        for name in ("l0_lambda", "gate_lr"):
            _check(name, getattr(self, name), ">= 0", getattr(self, name) >= 0)
        prices = (self.l0_lambdas or {}).values()
        _check("l0_lambdas", self.l0_lambdas, ">= 0 each", all(price >= 0 for price in prices))
        _check("beta_end", self.beta_end, "above 0", self.beta_end is None or self.beta_end > 0)
        _check("drop_rate", self.drop_rate, "in (0, 1)", 0 < self.drop_rate < 1)
        ends = (self.prune_from, self.prune_until)
        _check(
            "prune_until", self.prune_until, "above prune_from, both in [0, 1]", 0 <= ends[0] < ends[1] <= 1
        )
        settles = self.prune_until <= self.settle_from <= 1
        _check("settle_from", self.settle_from, "in [prune_until, 1]", settles)
        _check(
            "settle_from", self.settle_from, "1 without a target", self.has_target or self.settle_from == 1
        )

    @property
    def has_target(self) -> bool:
        """Whether the model shall come to something."""
        return self.target is not None

    @property
    def target(self) -> Target | None:
        """What the model shall come to, if that is set."""
        targets = {name: getattr(self, f"target_{name}") for name in KINDS}
        return None if all(value is None for value in targets.values()) else Target(**targets)


def _check(name: str, value: object, expectation: str, is_met: bool) -> None:
    if not is_met:
        raise ValueError(f"{name} must be {expectation}, got {value!r}")


DENSE = SparseSettings()
"""Nothing is made sparse."""
