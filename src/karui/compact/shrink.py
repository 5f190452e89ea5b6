"""The exact, smallest twin of a text classifier: what can change an answer stays, everything else goes.

One round: (1) find outputs that are zero for every text and forget who reads them, (2) empty gates that multiply zeros,
and let biases and weights take over what is constant, (3) walk backwards from the logits and drop every unit, column
and word that they do not reach. Rounds repeat until nothing changes; the second one usually only finds that out. What
of it concerns embedding and recurrent layers is `karui.compact.stack`, which language models share.

A trap: a pruned word still advances the state, with x = 0: its token is never skipped, it only shares row 0.

E embedding width, C outputs, P pooled features, V words.
"""

from dataclasses import replace

import numpy as np

from karui.compact.stack import Reader, Stack, copied, keep_columns, shrink_stack
from karui.compact.weights import check_finite, named_arrays
from karui.runtime.format import ClassifierSpec


def shrink(spec: ClassifierSpec, *, fold: bool = True) -> ClassifierSpec:
    """Return the smallest description with the same logits for every text; the one given is not changed.

    "The same" is up to float32 rounding: sums leave out terms that are exactly zero. fold: also let a weight or bias
    take over what a constant does, which changes its value; without it every number left is one of those given.

    Raises:
        UserError: a weight is not finite.
    """
    check_finite(spec)
    spec = replace(
        spec, words=list(spec.words), layers=copied(spec.layers), output_weight=spec.output_weight.copy()
    )
    while True:
        before = _size(spec)
        output = Reader(spec.output_weight, spec.output_bias, 2 if spec.pooling == "mean+max" else 1)
        stack = Stack(spec.embedding, spec.layers, [output])
        keep_columns(stack, shrink_stack(stack, fold=fold))
        spec.embedding, spec.layers = stack.embedding, stack.layers
        spec.output_weight, spec.output_bias = output.weight, output.bias
        _drop_words(spec)
        _merge_poolings(spec)
        if _size(spec) == before:
            return spec


def _size(spec: ClassifierSpec) -> tuple[int, ...]:
    """Entries and non-zeros: no round ever raises one, so an unchanged pair is the fixed point."""
    arrays = [array for _, array in named_arrays(spec)]
    return sum(array.size for array in arrays), sum(int(np.count_nonzero(array)) for array in arrays)


def _drop_words(spec: ClassifierSpec) -> None:
    """Words whose rows are zero and that no pair needs share row 0 from now on; scores that are all zero go.

    A word that is unknown breaks its pairs, so the words of a pair whose score is not zero stay.
    """
    if spec.word_scores is not None and not spec.word_scores.any():
        spec.word_scores = None
    _drop_pairs(spec)
    used = np.any(spec.embedding, axis=1)
    used[0] = True
    if spec.word_scores is not None:
        used |= spec.word_scores.any(axis=1)
    if spec.pairs is not None:
        used[spec.pairs] = True
        spec.pairs = np.cumsum(used)[spec.pairs] - 1
    spec.words = [word for word, keep in zip(spec.words, used[1:], strict=True) if keep]
    spec.embedding = spec.embedding[used]
    if spec.word_scores is not None:
        spec.word_scores = spec.word_scores[used]


def _drop_pairs(spec: ClassifierSpec) -> None:
    """Pairs without a score go."""
    if spec.pairs is None or spec.pair_scores is None:
        return
    kept = spec.pair_scores.any(axis=1)
    spec.pairs, spec.pair_scores = spec.pairs[kept], spec.pair_scores[kept]
    if not kept.any():
        spec.pairs = spec.pair_scores = None


def _merge_poolings(spec: ClassifierSpec) -> None:
    """Where the output reads means only, or maxima only, the other half is not computed."""
    if spec.pooling != "mean+max" or not spec.output_weight.size:
        return
    P = spec.output_weight.shape[1] // 2
    mean, maximum = spec.output_weight[:, :P], spec.output_weight[:, P:]
    if not maximum.any():
        spec.pooling, spec.output_weight = "mean", np.ascontiguousarray(mean)
    elif not mean.any():
        spec.pooling, spec.output_weight = "max", np.ascontiguousarray(maximum)
