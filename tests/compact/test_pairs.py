"""A linear part of words and pairs: folded into the description, shrunk, rounded, left out, and proven."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import karui
from karui.compact.build import compact
from karui.compact.choose import Wish, choose, least_say, pair_say
from karui.compact.convert import to_spec
from karui.compact.prove import proof_texts, prove
from karui.compact.rounding import encode_rounded, groups, rounded, without_pairs, without_words
from karui.compact.shrink import shrink
from karui.errors import UserError
from karui.runtime.format import encode
from tests.compact import forward
from tests.compact.build import describe, random_model, texts, torch_logits

WORDS = [f"w{i:02}" for i in range(25)]


def model(*, share=0.4, kind="gru", classes=3, density=0.5, seed=2, **choices):
    sizes = {"embedding_dim": 4, "hidden_size": 3} | choices
    return random_model(kind, density=density, seed=seed, n_classes=classes, linear_share=share, **sizes)


def with_pairs(pairs, scores, **choices):
    """A description without layers around given pairs."""
    spec = describe([], words=6, scores=True, **choices)
    scores = np.asarray(scores, np.float32).reshape(len(pairs), -1)
    return replace(spec, pairs=np.asarray(pairs), pair_scores=scores)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["gru", "sru", "statistical-ru", "none"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_description_answers_as_the_average(share, kind, classes):
    scores = {} if kind == "none" else {"word_scores": share < 0.5}
    mixed = model(share=share, kind=kind, classes=classes, **scores)
    spec = to_spec(mixed, WORDS, [str(k) for k in range(classes)])
    documents = [*texts(WORDS), [f"w{i % 25:02}" for i in range(60)]]
    expected = torch_logits(mixed, WORDS, documents)
    allowed = 1e-5 * np.maximum(1.0, np.abs(expected).max(axis=1))
    for each in (spec, shrink(spec)):
        assert (np.abs(forward.logits(each, documents) - expected).max(axis=1) <= allowed).all()
    joined = [" ".join(document) for document in documents]
    file = karui.load(encode(shrink(spec)))
    assert (np.abs(file.logits(joined) - expected).max(axis=1) <= allowed).all()
    without = replace(spec, pairs=None, pair_scores=None)
    assert np.abs(forward.logits(without, documents) - expected).max() > 1e-2


def test_a_linear_part_without_pairs_makes_no_list():
    mixed = model()
    assert mixed.linear is not None
    mixed.linear.keys, mixed.linear.pair_scores = mixed.linear.keys[:0], mixed.linear.pair_scores[:0]
    assert to_spec(mixed, WORDS, list("abc")).pairs is None


def test_pairs_without_a_score_go_and_words_that_only_pairs_use_stay():
    spec = with_pairs([[1, 2], [2, 6], [4, 6], [5, 5]], [1.0, 2.0, 0.0, 0.0])
    spec.embedding[2:] = 0.0
    spec.word_scores[2:] = 0.0
    small = shrink(spec)
    assert small.words == ["w0", "w1", "w5"]
    assert small.pairs.tolist() == [[1, 2], [2, 3]]
    assert small.pair_scores.tolist() == [[1.0], [2.0]]
    assert spec.pairs.tolist()[0] == [1, 2]  # the one given is as it was
    assert len(spec.words) == 6
    documents = texts(spec.words, count=30)
    assert np.abs(forward.logits(small, documents) - forward.logits(spec, documents)).max() < 1e-6
    spec.pair_scores[:] = 0.0
    assert shrink(spec).pairs is None
    assert shrink(spec).words == ["w0"]


def test_pairs_alone_answer():
    spec = with_pairs([[1, 2]], [1.5])
    spec.embedding[:], spec.word_scores[:], spec.output_weight[:] = 0.0, 0.0, 0.0
    small = shrink(spec)
    assert small.word_scores is None
    assert small.words == ["w0", "w1"]
    found = karui.load(encode(small)).logits(["w0 w1", "w1 w0", "w0 x w1", "w0 w1 w0 w1"])
    assert found[:, 0] - spec.output_bias[0] == pytest.approx([1.5 / 2**0.5, 0, 0, 1.5], abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_named(bad):
    spec = with_pairs([[1, 2]], [bad])
    with pytest.raises(UserError, match="the model's pair_scores holds NaN"):
        shrink(spec)


def test_the_file_holds_the_rounded_scores():
    spec = shrink(to_spec(model(), WORDS, list("abc")))
    assert "pair_scores" in groups(spec)
    levels = dict.fromkeys(groups(spec), 63) | {"pair_scores": 2}
    small, scales = rounded(spec, levels)
    held = karui.load(encode_rounded(spec, levels)).spec
    assert held.pair_names() == small.pair_names()
    np.testing.assert_array_equal(held.pair_scores, small.pair_scores)
    assert len(np.unique(np.abs(small.pair_scores))) <= 3
    assert len(small.pairs) < len(spec.pairs)  # what rounds to zero goes
    assert scales["pair_scores"] > 0


def test_a_word_that_is_left_out_takes_its_pairs_along():
    spec = with_pairs([[1, 2], [2, 6], [4, 5]], [1.0, 2.0, 3.0])
    small = shrink(without_words(spec, [1]))
    assert small.pair_names() == ["w3 w4"]
    assert "w1" not in small.words
    assert shrink(without_pairs(spec, [0, 2])).pair_names() == ["w1 w5"]
    assert len(shrink(without_pairs(spec, [])).pairs) == 3
    assert spec.pair_scores.all()


def test_the_say_of_pairs_and_their_words():
    spec = with_pairs([[1, 2], [3, 4], [4, 3]], [2.0, 1.0, 1.0])
    spec.embedding[:] = 0.0
    spec.word_scores[1:] = 1e-6
    counts = {"w0": 3, "w1": 2, "w2": 9, "w3": 8, "w2 w3": 7, "w4": 1, "w5": 2}
    assert pair_say(spec, counts).tolist() == [4.0, 3.5, 4.0]  # without a count: as often as the rarer word
    assert len(pair_say(replace(spec, pairs=None, pair_scores=None), counts)) == 0
    order = least_say(spec, karui.load(encode(spec)), counts)
    assert order[:2].tolist() == [4, 5]  # in no pair
    assert set(order[-2:].tolist()) == {2, 3}  # in two


def test_a_budget_leaves_out_pairs_and_keeps_answers():
    spec = shrink(to_spec(model(density=0.9, classes=2), WORDS, ["no", "yes"]))
    random = np.random.default_rng(0)
    valid = [" ".join(random.choice(WORDS, 9)) for _ in range(120)]
    labels = (karui.load(encode(spec)).logits(valid)[:, 0] > 0).astype(np.int64)
    counts = dict.fromkeys(WORDS, 5)
    whole = len(encode(spec, values="int8"))
    chosen, tried = choose(spec, valid, labels, Wish(max_bytes=int(0.8 * whole)), counts=counts)
    assert len(chosen.data) <= 0.8 * whole
    assert any("% of the pairs" in each.name for each in tried)
    fewer = next(each for each in tried if each.levels.get("pairs") == 95)
    assert len(karui.load(fewer.data).spec.pairs) < len(spec.pairs)
    without = choose(spec, valid, labels, Wish(max_bytes=int(0.8 * whole)))[1]
    assert not any("pairs" in each.levels for each in without)


def test_the_proof_reads_every_pair_and_finds_a_changed_one():
    mixed = model(classes=2)
    spec = shrink(to_spec(mixed, WORDS, ["no", "yes"]))
    samples = proof_texts(["w00"], spec.words, spec.pair_names())
    reference = torch_logits(mixed, WORDS, [text.split() for text in samples])
    prove(encode(spec), reference, samples, exact=True)
    for k in (0, len(spec.pairs) - 1):
        changed = replace(spec, pair_scores=spec.pair_scores.copy())
        changed.pair_scores[k] += 0.01
        with pytest.raises(UserError, match="not written: the file's logits differ"):
            prove(encode(changed), reference, samples, exact=True)


def test_compact_makes_a_proven_file():
    mixed = model(classes=3)
    random = np.random.default_rng(0)
    valid = [" ".join(random.choice([*WORDS, "other"], random.integers(1, 12))) for _ in range(80)]

    def reference(documents):
        return torch_logits(mixed, WORDS, [document.split() for document in documents])

    truth = reference(valid).argmax(axis=1)
    before = {name: value.clone() for name, value in mixed.state_dict().items()}
    made = compact(mixed, WORDS, list("abc"), reference=reference, texts=valid, truth=truth)
    assert made.exact.max_error <= 1e-5
    assert karui.load(made.data).spec.pairs is not None
    assert all(torch.equal(value, before[name]) for name, value in mixed.state_dict().items())
