"""Random descriptions of classifiers, and the answer of each in plain torch and numpy."""

from collections.abc import Callable

import numpy as np
import pytest

from karui.runtime.format import ClassifierSpec, Direction, RecurrentLayer
from karui.runtime.layers import KIND_ACTIVATIONS

SpecMaker = Callable[..., ClassifierSpec]
ALPHAS = np.asarray([0.0, 0.5, 0.99], np.float32)


def random_direction(
    kind: str, array: Callable[..., np.ndarray], inputs: int, units: int, *, window: int = 1, gates: int = 3
) -> Direction:
    """A direction of any kind; a Statistical Recurrent Unit has `units` + 1 statistics and half as many r."""
    if kind == "sru":
        return Direction(array(4 * units, inputs), None, array(2 * units), array(2 * units))
    if kind in ("lstm", "gru"):
        rows = (3 if kind == "gru" else 4) * units
        return Direction(array(rows, inputs), array(rows, units), array(4 * units))
    if kind == "qrnn":
        return Direction(array(gates * units, window * inputs), None, array(gates * units))
    if kind == "mingru":
        return Direction(array(2 * units, inputs), None, array(2 * units))
    stats, recur = units + 1, units // 2
    states = len(ALPHAS) * stats
    return Direction(
        array(stats, inputs), None, array(stats + recur + units), weight_r=array(recur, states),
        weight_phi=array(stats, recur), weight_o=array(units, states), alphas=ALPHAS.copy(),
    )  # fmt: skip


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
        pairs: int = 0,
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
            two = {"window": 1 + seed % 2, "output_gate": seed % 3 > 0} if kind == "qrnn" else {}
            directions = [
                random_direction(
                    kind,
                    array,
                    inputs,
                    h,
                    window=two.get("window", 1),
                    gates=3 if two.get("output_gate", True) else 2,
                )
                for h in hidden
            ]
            choices = KIND_ACTIVATIONS[kind] if kind in ("sru", "statistical") else ("identity",)
            built.append(RecurrentLayer(kind, directions, choices[seed % len(choices)], **two))
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
            **(random_pairs(words, outputs, pairs, rng) if pairs else {}),
        )

    return make


def random_pairs(words: int, outputs: int, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """`count` pairs of word ids and their scores."""
    chosen = np.sort(rng.permutation(words**2)[:count])
    scores = rng.normal(size=(count, outputs)).astype(np.float32)
    return {"pairs": np.stack(np.divmod(chosen, words), axis=1) + 1, "pair_scores": scores}
