"""Which values a file stores: the smallest rounding that validation texts do not notice, or the best within a budget.

The test split is never looked at here. N documents, C outputs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

import karui
from karui.compact.figures import accuracy, predictions, probabilities
from karui.compact.prove import MIN_AGREEMENT
from karui.compact.rounding import MAX_LEVELS, encode_rounded, groups
from karui.errors import UserError
from karui.runtime.format import ClassifierSpec, encode

VALUES = ("fp32", "fp16", "int8")
# Largest int8 magnitude: fewer levels, fewer distinct values and more zeros, fewer bytes after the entropy coder.
STEPS = (MAX_LEVELS, 63, 31, 15, 11, 7, 5, 3, 2, 1)
CAREFUL_AGREEMENT = 0.98  # without a budget, rounding may change one label in fifty


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
    """Of an int8 file: largest magnitude by group of matrices."""

    data: bytes = field(repr=False)
    valid_accuracy: float
    agreement: float
    """Share of validation texts with the label that the fp32 file gives."""

    distortion: float
    """Mean absolute change of a probability against the fp32 file."""

    @property
    def name(self) -> str:
        """Values and levels in one line."""
        fewer = [f"{group} {levels}" for group, levels in self.levels.items() if levels != MAX_LEVELS]
        return f"{self.values} (levels: {', '.join(fewer)})" if fewer else self.values


Try = Callable[[str, Mapping[str, int]], Candidate]


def choose(
    spec: ClassifierSpec, texts: Sequence[str], labels: np.ndarray, wish: Wish
) -> tuple[Candidate, list[Candidate]]:
    """Return the file that the wish asks for, and all that were tried, largest first.

    texts and labels (N,) are validation documents.

    Raises:
        UserError: no file fits the budget; the line says what is reachable.
    """
    attempt = _attempts(spec, texts, labels)
    tried = list(_candidates(spec, wish, attempt))
    tried.sort(key=lambda each: -len(each.data))
    if len(tried) == 1 and wish.max_bytes is None:
        return tried[0], tried
    if wish.max_bytes is None:
        least = attempt("fp32", {}).valid_accuracy - wish.tolerance - 1e-12
        fitting = [
            each for each in tried if each.agreement >= CAREFUL_AGREEMENT and not each.valid_accuracy < least
        ]
        return (fitting or tried[:1])[-1], tried
    usable = [each for each in tried if each.agreement >= MIN_AGREEMENT] or tried[:1]
    fitting = [each for each in usable if len(each.data) <= wish.max_bytes]
    if not fitting:
        smallest = usable[-1]
        raise UserError(
            f"no file of {wish.max_bytes:,} bytes: the smallest that keeps its answers has "
            f"{len(smallest.data):,} ({smallest.name}); train with a larger --set train.penalty_weight"
        )
    return max(fitting, key=lambda each: (each.valid_accuracy, -each.distortion)), tried


def _attempts(spec: ClassifierSpec, texts: Sequence[str], labels: np.ndarray) -> Try:
    """Return a function that makes one file, answers the texts with it, and remembers it."""
    found: dict[tuple[str, tuple[tuple[str, int], ...]], Candidate] = {}
    data = encode(spec, values="fp32")
    logits = karui.load(data).logits(list(texts))
    truth, shares = predictions(logits), probabilities(logits)
    found["fp32", ()] = Candidate("fp32", {}, data, accuracy(logits, labels), 1.0, 0.0)

    def attempt(values: str, levels: Mapping[str, int]) -> Candidate:
        key = values, tuple(sorted(levels.items()))
        if key not in found:
            data = encode_rounded(spec, levels) if values == "int8" else encode(spec, values=values)
            logits = karui.load(data).logits(list(texts))
            same = float((predictions(logits) == truth).mean()) if len(truth) else 1.0
            change = float(np.abs(probabilities(logits) - shares).mean()) if len(truth) else 0.0
            found[key] = Candidate(values, dict(levels), data, accuracy(logits, labels), same, change)
        return found[key]

    return attempt


def _candidates(spec: ClassifierSpec, wish: Wish, attempt: Try) -> Iterator[Candidate]:
    present = list(groups(spec))
    if wish.levels is not None:
        yield attempt("int8", dict.fromkeys(present, wish.levels))
        return
    for values in VALUES[:2]:
        if wish.values in (None, values):
            yield attempt(values, {})
    if wish.values is None or (wish.values == "int8" and wish.max_bytes is not None):
        yield from _descend(present, wish, attempt)
    elif wish.values == "int8":
        yield attempt("int8", dict.fromkeys(present, MAX_LEVELS))


def _descend(present: Sequence[str], wish: Wish, attempt: Try) -> Iterator[Candidate]:
    """int8 files, coarser and coarser: each step takes the levels of the group that saves most for its distortion."""
    here = attempt("int8", dict.fromkeys(present, MAX_LEVELS))
    yield here
    limit = MIN_AGREEMENT if wish.max_bytes is not None else CAREFUL_AGREEMENT
    while wish.max_bytes is None or len(here.data) > wish.max_bytes:
        steps = []
        for group in present:
            place = STEPS.index(here.levels[group]) + 1
            if place < len(STEPS):
                steps.append(attempt("int8", {**here.levels, group: STEPS[place]}))
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
