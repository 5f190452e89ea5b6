"""Proof on real texts that a file answers as the masked model does, each time a file is written.

The reference is the masked model in torch, the other side the bytes of the file, read and answered by the runtime:
tokenisation, word list, shrinking, encoding and engine are all inside the comparison.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import karui
from karui.compact.figures import predictions, spread
from karui.errors import UserError

TOLERANCE = 1e-5  # of fp32 files, times the largest logit of the text where that is above 1
MIN_AGREEMENT = 0.9  # rounded values: share of texts that must keep their label
LONG_TEXT_WORDS = 5000
SPECIAL_TEXTS = 7  # of `proof_texts`, at its beginning
Answer = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Proof:
    """What was compared and how far the answers are apart; logits are scores before sigmoid or softmax."""

    documents: int
    max_error: float
    """Largest difference of a logit, over the largest logit of its text where that is above 1."""

    allowed_error: float
    """What fp32 files are held to: 1e-5."""

    label_agreement: float
    exact: bool
    """The file holds fp32 values, so it had to be equal; else it holds rounded values and is close."""


def proof_texts(
    texts: Sequence[str], words: Sequence[str], pairs: Sequence[str] = (), *, most: int = 400
) -> list[str]:
    """Texts to compare on: up to `most` of `texts` spread evenly, and those that break careless code.

    First those: nothing, blanks, one known word, one unknown word, unknown words only, every kept word and pair
    ("first second") once, a very long text.
    """
    chosen = [texts[i] for i in spread(len(texts), most)]
    unknown = "qxz" * 7  # no word list holds it; if one did, the comparison would still be right
    known = list(words[:1]) or [unknown]
    apart = [f"{unknown} {pair}" for pair in pairs[: LONG_TEXT_WORDS // 3]]
    everything = " ".join([*words[:LONG_TEXT_WORDS], *apart])
    joined = " ".join(" ".join(chosen).split()[:LONG_TEXT_WORDS]) or unknown
    long = " ".join([joined] * (1 + LONG_TEXT_WORDS // (joined.count(" ") + 1)))
    special = ["", " \n\t", known[0], unknown, f"{unknown} {unknown} {unknown}", everything, long]
    return [*special, *chosen]


def prove(data: bytes, reference: np.ndarray, texts: Sequence[str], *, exact: bool) -> Proof:
    """Compare the file's logits with the masked model's `reference` (N, C) on N texts.

    exact: the file holds fp32 values. Its logits must lie within 1e-5 of the reference, times the largest logit of
    the text where that exceeds 1, and every label must be the same. Otherwise a share of labels may change.

    Raises:
        UserError: the answers differ by more than that; nothing should be written then.
    """
    logits = karui.load(data).logits(list(texts))
    if logits.shape != reference.shape:
        raise UserError(f"not written: the file answers {logits.shape}, the masked model {reference.shape}")
    size = np.maximum(1.0, np.abs(reference.astype(np.float64)).max(axis=1))  # (N,)
    errors = np.abs(logits.astype(np.float64) - reference).max(axis=1) / size
    same = predictions(logits) == predictions(reference)
    proof = Proof(len(texts), float(errors.max()), TOLERANCE, float(same.mean()), exact)
    if exact:
        # A text whose best two answers are closer than the error itself may go either way.
        decided = margins(reference) > 2 * TOLERANCE * size
        if not proof.max_error <= TOLERANCE or not same[decided].all():  # NaN fails as well
            worst = int(np.nan_to_num(errors, nan=np.inf).argmax())
            raise UserError(
                f"not written: the file's logits differ from the masked model's by {proof.max_error:.2e}, allowed "
                f"is {TOLERANCE:.0e} (text {texts[worst][:40]!r}); please report this with the run folder"
            )
    elif not np.isfinite(errors).all() or not proof.label_agreement >= MIN_AGREEMENT:
        raise UserError(
            f"not written: rounded values keep only {proof.label_agreement:.1%} of the labels, needed "
            f"{MIN_AGREEMENT:.0%}; use --values fp16 or more --levels"
        )
    return proof


def margins(logits: np.ndarray) -> np.ndarray:
    """(N,) distance between the best answer and the next one."""
    if logits.shape[1] == 1:
        return np.abs(logits[:, 0])
    ordered = np.sort(logits, axis=1)
    return ordered[:, -1] - ordered[:, -2]
