"""Shrunk descriptions through the file and the runtime: encoded, read and answered as the plain forward does."""

import numpy as np
import pytest

import karui
from karui.compact.convert import to_spec
from karui.compact.shrink import shrink
from karui.nn.registry import RECURRENT
from karui.runtime.format import encode
from tests.compact.build import describe, drawn, layer, random_model, sizes, texts, torch_logits, zeros
from tests.compact.forward import logits

WORDS = [f"w{i}" for i in range(25)]


def answers(spec, documents, **how):
    return karui.load(encode(spec, **how)).logits([" ".join(document) for document in documents])


def assert_close(found, expected):
    np.testing.assert_array_less(np.abs(found - expected), 1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean+max"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_torch_and_the_shrunk_file_answer_alike(kind, pooling):
    for case, density in enumerate((0.03, 0.15, 0.5)):
        model = random_model(
            kind,
            density=density,
            seed=case,
            n_classes=2 + case,
            embedding_dim=6,
            hidden_size=4,
            num_layers=1 + case % 2,
            pooling=pooling,
            word_scores=case != 1,
            activation=("tanh", "identity")[case % 2],
        )
        full = to_spec(model, WORDS, [str(i) for i in range(max(2, model.n_outputs))])
        small, documents = shrink(full), texts(WORDS, seed=case)
        assert_close(answers(small, documents), torch_logits(model, WORDS, documents))
        assert len(encode(small)) <= len(encode(full))


@pytest.mark.parametrize("kind", ["sru", "lstm", "gru", "statistical", "qrnn"])
@pytest.mark.parametrize("pooling", ["last", "mean+max"])
def test_a_direction_without_units(kind, pooling):
    spec = describe([layer(kind, zeros(kind, 2, 3), drawn(kind, 2, 2))], pooling=pooling)
    small = shrink(spec)
    assert sizes(small)[2] == [[0, 2]]
    assert_close(answers(small, texts(spec.words)), logits(spec, texts(spec.words)))


def test_a_layer_without_inputs():
    lower, upper = layer("lstm", drawn("lstm", 2, 2)), layer("lstm", drawn("lstm", 2, 2, seed=1))
    upper.directions[0].weight_ih[:] = 0.0
    spec = describe([lower, upper], pooling="mean+max", scores=True)
    small = shrink(spec)
    assert small.embedding.shape == (4, 0)
    assert_close(answers(small, texts(spec.words)), logits(spec, texts(spec.words)))


@pytest.mark.parametrize("scores", [True, False])
def test_no_layers_and_no_words(scores):
    spec = describe([layer("sru", zeros("sru", 2, 2))], scores=scores, outputs=3)
    small = shrink(spec)
    assert_close(answers(small, texts(spec.words)), logits(spec, texts(spec.words)))
    assert len(encode(small)) < (110 if scores else 60)


def test_the_limit_of_tokens():
    model = random_model("gru", density=1.0, seed=4, n_classes=2, embedding_dim=3, hidden_size=2)
    small = shrink(to_spec(model, WORDS, ["bad", "good"], max_tokens=4))
    documents = texts(WORDS)
    cut = [document[:4] for document in documents]
    assert_close(answers(small, documents), torch_logits(model, WORDS, cut))
