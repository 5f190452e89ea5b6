"""`compact`: from a trained model to the bytes of a file that is proven to answer alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from karui.compact.choose import Candidate, Wish, choose
from karui.compact.convert import to_spec
from karui.compact.prove import SPECIAL_TEXTS, Answer, Proof, proof_texts, prove
from karui.compact.shrink import shrink
from karui.runtime.format import ClassifierSpec, encode
from karui.sparse import harden
from karui.tasks.text_classifier import TextClassifier


@dataclass(frozen=True)
class Compacted:
    """A file and what is known about it."""

    data: bytes
    spec: ClassifierSpec
    """The shrunk description, before rounding."""

    exact_data: bytes
    """The same description stored as fp32."""

    chosen: Candidate
    tried: list[Candidate]
    exact: Proof
    """Of the same description stored as fp32: shrinking, encoding and engine change nothing."""

    proof: Proof
    """Of the file itself; the same as `exact` where it stores fp32."""


def compact(
    model: nn.Module,
    words: Sequence[str],
    labels: Sequence[str],
    *,
    reference: Answer,
    texts: Sequence[str],
    truth: np.ndarray,
    max_tokens: int = 0,
    wish: Wish | None = None,
    counts: Mapping[str, int] | None = None,
    provenance: dict[str, str] | None = None,
) -> Compacted:
    """Shrink, choose the stored values on validation documents, and prove that the answers stay.

    model: a TextClassifier, sparse or plain; it is not changed. words: word i has id i + 1. labels: class names.
    reference: the masked model's logits (N, C) of N raw texts. texts, truth (N,): validation documents and labels.
    counts: how often each word occurs in training texts; with them a budget may leave out words with little say.
    provenance: short strings kept inside the file.

    Raises:
        UserError: the file's answers are not the masked model's, or no file fits the budget.
    """
    masked = harden(model)
    if not isinstance(masked, TextClassifier):
        raise TypeError(f"model must be a TextClassifier, got {type(masked).__name__}")
    spec = shrink(to_spec(masked.eval(), words, labels, max_tokens=max_tokens))
    spec = replace(spec, provenance=dict(provenance or {}))
    samples = proof_texts(texts, spec.words, spec.pair_names())
    expected = reference(samples)
    unrounded = encode(spec, values="fp32")
    exact = prove(unrounded, expected, samples, exact=True)
    chosen, tried = choose(spec, texts, truth, wish or Wish(), counts=counts)
    proof = exact
    if chosen.values != "fp32":
        # labels of made-up texts, which may lie on the edge, say nothing about rounding
        first = SPECIAL_TEXTS if len(samples) > SPECIAL_TEXTS else 0
        proof = prove(chosen.data, expected[first:], samples[first:], exact=False)
    return Compacted(chosen.data, spec, unrounded, chosen, tried, exact, proof)
