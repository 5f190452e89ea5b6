"""How large a description is: live units, numbers that are not zero, and the operations that it takes."""

import numpy as np

from karui.compact.weights import named_arrays
from karui.runtime.format import ClassifierSpec

MULTIPLY_ADD = 2


def architecture(spec: ClassifierSpec) -> list[int]:
    """Words, columns of the embedding, and units of each direction of each layer, from the input on."""
    sizes = [size for layer in spec.layers for size in layer.hidden_sizes]
    return [len(spec.words), spec.embedding.shape[1], *sizes]


def kept_numbers(spec: ClassifierSpec) -> int:
    """Numbers that are not zero, biases among them."""
    return sum(int(np.count_nonzero(array)) for _, array in named_arrays(spec))


def matrix_flops(spec: ClassifierSpec, tokens: int) -> tuple[float, float]:
    """FLOPs of the matrix products of a text of `tokens` words, two a multiplication; and without those of zeros.

    Matrices of recurrent layers count once a word, that of the output once; a lookup and vectors count nothing.
    """
    dense = sparse = 0.0
    for name, array in named_arrays(spec):
        if array.ndim == 2 and (name.startswith("layers.") or name == "output_weight"):
            uses = MULTIPLY_ADD * (tokens if name.startswith("layers.") else 1)
            dense += uses * array.size
            sparse += uses * int(np.count_nonzero(array))
    return dense, sparse
