"""Byte-exact artifacts of language models, format version 2: what is written today, and what must be read for ever.

`python tests/runtime/test_language_golden.py` writes the files anew: a new format version, unless they are equal.
"""

import sys

import numpy as np
import pytest

from karui.runtime.language_format import (
    AdaptiveOutput,
    ClassOutput,
    FullOutput,
    LanguageModelSpec,
    Tail,
    TreeOutput,
    encode_language_model,
    in_preorder,
)
from karui.runtime.layers import RecurrentLayer
from karui.runtime.model import load_language_model
from tests.runtime.test_golden import GOLDEN, array, golden_direction

WORDS = ["the", "</s>", "a", "quiet", "funny", "film", "don't", "<unk>", ",", "ß", "漢", "fun"]
V = len(WORDS)
BRANCHES = [
    [1, 2],
    [3, -1],
    [4, 5],
    [-2, -3],
    [6, -4],
    [7, 8],
    [-5, -6],
    [-7, 9],
    [-8, -9],
    [10, -10],
    [-11, -12],
]


def golden_model(
    kinds: str, output: object, projection: int | None = None, **more: object
) -> LanguageModelSpec:
    """Layers of three units over an embedding of three."""
    layers = [
        RecurrentLayer(
            kind,
            [golden_direction(kind, 3, 2 if kind == "qrnn" else 1)],
            "identity",
            2 if kind == "qrnn" else 1,
        )
        for kind in kinds.split()
    ]
    return LanguageModelSpec(
        words=WORDS,
        eos=1,
        unk=7,
        embedding=array(V, 3, start=5),
        layers=layers,
        output=output,  # pyright: ignore[reportArgumentType]
        projection_weight=None if projection is None else array(projection, 3, start=6),
        projection_bias=None if projection is None else array(projection, start=7),
        provenance={"recipe": "golden"},
        **more,  # pyright: ignore[reportArgumentType]
    )


TREE = in_preorder(np.asarray(BRANCHES))[0]
CLASSES = np.asarray([0, 1, 0, 2, 2, 1, 1, 0, 2, 2, 0, 1])
TAIL_OF = np.asarray([0, 0, 0, 1, 2, 1, 2, 0, 1, 2, 2, 1])  # 4 words each
ADAPTIVE = AdaptiveOutput(
    TAIL_OF, array(6, 3, start=20), array(6, start=21),
    [
        Tail(array(2, 3, start=22), array(4, 2, start=23), array(4, start=24)),
        Tail(array(1, 3, start=25), array(4, 1, start=26), array(4, start=27)),
    ],
)  # fmt: skip
CASES = {
    "tiny-lm": (golden_model("sru", FullOutput(None, array(V, start=8))), {"values": "int8"}),
    "lm-full": (
        golden_model(
            "lstm gru",
            FullOutput(array(V, 2, start=9), array(V, start=8)),
            2,
            tokenisation="text-v1",
            lower=True,
        ),
        {"values": "fp16"},
    ),
    "lm-classes": (
        golden_model(
            "statistical",
            ClassOutput(
                CLASSES, array(3, 3, start=10), array(3, start=11), array(V, 3, start=12), array(V, start=13)
            ),
        ),
        {"values": "fp32", "coding": False},
    ),
    "lm-adaptive": (golden_model("qrnn", ADAPTIVE), {"values": "int8", "coding": False, "levels": 15}),
    "lm-tree": (
        golden_model(
            "mingru",
            TreeOutput(TREE, array(V - 1, 3, start=14), array(V - 1, start=15)),
            tokenisation="chars-v1",
        ),
        {"values": "fp32"},
    ),
}
TEXT = "the quiet film , don't\na funny thing"
ANSWERS = {
    "tiny-lm": -25.858578,
    "lm-full": -27.438293,
    "lm-classes": -50.380951,
    "lm-adaptive": -29.939135,
    "lm-tree": -108.528122,
}


@pytest.mark.parametrize("name", CASES)
def test_written_bytes_are_the_golden_ones(name: str) -> None:
    spec, options = CASES[name]
    assert encode_language_model(spec, **options) == (GOLDEN / f"{name}.karui").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_golden_answers(name: str) -> None:
    model = load_language_model(GOLDEN / f"{name}.karui")
    assert model.words == sorted(WORDS, key=str.encode)
    assert model.provenance == {"recipe": "golden"}
    assert abs(model.score(TEXT).log_prob - ANSWERS[name]) <= 1e-4


if __name__ == "__main__":
    for case, (description, choices) in CASES.items():
        data = encode_language_model(description, **choices)
        (GOLDEN / f"{case}.karui").write_bytes(data)
        answer = load_language_model(data).score(TEXT).log_prob
        sys.stdout.write(f'"{case}": {answer:.6f},  # {len(data)} bytes\n')
