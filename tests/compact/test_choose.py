"""Rounding and the choice of what to store; judged on validation texts, which a model of its own labels here."""

import numpy as np
import pytest

import karui
from karui.compact.choose import STEPS, Wish, choose, least_say
from karui.compact.convert import to_spec
from karui.compact.rounding import encode_rounded, group_of, groups, rounded
from karui.compact.shrink import shrink
from karui.compact.weights import named_arrays
from karui.errors import UserError
from karui.runtime.format import encode
from tests.compact.build import random_model

WORDS = [f"w{i}" for i in range(120)]


@pytest.fixture(scope="module")
def case():
    """A shrunk description, 200 texts, and the labels it gives them itself."""
    model = random_model("sru", density=0.5, seed=1, n_words=120, n_classes=2, embedding_dim=6, hidden_size=4)
    spec = shrink(to_spec(model, WORDS, ["no", "yes"]))
    random = np.random.default_rng(0)
    valid = [" ".join(random.choice(WORDS, size=random.integers(3, 40))) for _ in range(200)]
    labels = (karui.load(encode(spec)).logits(valid)[:, 0] > 0).astype(np.int64)
    return spec, valid, labels


def test_the_file_holds_the_rounded_description(case):
    spec = case[0]
    levels = {"embedding": 7, "word_scores": 3, "recurrent": 31, "output": 127}
    small, _ = rounded(spec, levels)
    held = karui.load(encode_rounded(spec, levels)).spec
    order = sorted(range(len(small.words)), key=small.words.__getitem__)
    assert held.words == [small.words[i] for i in order]
    rows = [0, *(i + 1 for i in order)]
    for (name, expected), (_, found) in zip(named_arrays(small), named_arrays(held), strict=True):
        by_word = name in ("embedding", "word_scores")
        np.testing.assert_array_equal(found, expected[rows] if by_word else expected, err_msg=name)
    assert len(np.unique(np.abs(small.word_scores))) <= 4
    assert len(np.unique(np.abs(small.embedding))) <= 8


@pytest.mark.parametrize("kind", ["statistical-ru", "qrnn", "mingru"])
def test_the_file_of_every_layer_holds_the_rounded_description(kind):
    """Constants that rounding makes are not folded: a sum would no longer be a multiple of the scale."""
    model = random_model(kind, density=0.3, seed=4, n_classes=3, embedding_dim=4, hidden_size=4, num_layers=2)
    spec = shrink(to_spec(model, [f"w{i:02}" for i in range(25)], list("abc")))
    levels = dict.fromkeys(groups(spec), 3)
    small, _ = rounded(spec, levels)
    held = karui.load(encode_rounded(spec, levels)).spec
    assert [each.kind for each in held.layers] == [each.kind for each in small.layers]
    for (name, expected), (_, found) in zip(named_arrays(small), named_arrays(held), strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert {group_of(f"layers.0.forward.{name}") for name in ("weight_r", "weight_phi", "weight_o")} == {
        "recurrent"
    }


def test_the_error_of_rounding_is_at_most_half_a_step(case):
    spec = case[0]
    small, scales = rounded(spec, {})
    assert small.words == spec.words
    for (name, exact), (_, near) in zip(named_arrays(spec), named_arrays(small), strict=True):
        assert np.abs(exact - near).max() <= scales[name] / 2 * (1 + 1e-5), name
        assert scales[name] <= max(np.abs(exact).max() / 127 * 1.01, 1e-29)


def test_words_that_round_to_zero_leave(case):
    spec = case[0]
    spec = shrink(spec)
    spec.embedding[:61] *= 1e-3
    spec.word_scores[:61] *= 1e-3
    small, _ = rounded(spec, dict.fromkeys(groups(spec), 15))
    assert len(small.words) <= len(spec.words) - 60
    assert len(encode_rounded(spec, dict.fromkeys(groups(spec), 15))) < len(
        encode(spec, values="int8", levels=15)
    )


def test_layers_are_renumbered_when_rounding_kills_the_lower_one():
    model = random_model(
        "gru", density=1.0, seed=2, n_classes=3, embedding_dim=3, hidden_size=2, num_layers=2
    )
    spec = to_spec(model, [f"w{i}" for i in range(25)], list("abc"))
    for direction in spec.layers[1].directions:
        direction.weight_ih[:] *= 1e-9
        direction.weight_ih[0, 0] = 0.0
        direction.weight_ih[0, 1:] = 0.0
    for direction in spec.layers[0].directions:
        direction.bias[:] = 0.0
    spec.layers[1].directions[0].weight_ih[:] = 0.0
    spec.layers[1].directions[1].weight_ih[:] = 0.0
    small, scales = rounded(spec, {})
    assert len(small.layers) == 1
    assert {name for name, _ in named_arrays(small)} <= set(scales)
    held = karui.load(encode_rounded(spec, {})).spec
    np.testing.assert_array_equal(
        held.layers[0].directions[1].weight_hh, small.layers[0].directions[1].weight_hh
    )


@pytest.mark.parametrize(("values", "count"), [("fp32", 1), ("fp16", 1), ("int8", 1)])
def test_values_that_are_asked_for(case, values, count):
    chosen, tried = choose(*case, Wish(values=values))
    assert (chosen.values, len(tried)) == (values, count)
    assert karui.load(chosen.data).words
    assert chosen.agreement > 0.9


def test_levels_that_are_asked_for(case):
    chosen, _ = choose(*case, Wish(levels=9))
    assert chosen.values == "int8"
    assert set(chosen.levels.values()) == {9}
    assert chosen.name == "int8 (levels: embedding 9, word_scores 9, recurrent 9, output 9)"


def test_without_a_budget_the_smallest_that_nobody_notices(case):
    chosen, tried = choose(*case, Wish(tolerance=0.01))
    assert len(chosen.data) < len(encode(case[0])) / 3
    assert chosen.valid_accuracy >= 1.0 - 0.01 - 1e-9
    assert chosen.agreement >= 0.97
    for other in tried:
        assert len(other.data) >= len(chosen.data) or other.valid_accuracy < 0.99 or other.agreement < 0.97
    careful, _ = choose(*case, Wish(tolerance=0.0))
    assert len(careful.data) >= len(chosen.data)
    assert careful.valid_accuracy == 1.0


def test_with_a_budget_the_best_that_fits(case):
    smallest = len(encode(case[0], values="int8"))
    chosen, tried = choose(*case, Wish(max_bytes=smallest - 100))
    assert len(chosen.data) <= smallest - 100
    for other in tried:
        fits = len(other.data) <= smallest - 100 and other.agreement >= 0.95
        assert not fits or other.valid_accuracy <= chosen.valid_accuracy
    generous, _ = choose(*case, Wish(max_bytes=10**6))
    assert generous.valid_accuracy == 1.0


def test_a_budget_out_of_reach_names_what_is_reachable(case):
    with pytest.raises(
        UserError, match=r"no file of 100 bytes: the smallest that keeps its answers has ([\d,]+)"
    ):
        choose(*case, Wish(max_bytes=100))


def test_steps_fall():
    assert list(STEPS) == sorted(STEPS, reverse=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"values": "int4"}, "values must be auto, fp32, fp16 or int8, got 'int4'"),
        ({"levels": 0}, "levels must be from 1 to 127, got 0"),
        ({"levels": 7, "values": "fp16"}, "levels are for int8 values, not for fp16"),
        ({"max_bytes": 0}, "max_bytes must be at least 1, got 0"),
        ({"tolerance": -1.0}, "tolerance must be at least 0"),
        ({"tolerance": float("nan")}, "tolerance must be at least 0"),
    ],
)
def test_wishes_that_make_no_sense(wrong, message):
    with pytest.raises(UserError, match=message):
        Wish(**wrong)


def test_words_with_the_least_say_leave_to_meet_a_budget(case):
    spec, valid, labels = case
    counts = {word: 1000 if i % 2 else 1 for i, word in enumerate(WORDS)}
    limit = len(encode(spec, values="int8")) * 3 // 4
    chosen, tried = choose(spec, valid, labels, Wish(max_bytes=limit), counts=counts)
    assert len(chosen.data) <= limit
    assert any("words" in each.levels for each in tried)
    fewer = next(
        each for each in tried if each.levels.get("words", 100) < 100 and len(set(each.levels.values())) == 2
    )
    gone = set(spec.words) - set(karui.load(fewer.data).words)
    assert gone
    assert all(counts[word] == 1 for word in gone)
    assert "95 % of the words" in fewer.name


def test_least_say_is_count_times_squared_change():
    model = random_model("none", density=1.0, seed=3, n_words=25, n_classes=2)
    words = [f"w{i}" for i in range(25)]
    spec = to_spec(model, words, ["no", "yes"])
    counts = {word: i + 1 for i, word in enumerate(words[:20])}
    order = least_say(spec, karui.load(encode(spec)), counts)
    say = np.square(spec.word_scores[1:, 0].astype(np.float64)) * [counts.get(word, 0) for word in words]
    np.testing.assert_array_equal(order, np.argsort(say, kind="stable"))
    assert set(order[:5]) == set(range(20, 25))


def test_rounding_may_not_hide_behind_labels_that_say_nothing(case):
    """With labels drawn at random accuracy hardly moves; the share of labels that change is what holds."""
    spec, valid, _ = case
    labels = np.random.default_rng(1).integers(0, 2, len(valid))
    chosen, tried = choose(spec, valid, labels, Wish(tolerance=0.01))
    assert chosen.agreement >= 0.97
    looser = [each for each in tried if each.agreement < 0.97 and len(each.data) < len(chosen.data)]
    assert any(each.valid_accuracy >= tried[0].valid_accuracy - 0.01 for each in looser)
