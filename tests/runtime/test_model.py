"""The classifier as users call it: texts in, answers out, in pieces, and why."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import karui
from karui.errors import ArtifactError, UserError
from karui.runtime.format import encode
from karui.runtime.layers import KINDS
from karui.runtime.model import Classifier, load
from karui.runtime.tokenise import tokenise

TEXT = "wä0 Wb1 unknown wc2! <br /> wh7 wg6, wä8 wb9"


def test_shapes_labels_and_probabilities(make_spec) -> None:
    for labels in (2, 4):
        model = Classifier(make_spec(labels=labels))
        texts = [TEXT, "", "wd3 we4"]
        logits, probabilities = model.logits(texts), model.predict_proba(texts)
        assert logits.shape == (3, 1 if labels == 2 else labels)
        assert probabilities.shape == (3, labels)
        assert probabilities.dtype == np.float32
        assert np.allclose(probabilities.sum(1), 1)
        assert model.predict(texts) == [model.labels[k] for k in probabilities.argmax(1)]
        assert model.predict(TEXT) == model.predict(texts)[0]
        assert np.array_equal(model.predict_proba(TEXT), probabilities[0])
        assert model.predict([]) == []
    wanted = np.exp(logits - logits.max(1, keepdims=True))
    assert np.allclose(probabilities, wanted / wanted.sum(1, keepdims=True), atol=1e-6)
    two = Classifier(make_spec())
    assert np.allclose(two.predict_proba(TEXT), two.predict_proba([TEXT, ""])[0], atol=1e-7)
    assert np.allclose(two.predict_proba(TEXT)[1], 1 / (1 + np.exp(-two.logits(TEXT)[0])))


def test_texts_are_tokenised_and_cut(make_spec) -> None:
    spec = make_spec(seed=2)
    ids = [np.asarray([spec.words.index(word) + 1 if word in spec.words else 0 for word in tokenise(TEXT)])]
    assert np.array_equal(Classifier(spec).logits([TEXT]), Classifier(spec).logits_ids(ids))
    short = Classifier(replace(spec, max_tokens=3))
    assert np.array_equal(short.logits([TEXT]), Classifier(spec).logits_ids([ids[0][:3]]))
    assert np.array_equal(Classifier(spec).logits(["", "?"]), Classifier(spec).logits_ids([[], [0]]))


def test_extreme_logits_give_finite_probabilities(make_spec) -> None:
    for labels in (2, 3):
        spec = make_spec(labels=labels, layers=0, width=0)
        spec.output_bias[:] = 1e5 * np.arange(1, len(spec.output_bias) + 1)
        assert np.allclose(Classifier(spec).predict_proba(""), np.eye(labels)[-1])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_stream_equals_the_whole_text(make_spec, kind: str, data: st.DataObject) -> None:
    pooling = data.draw(st.sampled_from(["last", "mean", "max", "mean+max"]))
    spec = make_spec(
        kind,
        hidden=(5,),
        layers=data.draw(st.integers(0, 2)),
        pooling=pooling,
        labels=3,
        seed=data.draw(st.integers(0, 5)),
    )
    model = Classifier(replace(spec, max_tokens=data.draw(st.sampled_from([0, 4]))))
    pieces = data.draw(
        st.lists(
            st.sampled_from([*spec.words[:6], " ", "'", "<br", " />", "!", "w", "ä0", "漢", "?"]), max_size=12
        )
    )
    stream, text = model.stream(), ""
    for piece in pieces:
        text += piece
        assert np.abs(stream.feed(piece).logits() - model.logits(text)).max() <= 1e-5
    assert stream.predict() == model.predict(text)
    assert np.allclose(stream.predict_proba(), model.predict_proba(text), atol=1e-5)


def test_a_stream_needs_one_direction(make_spec) -> None:
    with pytest.raises(UserError, match="train with one direction"):
        Classifier(make_spec()).stream()
    with pytest.raises(TypeError, match="got int: 3"):
        Classifier(make_spec(hidden=(3,))).stream().feed(3)  # pyright: ignore[reportArgumentType]


def test_a_stream_outlives_its_classifier(make_spec) -> None:
    spec = make_spec(hidden=(3,))
    wanted = Classifier(spec).logits(TEXT)
    stream = Classifier(spec).stream()
    assert np.abs(stream.feed(TEXT).logits() - wanted).max() <= 1e-5


def test_contributions_are_exact_occlusions(make_spec) -> None:
    spec = make_spec(labels=2)
    model = Classifier(spec)
    base = model.logits(TEXT)[0]
    parts = model.contributions(TEXT, "label 1")
    assert [part.word.lower() for part in parts] == tokenise(TEXT)
    for part in parts:
        assert TEXT[part.start : part.end] == part.word
        without = model.logits(TEXT[: part.start] + " unknown " + TEXT[part.end :])[0]
        assert part.weight == pytest.approx(base - without, abs=1e-5)
    assert parts[2] == ("unknown", 8, 15, 0.0)
    other = model.contributions(TEXT, "label 0")
    assert [part.weight for part in other] == [-part.weight for part in parts]
    assert model.contributions(TEXT) == (parts if base > 0 else other)
    assert model.contributions("") == []
    with pytest.raises(UserError, match="there is no label 'x'; the labels are label 0, label 1"):
        model.contributions(TEXT, "x")


def test_contributions_of_several_labels(make_spec) -> None:
    model = Classifier(make_spec(labels=3))
    column = model.labels.index(model.predict(TEXT))
    part = model.contributions(TEXT)[0]
    assert part.weight == pytest.approx(
        model.logits(TEXT)[column] - model.logits("unknown" + TEXT[3:])[column], abs=1e-5
    )


@pytest.mark.parametrize("value", [3, None, b"bytes", ["text", 3], [None]])
def test_what_is_no_text_is_named(make_spec, value: object) -> None:
    wrong = value[-1] if isinstance(value, list) else value
    with pytest.raises(TypeError, match=f"{type(wrong).__name__}: "):
        Classifier(make_spec()).predict(value)  # pyright: ignore[reportArgumentType]


def test_an_answer_that_is_not_finite_is_refused(make_spec) -> None:
    spec = make_spec(layers=0, width=1, scores=False, pooling="mean", density=1.0)
    spec.embedding[1] = spec.output_weight[:] = 3e38
    with pytest.raises(ArtifactError, match="not a finite number"):
        Classifier(spec, name="m.karui").logits("wä0")


def test_load(make_spec, tmp_path) -> None:
    spec = make_spec()
    path = tmp_path / "model.karui"
    path.write_bytes(encode(spec))
    model = karui.load(path)
    assert isinstance(model, Classifier)
    assert model.words == sorted(spec.words)
    assert "30 words" in repr(model)
    assert np.array_equal(model.logits([TEXT]), load(path.read_bytes()).logits([TEXT]))
    assert np.array_equal(model.logits([TEXT]), Classifier(spec).logits([TEXT]))
