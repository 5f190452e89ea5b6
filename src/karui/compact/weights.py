"""The arrays of a description, by the names that the format gives their records."""

from collections.abc import Iterator

import numpy as np

from karui.errors import UserError
from karui.runtime.format import FIELDS, ClassifierSpec


def named_arrays(spec: ClassifierSpec) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of every weight of a description."""
    yield "embedding", spec.embedding
    for k, layer in enumerate(spec.layers):
        for d, direction in enumerate(layer.directions):
            for field in FIELDS:
                if (array := getattr(direction, field)) is not None:
                    yield f"layers.{k}.{'reverse' if d else 'forward'}.{field}", array
    yield "output_weight", spec.output_weight
    yield "output_bias", spec.output_bias
    if spec.word_scores is not None:
        yield "word_scores", spec.word_scores
    if spec.pair_scores is not None:
        yield "pair_scores", spec.pair_scores


def check_finite(spec: ClassifierSpec) -> None:
    """Raise UserError naming the first weight that holds NaN or infinity: zero times infinity is not zero."""
    for name, array in named_arrays(spec):
        if not np.isfinite(array).all():
            raise UserError(f"the model's {name} holds NaN or infinity: train again with a lower lr")
