"""Random descriptions of classifiers, and the answer of each in plain torch and numpy."""

from collections.abc import Callable

import numpy as np
import pytest

from karui.runtime.format import ClassifierSpec, Direction, RecurrentLayer

SpecMaker = Callable[..., ClassifierSpec]


@pytest.fixture(scope="session")
def make_spec() -> SpecMaker:
    """A function that makes a random description; `hidden` are the sizes of the directions of every layer."""

    def make(
        kind: str = "sru",
        *,
        words: int = 30,
        width: int = 5,
        hidden: tuple[int, ...] = (4, 3),
        layers: int = 1,
        labels: int = 2,
        pooling: str = "mean+max",
        scores: bool = True,
        density: float = 0.5,
        seed: int = 0,
    ) -> ClassifierSpec:
        rng = np.random.default_rng(seed)

        def array(*shape: int) -> np.ndarray:
            scale = (
                1 / np.sqrt(shape[1]) if len(shape) == 2 and shape[1] else 1.0
            )  # outputs of size 1: errors stay small
            return (rng.normal(size=shape) * scale * (rng.random(shape) < density)).astype(np.float32)

        def table(cols: int) -> np.ndarray:
            return np.concatenate([np.zeros((1, cols), np.float32), array(words, cols)])

        inputs, built = width, []
        for _ in range(layers):
            gates = 3 if kind == "gru" else 4
            directions = [
                Direction(array(gates * h, inputs), None, array(2 * h), array(2 * h))
                if kind == "sru"
                else Direction(array(gates * h, inputs), array(gates * h, h), array(4 * h))
                for h in hidden
            ]
            built.append(
                RecurrentLayer(
                    kind, directions, ("identity", "tanh")[seed % 2] if kind == "sru" else "identity"
                )
            )
            inputs = sum(hidden)
        outputs = 1 if labels == 2 else labels
        pooled = inputs * (2 if pooling == "mean+max" else 1)
        return ClassifierSpec(
            words=[f"w{'äbcdefgh'[number % 8]}{number}" for number in range(words)],
            labels=[f"label {k}" for k in range(labels)],
            embedding=table(width),
            layers=built,
            pooling=pooling,
            output_weight=array(outputs, pooled),
            output_bias=array(outputs),
            word_scores=table(outputs) if scores else None,
        )

    return make
