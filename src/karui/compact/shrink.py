"""The exact, smallest twin of a description: what can change an answer stays, everything else goes.

One round: (1) find outputs that are zero for every text and forget who reads them, (2) empty gates that multiply zeros,
and let biases and weights take over what is constant, (3) walk backwards from the logits and drop every unit, column
and word that they do not reach. Rounds repeat until nothing changes; the second one usually only finds that out.

Traps. A pruned word still advances the state, with x = 0: its token is never skipped, it only shares row 0.
A unit without live inputs is driven by its bias and stays while it is read. The highway of the Simple Recurrent
Unit passes x even where the cell is dead. The state of a GRU leaks into itself, which alone keeps nothing alive.

E embedding width, I inputs of a layer, H units of a direction, G gate blocks, C outputs, P pooled features,
V words.
"""

from dataclasses import replace

import numpy as np

from karui.compact import statistics
from karui.compact.fold import fold_constants, pooled_copies
from karui.compact.reach import live_units, never_active, without_idle_gates
from karui.compact.weights import check_finite, named_arrays
from karui.runtime.format import FIELDS, ClassifierSpec, RecurrentLayer, bias_blocks, weight_blocks


def shrink(spec: ClassifierSpec, *, fold: bool = True) -> ClassifierSpec:
    """Return the smallest description with the same logits for every text; the one given is not changed.

    "The same" is up to float32 rounding: sums leave out terms that are exactly zero. fold: also let a weight or bias
    take over what a constant does, which changes its value; without it every number left is one of those given.

    Raises:
        UserError: a weight is not finite.
    """
    check_finite(spec)
    spec = _copy(spec)
    while True:
        before = _size(spec)
        _forget_zero_outputs(spec)
        if fold:
            fold_constants(spec)
        _drop_unread(spec)
        _drop_words(spec)
        _merge_poolings(spec)
        if _size(spec) == before:
            return spec


def _copy(spec: ClassifierSpec) -> ClassifierSpec:
    """Deep enough that shrinking never writes into the caller's arrays."""
    layers = []
    for layer in spec.layers:
        directions = [
            replace(d, **{name: array.copy() for name in FIELDS if (array := getattr(d, name)) is not None})
            for d in layer.directions
        ]
        layers.append(replace(layer, directions=directions))
    embedding, output_weight = spec.embedding.copy(), spec.output_weight.copy()
    return replace(
        spec,
        words=list(spec.words),
        layers=layers,
        embedding=embedding,
        output_weight=output_weight,
        output_bias=spec.output_bias.copy(),
    )


def _size(spec: ClassifierSpec) -> tuple[int, ...]:
    """Entries and non-zeros: no round ever raises one, so an unchanged pair is the fixed point."""
    arrays = [array for _, array in named_arrays(spec)]
    return sum(array.size for array in arrays), sum(int(np.count_nonzero(array)) for array in arrays)


def _forget_zero_outputs(spec: ClassifierSpec) -> None:
    """Clear all weights that read something that is zero for every text, and gates that act on nothing."""
    zero = ~spec.embedding.any(axis=0)  # (E,)
    for layer in spec.layers:
        outputs = []
        for direction in layer.directions:
            direction.weight_ih[:, np.tile(zero, layer.window)] = 0.0
            silent = never_active(layer, direction)  # (H,)
            if direction.weight_hh is not None:
                direction.weight_hh[:, silent] = 0.0
            without_idle_gates(layer, direction)
            outputs.append(silent)
        zero = np.concatenate(outputs)
    spec.output_weight[:, np.tile(zero, pooled_copies(spec))] = 0.0


def _drop_unread(spec: ClassifierSpec) -> None:
    """Remove units and columns that the logits do not depend on, from the last layer to the embedding."""
    copies = pooled_copies(spec)
    # (D*H,): features of the last layer that any output reads, in any of their pooled copies
    read = np.any(spec.output_weight.reshape(len(spec.output_weight) * copies, -1), axis=0)
    for k in reversed(range(len(spec.layers))):
        kept = live_units(spec.layers[k], read)
        _cut_readers(spec, k + 1, np.concatenate(kept))
        spec.layers[k] = layer = keep_units(spec.layers[k], kept)
        _narrow_window(layer)
        by_input = [d.weight_ih.any(axis=0).reshape(layer.window, -1) for d in layer.directions]
        read = np.asarray(np.concatenate(by_input).any(axis=0))
    _cut_readers(spec, 0, read)
    spec.embedding = columns(spec.embedding, read)
    _drop_layers(spec)


def _cut_readers(spec: ClassifierSpec, k: int, features: np.ndarray) -> None:
    """Whoever reads the input of layer k (the output where there is no such layer) keeps the columns `features`."""
    if k == len(spec.layers):
        spec.output_weight = columns(spec.output_weight, np.tile(features, pooled_copies(spec)))
        return
    for direction in spec.layers[k].directions:
        direction.weight_ih = columns(direction.weight_ih, np.tile(features, spec.layers[k].window))


def _narrow_window(layer: RecurrentLayer) -> None:
    """A QRNN that never reads the input before needs no second half of its columns."""
    if layer.window == 1 or any(d.weight_ih[:, d.weight_ih.shape[1] // 2 :].any() for d in layer.directions):
        return
    for direction in layer.directions:
        direction.weight_ih = columns(direction.weight_ih, np.arange(direction.weight_ih.shape[1] // 2))
    layer.window = 1


def keep_units(layer: RecurrentLayer, kept: list[np.ndarray]) -> RecurrentLayer:
    """Keep the units where `kept` (H,), one a direction, is True: their rows in every gate, their columns."""
    directions = []
    gates, biases = (
        count(layer.kind, output_gate=layer.output_gate) for count in (weight_blocks, bias_blocks)
    )
    for direction, units in zip(layer.directions, kept, strict=True):
        if layer.kind == "statistical":
            directions.append(statistics.keep_outputs(direction, units))
            continue
        rows = np.tile(units, gates)
        weight_hh, weight_c = direction.weight_hh, direction.weight_c
        directions.append(
            replace(
                direction,
                weight_ih=direction.weight_ih[rows],
                weight_hh=None if weight_hh is None else columns(weight_hh[rows], units),
                bias=direction.bias[np.tile(units, biases)],
                weight_c=None if weight_c is None else weight_c[np.tile(units, 2)],
            )
        )
    return replace(layer, directions=directions)


def columns(array: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The columns that `kept` names, by booleans or positions, as a contiguous array."""
    return np.ascontiguousarray(array[:, kept])


def _drop_layers(spec: ClassifierSpec) -> None:
    """Remove an idle reverse direction, and all layers below one that nothing is read from.

    A layer above an empty one has no inputs left and runs on its biases; it then stands first. The embedding has no
    columns left then, because the empty layer reads none.
    """
    empty = [k for k, layer in enumerate(spec.layers) if not any(len(d.bias) for d in layer.directions)]
    if empty:
        spec.layers = spec.layers[empty[-1] + 1 :]
    for layer in spec.layers:
        if len(layer.directions) == 2 and not len(layer.directions[1].bias):
            layer.directions = layer.directions[:1]


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
