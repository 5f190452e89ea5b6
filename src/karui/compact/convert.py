"""From a plain TextClassifier to the deployable description, every weight kept.

E embedding width, C outputs, V words.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from karui.compact.describe import plain_array, recurrent_layers
from karui.compact.weights import check_finite
from karui.runtime.format import ClassifierSpec
from karui.tasks.pair_scores import PairScores
from karui.tasks.text_classifier import TextClassifier

NORMALISATION = "words-v1"


def to_spec(
    model: TextClassifier, words: Sequence[str], labels: Sequence[str], *, max_tokens: int = 0
) -> ClassifierSpec:
    """Describe `model` (plain: after `karui.sparse.harden`) with all its words, units and columns.

    words: word i has row i + 1 of the embedding. labels: class names, two for one output. max_tokens: 0 is no
    limit.

    Raises:
        ValueError: words or labels do not fit the model, or it still holds sparse layers.
        UserError: a weight is not finite, so nothing can be folded exactly.
    """
    if not isinstance(model.embedding, nn.Embedding):
        raise ValueError(f"model.embedding is a {type(model.embedding).__name__}: call harden(model) first")  # noqa: TRY004
    table = plain_array(model.embedding.weight)
    if len(words) + 1 != len(table):
        raise ValueError(f"words must be {len(table) - 1} for this model, got {len(words)}")
    if len(labels) != max(model.n_outputs, 2):
        raise ValueError(f"labels must be {max(model.n_outputs, 2)} for this model, got {len(labels)}")
    table[0] = 0.0
    E = model.embedding_dim
    if model.output is not None:
        weight, bias = plain_array(model.output.weight), plain_array(model.output.bias)
    else:
        assert model.output_bias is not None
        weight, bias = np.zeros((model.n_outputs, 0), np.float32), plain_array(model.output_bias)
    spec = ClassifierSpec(
        words=list(words),
        labels=list(labels),
        normalisation=NORMALISATION,
        max_tokens=max_tokens,
        embedding=np.ascontiguousarray(table[:, :E]),
        layers=recurrent_layers(model.recurrent) if model.recurrent is not None else [],
        pooling=model.pooling,
        output_weight=weight,
        output_bias=bias,
        word_scores=np.ascontiguousarray(table[:, E:]) if table.shape[1] > E else None,
    )
    if model.linear is not None:
        spec = _with_linear(spec, model.linear)
    check_finite(spec)
    return spec


def _with_linear(spec: ClassifierSpec, linear: PairScores) -> ClassifierSpec:
    """Average the logits of a description with those of the linear part: (1 - share) network + share linear."""
    share = linear.share

    def mixed(network: np.ndarray | float, other: np.ndarray | float) -> np.ndarray:
        return np.asarray((1.0 - share) * network + share * other, np.float64).astype(np.float32)

    words = plain_array(linear.word_scores).astype(np.float64)
    words[0] = 0.0
    pairs = linear.pairs().cpu().numpy()
    return replace(
        spec,
        output_weight=mixed(spec.output_weight, 0.0),
        output_bias=mixed(spec.output_bias, plain_array(linear.bias)),
        word_scores=mixed(0.0 if spec.word_scores is None else spec.word_scores, words),
        pairs=pairs if len(pairs) else None,
        pair_scores=mixed(0.0, plain_array(linear.pair_scores)) if len(pairs) else None,
    )
