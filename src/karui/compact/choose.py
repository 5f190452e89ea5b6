"""Which values a file stores: the smallest rounding that validation texts do not notice, or the best within a budget.

The test split is never looked at here. N documents, C outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

import karui
from karui.compact.figures import accuracy, predictions, probabilities
from karui.compact.prove import MIN_AGREEMENT
from karui.compact.rounding import MAX_LEVELS, encode_rounded, groups, without_pairs, without_words
from karui.errors import UserError
from karui.runtime.format import ClassifierSpec, encode

VALUES = ("fp32", "fp16", "int8")
# Largest int8 magnitude: fewer levels, fewer distinct values and more zeros, fewer bytes after the entropy coder.
STEPS = (MAX_LEVELS, 63, 31, 15, 11, 7, 5, 3, 2, 1)
PERCENTS = tuple(
    range(100, 0, -5)
)  # of the words or pairs, those with most say, where a budget asks for fewer
LISTS = WORDS, PAIRS = "words", "pairs"
# Changes of a label to the worse and to the better nearly cancel: three labels may change for a point of accuracy.
LABELS_A_POINT = 3


@dataclass(frozen=True)
class Wish:
    """What the user asked for; None leaves it to the validation texts."""

    values: str | None = None
    """"fp32", "fp16" or "int8"."""

    levels: int | None = None
    """Largest int8 magnitude of every matrix, 1 to 127."""

    max_bytes: int | None = None
    """Budget for the whole file; within it the best accuracy wins."""

    tolerance: float = 0.003
    """Without a budget: validation accuracy that the smallest file may lose."""

    def __post_init__(self) -> None:
        if self.values is not None and self.values not in VALUES:
            raise UserError(f"values must be auto, fp32, fp16 or int8, got {self.values!r}")
        if self.levels is not None and not 1 <= self.levels <= MAX_LEVELS:
            raise UserError(f"levels must be from 1 to {MAX_LEVELS}, got {self.levels}")
        if self.levels is not None and self.values in ("fp32", "fp16"):
            raise UserError(f"levels are for int8 values, not for {self.values}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise UserError(f"max_bytes must be at least 1, got {self.max_bytes}")
        if not self.tolerance >= 0:
            raise UserError(f"tolerance must be at least 0, got {self.tolerance}")


@dataclass(frozen=True)
class Candidate:
    """One file: its bytes, and how it does on the validation texts."""

    values: str
    levels: dict[str, int] = field(repr=False)
    """Of an int8 file: largest magnitude by group of matrices; "words", "pairs": percent kept, where not all."""

    data: bytes = field(repr=False)
    valid_accuracy: float
    agreement: float
    """Share of validation texts with the label that the fp32 file gives."""

    distortion: float
    """Mean absolute change of a probability against the fp32 file."""

    @property
    def name(self) -> str:
        """Values and levels in one line."""
        fewer = [
            f"{group} {most}"
            for group, most in self.levels.items()
            if most != MAX_LEVELS and group not in LISTS
        ]
        percent = "".join(f", {self.levels[part]} % of the {part}" for part in LISTS if part in self.levels)
        return (f"{self.values} (levels: {', '.join(fewer)})" if fewer else self.values) + percent


def choose(
    spec: ClassifierSpec,
    texts: Sequence[str],
    labels: np.ndarray,
    wish: Wish,
    *,
    counts: Mapping[str, int] | None = None,
) -> tuple[Candidate, list[Candidate]]:
    """Return the file that the wish asks for, and all that were tried, largest first.

    texts and labels (N,) are validation documents. counts: how often each word occurs in training texts, and each pair
    ("first second"); with them a budget may be met by leaving out the words and pairs with the least say.

    Raises:
        UserError: no file fits the budget; the line says what is reachable.
    """
    attempts = _Attempts(spec, texts, labels, counts if wish.max_bytes is not None else None)
    tried = sorted(_candidates(attempts, wish), key=lambda each: -len(each.data))
    limit = _least_agreement(wish)
    if wish.max_bytes is None:
        if len(tried) == 1:
            return tried[0], tried
        least = attempts("fp32", {}).valid_accuracy - wish.tolerance - 1e-12
        fitting = [each for each in tried if each.agreement >= limit and not each.valid_accuracy < least]
        return (fitting or tried[:1])[-1], tried
    usable = [each for each in tried if each.agreement >= limit] or tried[:1]
    fitting = [each for each in usable if len(each.data) <= wish.max_bytes]
    if not fitting:
        smallest = usable[-1]
        raise UserError(
            f"no file of {wish.max_bytes:,} bytes: the smallest that keeps its answers has "
            f"{len(smallest.data):,} ({smallest.name}); train with a larger --set train.penalty_weight"
        )
    return max(fitting, key=lambda each: (each.valid_accuracy, -each.distortion)), tried


def _least_agreement(wish: Wish) -> float:
    if wish.max_bytes is not None:
        return MIN_AGREEMENT
    return max(MIN_AGREEMENT, 1.0 - LABELS_A_POINT * wish.tolerance - 1e-12)


def least_say(spec: ClassifierSpec, model: karui.Classifier, counts: Mapping[str, int]) -> np.ndarray:
    """Positions of all words in `spec.words`, those first whose loss changes logits least over the counted texts.

    A word's say: how often it occurs, times the squared change of the logits when it is the whole text instead of an
    unknown word, and the say of its pairs. model: the file of `spec`.
    """
    ids = [np.array([i], np.int32) for i in range(len(model.words) + 1)]
    logits = model.logits_ids(ids).astype(np.float64)
    effect = np.square(logits[1:] - logits[0]).sum(axis=1)
    by_word = {word: float(effect[i]) * counts.get(word, 0) for i, word in enumerate(model.words)}
    say = np.array([by_word[word] for word in spec.words])
    if spec.pairs is not None:
        np.add.at(say, spec.pairs - 1, pair_say(spec, counts)[:, None])
    return np.argsort(say, kind="stable")


def pair_say(spec: ClassifierSpec, counts: Mapping[str, int]) -> np.ndarray:
    """(K,) say of each pair: how often it occurs, times the squared change of the logits of a text of these two words.

    A pair without a count is taken to be as frequent as its rarer word.
    """
    if spec.pairs is None or spec.pair_scores is None:
        return np.zeros(0)
    often = []
    for pair in spec.pair_names():
        first, second = pair.split(" ")
        often.append(counts.get(pair, min(counts.get(first, 0), counts.get(second, 0))))
    return np.square(spec.pair_scores.astype(np.float64)).sum(axis=1) / 2 * np.array(often)


class _Attempts:
    """Makes a file, answers the validation texts with it, and remembers it; the fp32 file is the measure."""

    def __init__(
        self, spec: ClassifierSpec, texts: Sequence[str], labels: np.ndarray, counts: Mapping[str, int] | None
    ) -> None:
        self.spec, self.texts, self.labels = spec, list(texts), labels
        data = encode(spec, values="fp32")
        model = karui.load(data)
        logits = model.logits(self.texts)
        self.answers, self.shares = predictions(logits), probabilities(logits)
        self.orders: dict[str, np.ndarray] = {}  # positions, those with the least say first
        if counts is not None:
            self.orders[WORDS] = least_say(spec, model, counts)
            if spec.pairs is not None:
                self.orders[PAIRS] = np.argsort(pair_say(spec, counts), kind="stable")
        start = Candidate("fp32", {}, data, accuracy(logits, labels), 1.0, 0.0)
        self.found: dict[tuple[str, tuple[tuple[str, int], ...]], Candidate] = {("fp32", ()): start}

    def __call__(self, values: str, levels: Mapping[str, int]) -> Candidate:
        key = values, tuple(sorted(levels.items()))
        if key not in self.found:
            data = self._int8(levels) if values == "int8" else encode(self.spec, values=values)
            logits = karui.load(data).logits(self.texts)
            same, change = 1.0, 0.0
            if len(self.answers):
                same = float((predictions(logits) == self.answers).mean())
                change = float(np.abs(probabilities(logits) - self.shares).mean())
            found = Candidate(values, dict(levels), data, accuracy(logits, self.labels), same, change)
            self.found[key] = found
        return self.found[key]

    def _int8(self, levels: Mapping[str, int]) -> bytes:
        spec = self.spec
        for part, without in ((PAIRS, without_pairs), (WORDS, without_words)):
            if part in levels and part in self.orders:
                order = self.orders[part]
                spec = without(spec, order[: len(order) - round(len(order) * levels[part] / 100)])
        return encode_rounded(spec, levels)


def _candidates(attempts: _Attempts, wish: Wish) -> Iterator[Candidate]:
    present = list(groups(attempts.spec))
    if wish.levels is not None:
        yield attempts("int8", dict.fromkeys(present, wish.levels))
        return
    for values in VALUES[:2]:
        if wish.values in (None, values):
            yield attempts(values, {})
    if wish.values is None or (wish.values == "int8" and wish.max_bytes is not None):
        yield from _descend(present, wish, attempts)
    elif wish.values == "int8":
        yield attempts("int8", dict.fromkeys(present, MAX_LEVELS))


def _descend(present: Sequence[str], wish: Wish, attempts: _Attempts) -> Iterator[Candidate]:
    """int8 files, coarser and coarser: each step makes the change that costs least for each byte it saves.

    A change is fewer levels for one group of matrices or, to meet a budget, fewer words or pairs.
    """
    ladders: dict[str, tuple[int, ...]] = dict.fromkeys(present, STEPS)
    here = attempts("int8", dict.fromkeys(present, MAX_LEVELS))
    yield here
    ladders |= dict.fromkeys(attempts.orders, PERCENTS)
    limit = _least_agreement(wish)
    while wish.max_bytes is None or len(here.data) > wish.max_bytes:
        steps = []
        for name, ladder in ladders.items():
            place = ladder.index(here.levels.get(name, ladder[0])) + 1
            if place < len(ladder):
                steps.append(attempts("int8", {**here.levels, name: ladder[place]}))
        yield from steps
        steps = [each for each in steps if each.agreement >= limit]
        if not steps:
            return
        here = min(steps, key=lambda each: _price(each, here))


def _price(step: Candidate, here: Candidate) -> float:
    """Distortion for each byte saved; a step that saves nothing comes last."""
    saved = len(here.data) - len(step.data)
    added = max(step.distortion - here.distortion, 1e-6)
    return added / saved if saved > 0 else 1e6 * (1 - saved) * added
