"""Byte-exact artifacts of format version 1: what is written today, and what must be read for ever.

`python tests/runtime/test_golden.py` writes the files anew; that is a new format version unless they come out equal.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karui.runtime.format import ClassifierSpec, Direction, RecurrentLayer, encode
from karui.runtime.model import load

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
WORDS = [
    "!",
    "?",
    "bad",
    "boring",
    "don't",
    "dull",
    "excellent",
    "fun",
    "funny",
    "good",
    "great",
    "quiet",
    "worst",
    "ß",
    "漢",
]


def array(*shape: int, start: int) -> np.ndarray:
    """Numbers that no library has a say in: multiples of 1/8 from a linear congruence, some of them zero."""
    count, state, out = int(np.prod(shape)), start, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        value = state >> 16
        out.append(0.0 if value % 3 == 0 else (value % 17 - 8) / 8)
    return np.asarray(out, np.float32).reshape(shape)


def golden_direction(kind: str, h: int, window: int) -> Direction:
    """A direction over three inputs; a Statistical Recurrent Unit has 4 statistics, 2 scales and 3 r."""
    if kind == "statistical":
        return Direction(
            array(4, 3, start=h),
            None,
            array(4 + 3 + h, start=h + 2),
            weight_r=array(3, 8, start=h + 3),
            weight_phi=array(4, 3, start=h + 4),
            weight_o=array(h, 8, start=h + 5),
            alphas=np.asarray([0.0, 0.875], np.float32),
        )
    gates = {"gru": 3, "qrnn": 3, "mingru": 2}.get(kind, 4)
    biases = {"sru": 2, "qrnn": 3, "mingru": 2}.get(kind, 4)
    return Direction(
        array(gates * h, 3 * window, start=h),
        array(gates * h, h, start=h + 1) if kind in ("lstm", "gru") else None,
        array(biases * h, start=h + 2),
        array(2 * h, start=h + 3) if kind == "sru" else None,
    )


def golden_spec(
    kind: str, hidden: tuple[int, ...], labels: list[str], pooling: str, activation: str = "identity"
) -> ClassifierSpec:
    """A small classifier; the word "!" has no embedding."""
    outputs = 1 if len(labels) == 2 else len(labels)
    window = 2 if kind == "qrnn" else 1
    directions = [golden_direction(kind, h, window) for h in hidden]
    embedding = np.concatenate([np.zeros((1, 3), np.float32), array(len(WORDS), 3, start=7)])
    scores = np.concatenate([np.zeros((1, outputs), np.float32), array(len(WORDS), outputs, start=8)])
    pooled = sum(hidden) * (2 if pooling == "mean+max" else 1)
    return ClassifierSpec(
        words=WORDS,
        labels=labels,
        embedding=embedding,
        layers=[RecurrentLayer(kind, directions, activation, window)],
        pooling=pooling,
        output_weight=array(outputs, pooled, start=9),
        output_bias=array(outputs, start=10),
        word_scores=scores,
        max_tokens=50,
        provenance={"recipe": "golden"},
    )


CASES = {
    "tiny": (
        golden_spec("sru", (4, 3), ["negative", "positive"], "mean+max", "tanh"),
        {"values": "int8", "levels": 15},
    ),
    "sru": (golden_spec("sru", (5,), ["a", "b", "c"], "last"), {"values": "fp16"}),
    "lstm": (golden_spec("lstm", (3, 2), ["no", "yes"], "mean"), {"values": "fp32", "coding": False}),
    "gru": (
        golden_spec("gru", (4,), ["no", "yes"], "max"),
        {"values": "int8", "coding": False, "layout": "row-sparse"},
    ),
    "statistical": (
        golden_spec("statistical", (4, 2), ["no", "yes"], "mean+max", "relu"),
        {"values": "int8", "levels": 15},
    ),
    "qrnn": (golden_spec("qrnn", (3, 2), ["a", "b", "c"], "mean"), {"values": "fp16"}),
    "mingru": (golden_spec("mingru", (5,), ["no", "yes"], "last"), {"values": "fp32"}),
    "relu": (golden_spec("sru", (3,), ["no", "yes"], "max", "relu"), {"values": "int8", "coding": False}),
}
PAIRS = np.asarray([[1, 5], [3, 3], [9, 1], [9, 6], [12, 9], [15, 2]])  # two of them are in the text
CASES["pairs"] = (
    replace(
        golden_spec("sru", (4,), ["a", "b", "c"], "mean"), pairs=PAIRS, pair_scores=array(6, 3, start=11)
    ),
    {"values": "int8", "levels": 15},
)
TEXT = "A quiet, funny film! Don't call it dull."
ANSWERS = {
    "tiny": [1.087845],
    "sru": [0.357772, 0.431113, 0.269884],
    "lstm": [0.662299],
    "gru": [0.525511],
    "statistical": [0.16605],
    "qrnn": [0.113612, 0.307582, 0.4006],
    "mingru": [-1.35362],
    "relu": [-0.284673],
    "pairs": [0.172273, -0.230975, 0.321467],
}


@pytest.mark.parametrize("name", CASES)
def test_written_bytes_are_the_golden_ones(name: str) -> None:
    spec, options = CASES[name]
    assert encode(spec, **options) == (GOLDEN / f"{name}.karui").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_golden_answers(name: str) -> None:
    model = load(GOLDEN / f"{name}.karui")
    assert model.words == sorted(WORDS)
    assert model.spec.provenance == {"recipe": "golden"}
    assert np.abs(model.logits(TEXT) - ANSWERS[name]).max() <= 1e-5


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case, (description, choices) in CASES.items():
        data = encode(description, **choices)
        (GOLDEN / f"{case}.karui").write_bytes(data)
        sys.stdout.write(f"{case} {len(data)} {np.round(load(data).logits(TEXT), 6).tolist()}\n")
