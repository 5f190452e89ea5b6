"""Scores of pairs of words in the artifact: coder and its twin, file, engine, streams, contributions, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karui import _native
from karui.errors import ArtifactError
from karui.runtime.coding import Model, code_pairs
from karui.runtime.format import LAYOUTS, VALUES, ClassifierSpec, encode, varint
from karui.runtime.layers import KINDS
from karui.runtime.model import Classifier, load
from karui.runtime.pairs import find_pairs, pair_keys, plain_numbers, sorted_pairs, word_hints
from karui.runtime.reader import read, read_artifact
from tests.runtime.test_reader import ONE, RECORDS, header, sealed

PAIRS_FLAG = 8


def documents(n_words: int, *, count: int = 40) -> list[np.ndarray]:
    """No token, one token, unknown ones, and random texts full of repeated pairs."""
    rng = np.random.default_rng(1)
    fixed = [[], [1], [0], [0, 0], [1, 0, 1], [1, 2] * 9]
    drawn = [rng.integers(0, n_words + 1, rng.integers(1, 60)) for _ in range(count)]
    return [np.asarray(ids, np.int32) for ids in (*fixed, *drawn)]


def added(spec: ClassifierSpec, ids: np.ndarray) -> np.ndarray:
    """What the pairs add to the logits, by a dict and a loop."""
    table = {(int(a), int(b)): row for (a, b), row in zip(spec.pairs, spec.pair_scores, strict=True)}
    rows = [table[pair] for pair in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True) if pair in table]
    return np.sum(rows, axis=0) / np.sqrt(len(ids)) if rows else np.zeros(len(spec.output_bias))


@pytest.mark.parametrize("kind", [*KINDS, "none"])
@pytest.mark.parametrize("scores", [True, False])
def test_the_engine_adds_the_scores_of_pairs(make_spec, kind: str, scores: bool) -> None:
    layers = {"layers": 0} if kind == "none" else {}
    kind = "sru" if kind == "none" else kind
    spec = make_spec(kind, words=9, labels=3, scores=scores, pairs=40, **layers)
    found = Classifier(spec).logits_ids(documents(9))
    without = Classifier(replace(spec, pairs=None, pair_scores=None)).logits_ids(documents(9))
    some = 0
    for ids, one, other in zip(documents(9), found, without, strict=True):
        wanted = added(spec, ids)
        some += bool(wanted.any())
        assert np.abs(one - other - wanted).max() <= 2e-6 * max(1, np.abs(wanted).max())
    assert some > 20


def test_every_pair_of_all_words_is_found(make_spec) -> None:
    spec = make_spec(words=20, layers=0, width=0, scores=False, pairs=400)
    model, zero = Classifier(spec), spec.output_bias[0]
    found = model.logits_ids(list(spec.pairs))[:, 0] - zero
    assert np.abs(found - spec.pair_scores[:, 0] / np.sqrt(2)).max() <= 1e-6
    few = Classifier(replace(spec, pairs=spec.pairs[::7], pair_scores=spec.pair_scores[::7]))
    found = few.logits_ids(list(spec.pairs))[:, 0] - zero
    assert np.count_nonzero(found) == len(spec.pairs[::7])


@pytest.mark.parametrize("max_tokens", [0, 5])
def test_a_stream_carries_the_word_before(make_spec, max_tokens: int) -> None:
    spec = replace(make_spec("gru", words=9, hidden=(4,), pairs=40), max_tokens=max_tokens)
    model, rng = Classifier(spec), np.random.default_rng(2)
    for _ in range(10):
        words = [*rng.choice([*spec.words, "unknown"], 9)]
        stream = model.stream()
        for k, word in enumerate(words):
            stream.feed(f"{word} ")
            assert np.abs(stream.logits() - model.logits(" ".join(words[: k + 1]))).max() <= 1e-6


@st.composite
def pair_lists(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Sorted pairs and the hints of their words."""
    rng, words = np.random.default_rng(draw(st.integers(0, 1000))), draw(st.integers(1, 40))
    count = draw(st.integers(1, min(60, words**2)))
    chosen = np.sort(rng.permutation(words**2)[:count])
    return np.stack(np.divmod(chosen, words), axis=1) + 1, rng.integers(0, 128, words).astype(np.int32)


@settings(max_examples=60, deadline=None)
@given(pair_lists())
def test_twins_write_the_same_pairs(case: tuple[np.ndarray, np.ndarray]) -> None:
    pairs, hints = case
    native, plain = _native.Encoder(), Model(None)
    native.pairs(pairs.astype(np.int32), hints=hints)
    wanted = [(int(a), int(b)) for a, b in pairs]
    assert code_pairs(plain, wanted, len(pairs), hints=hints.tolist()) == wanted
    stream = native.finish()
    assert stream == plain.finish()
    found, decoder = np.zeros_like(pairs, np.int32), _native.Decoder(stream)
    decoder.pairs(found, hints=hints)
    assert np.array_equal(found, pairs)
    decoder.check_end()
    assert code_pairs(Model(stream), [], len(pairs), hints=hints.tolist()) == wanted


def test_frequent_second_words_take_few_bytes() -> None:
    rng = np.random.default_rng(0)
    second = np.concatenate([rng.integers(1, 2001, 500), rng.choice([7, 900, 1500], 1500)])
    keys = np.unique(pair_keys(np.stack([rng.integers(1, 2001, 2000), second], axis=1), 2000))
    pairs = np.stack(np.divmod(keys, 2001), axis=1)
    encoder = _native.Encoder()
    encoder.pairs(pairs.astype(np.int32), hints=np.zeros(2000, np.int32))
    plain = b"".join(varint(int(number)) for number in plain_numbers(pairs).ravel())
    assert len(encoder.finish()) < 0.4 * len(plain)


def test_arguments_of_the_coder_are_checked() -> None:
    pairs, hints = np.asarray([[1, 2], [2, 1]], np.int32), np.zeros(2, np.int32)
    for wrong in (pairs[::-1].copy(), np.asarray([[1, 2], [1, 2]], np.int32), np.asarray([[1, 3]], np.int32)):
        with pytest.raises(_native.BadStream, match="sorted|fewer"):
            _native.Encoder().pairs(wrong, hints=hints)
    with pytest.raises(ValueError, match="hints must be in"):
        _native.Encoder().pairs(pairs, hints=hints + 128)
    with pytest.raises(TypeError):
        _native.Encoder().pairs(pairs[:, :1].copy(), hints=hints)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("layout", [None, *LAYOUTS])
@pytest.mark.parametrize("coding", [True, False])
@pytest.mark.parametrize("scores", [True, False])
def test_round_trip(make_spec, values: str, layout: str | None, coding: bool, scores: bool) -> None:
    spec = make_spec("gru", words=12, labels=3, scores=scores, pairs=50)
    spec.words.reverse()  # the file sorts them: ids change, and with them the order of the pairs
    data = encode(spec, values=values, layout=layout, coding=coding)
    artifact = read_artifact(data)
    assert sum(artifact.sizes.values()) == len(data)
    assert artifact.sizes["pairs"] > 0 < artifact.sizes["pair_scores"]
    assert encode(artifact.spec, values="fp32") == encode(encoded_again(artifact.spec), values="fp32")
    texts = [" ".join(np.random.default_rng(k).choice(spec.words, 20)) for k in range(20)]
    error = {"fp32": 1e-6, "fp16": 0.01, "int8": 0.1}[values]
    assert np.abs(load(data).logits(texts) - Classifier(spec).logits(texts)).max() <= error
    by_name = {
        (artifact.spec.words[a - 1], artifact.spec.words[b - 1]): row
        for (a, b), row in zip(artifact.spec.pairs, artifact.spec.pair_scores, strict=True)
    }
    for (a, b), row in zip(spec.pairs, spec.pair_scores, strict=True):
        assert np.abs(by_name[spec.words[a - 1], spec.words[b - 1]] - row).max() <= error


def encoded_again(spec: ClassifierSpec) -> ClassifierSpec:
    return read(encode(spec, values="fp32", coding=False))


def test_without_pairs_a_file_keeps_its_bytes(make_spec) -> None:
    spec = make_spec(labels=3)
    none = replace(spec, pairs=np.zeros((0, 2), np.int64), pair_scores=np.zeros((0, 3), np.float32))
    assert encode(none) == encode(spec)
    assert read(encode(none)).pairs is None
    assert np.array_equal(Classifier(none).logits("wä0 wb1"), Classifier(spec).logits("wä0 wb1"))


def test_scores_of_words_tell_about_the_scores_of_their_pairs(make_spec) -> None:
    spec = make_spec(words=200, labels=3, layers=0, width=0, density=1.0, pairs=2000)
    agreeing = spec.word_scores[spec.pairs].sum(axis=1)
    largest = np.abs(agreeing) == np.abs(agreeing).max(axis=1, keepdims=True)
    spec.pair_scores = np.where(largest, np.sign(agreeing), 0).astype(np.float32)
    told = read_artifact(encode(spec, values="int8")).sizes["pair_scores"]
    spec.word_scores = None
    assert told < 0.7 * read_artifact(encode(spec, values="int8")).sizes["pair_scores"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": None}, "belong together"),
        ({"pair_scores": None}, "belong together"),
        ({"pairs": np.asarray([[1, 2], [1, 2]])}, "sorted and differ"),
        ({"pairs": np.asarray([[2, 1], [1, 2]])}, "sorted and differ"),
        ({"pairs": np.asarray([[0, 1], [1, 2]])}, "ids from 1 to 30, got 0"),
        ({"pairs": np.asarray([[1, 2], [1, 31]])}, "ids from 1 to 30, got 1 to 31"),
        ({"pairs": np.asarray([[1.0, 2.0], [2.0, 2.0]])}, "integers of shape"),
        ({"pairs": np.asarray([1, 2])}, "integers of shape"),
        ({"pair_scores": np.ones((3, 1), np.float32)}, r"pair_scores must have shape \(2, 1\), got \(3, 1\)"),
        ({"pair_scores": np.full((2, 1), np.nan, np.float32)}, "pair_scores has values that are not finite"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(make_spec, change: dict, message: str) -> None:
    good = {"pairs": np.asarray([[1, 2], [3, 1]]), "pair_scores": np.ones((2, 1), np.float32)}
    spec = replace(make_spec(), **good)
    encode(spec)
    for use in (encode, Classifier):
        with pytest.raises(ValueError, match=message):
            use(replace(spec, **change))


def with_pairs(
    count: int, pair_list: bytes, scores: bytes, *, coded: bytes = b"", **changes: object
) -> bytes:
    """A file with the words a and b, embeddings 1, and pairs."""
    parts = {"pooling": 1 + PAIRS_FLAG, "layers": b"\0" + varint(count), **changes}
    return sealed(header(**parts) + RECORDS + pair_list + scores, coded)


TWO = b"\x08" + np.asarray([2, 3], np.float32).tobytes()
SAME = b"\0" + b"\1\0" + b"\0\0"  # a a, a b: the first word above 0 by 1, the second 1; the same, one further
CASES = {
    "none": (with_pairs(0, SAME, TWO), "declares pairs and has none"),
    "number": (with_pairs(2**20 + 1, SAME, TWO), "number of pairs is 1048577, at most 1048576"),
    "more than words allow": (with_pairs(5, SAME, TWO), "5 pairs of 2 words, at most 4 are allowed"),
    "flags": (with_pairs(2, SAME, TWO, pooling=17), "pooling is 17, at most 15"),
    "form": (with_pairs(2, b"\2", TWO), "form of the pair list is 2, at most 1"),
    "first word": (with_pairs(2, b"\0\1\0\2\0", TWO), "first word of a pair is 2, at most 1"),
    "second word": (with_pairs(2, b"\0\1\3\0\0", TWO), "second word of a pair is 3, at most 2"),
    "second word above all": (with_pairs(2, b"\0\1\1\0\0", TWO), "ids from 1 to 2, got 1 to 3"),
    "id 0": (with_pairs(2, b"\0\0\0\1\0", TWO), "ids from 1 to 2, got 0 to 1"),
    "cut list": (with_pairs(2, b"\0\1\0", b""), "first word of a pair needs 1 bytes where 0 are left"),
    "cut scores": (with_pairs(2, SAME, ONE), "pair_scores needs 8 bytes where 4 are left"),
    "no scores": (with_pairs(2, SAME, b""), "pair_scores needs 1 bytes"),
    "scores left over": (with_pairs(1, b"\0\1\0", TWO), "4 bytes are left over"),
    "infinite": (with_pairs(1, b"\0\1\0", b"\x08" + np.float32(np.inf).tobytes()), "pair_scores has values that"),
    "no words": (with_pairs(1, b"\0\1\0", ONE, words=0, word_list=b"\0"), "1 pairs of 0 words"),
    "empty stream": (
        with_pairs(2, b"\1", TWO),
        "coded stream|fewer pairs than declared|more pairs than declared|not sorted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_hostile_pairs_are_refused_in_one_line(name: str) -> None:
    data, message = CASES[name]
    with pytest.raises(ArtifactError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value)


def test_a_list_that_takes_too_long_to_decode_is_refused() -> None:
    words = b"".join(b"\0\3%03d" % number for number in range(700))
    start = header(
        pooling=1 + PAIRS_FLAG, layers=b"\0" + varint(300_000), words=700, width=0, word_list=b"\0" + words
    )
    empty = b"\x08"  # a dense record without cells
    with pytest.raises(ArtifactError, match=r"a list of 300000 pairs is too large for a file of \d+ bytes"):
        read(sealed(start + empty + empty + ONE + b"\1"))


def test_the_hand_made_pairs_are_right() -> None:
    spec = read(with_pairs(2, SAME, TWO))
    assert spec.pairs.tolist() == [[1, 1], [1, 2]]
    assert spec.pair_scores.tolist() == [[2], [3]]
    assert Classifier(spec).logits("a a b b")[0] == pytest.approx(2 + 5 / 2)


def test_the_engine_checks_pairs_itself() -> None:
    options = {
        "embedding": np.zeros((3, 0), np.float32), "layers": [], "pooling": 1, "max_tokens": 0,
        "output_weight": np.zeros((1, 0), np.float32), "output_bias": np.zeros(1, np.float32), "word_scores": None,
    }  # fmt: skip
    pairs, scores = np.asarray([[1, 2], [2, 1]], np.int32), np.ones((2, 1), np.float32)
    _native.Engine(["a", "b"], **options, pairs=pairs, pair_scores=scores)
    for wrong, their in (
        (pairs[:, :1].copy(), scores),
        (pairs - 1, scores),
        (pairs + 1, scores),
        (pairs[::-1].copy(), scores),
        (np.asarray([[1, 2], [1, 2]], np.int32), scores),
        (pairs, scores[:1]),
        (pairs, None),
    ):
        with pytest.raises(ValueError, match="must|wrong"):
            _native.Engine(["a", "b"], **options, pairs=wrong, pair_scores=their)


@pytest.mark.parametrize("labels", [2, 3])
def test_contributions_share_a_pair_between_its_words(make_spec, labels: int) -> None:
    spec = make_spec(words=6, labels=labels, layers=0, width=0, pairs=20)
    model, text = Classifier(spec), " ".join([*make_spec(words=6).words[:5], "unknown", "wä0"])
    parts = model.contributions(text, "label 1")
    column = 0 if labels == 2 else 1
    known = model.logits(text)[column] - spec.output_bias[column]
    assert sum(part.weight for part in parts) == pytest.approx(
        known, abs=1e-5
    )  # linear: nothing is lost or doubled
    assert parts[5].weight == 0.0
    ids = np.asarray([1, 2], np.int32)
    alone = Classifier(replace(spec, pairs=np.asarray([[1, 2]]), pair_scores=spec.pair_scores[:1]))
    one, two = alone.contributions(f"{spec.words[0]} {spec.words[1]}", "label 1")
    half = spec.pair_scores[0, column] / np.sqrt(8)
    scores = spec.word_scores[ids, column] / np.sqrt(2)
    assert [one.weight, two.weight] == pytest.approx((scores + half).tolist(), abs=1e-5)


def test_positions_of_pairs() -> None:
    pairs = np.asarray([[1, 4], [2, 1], [4, 4]])
    wanted = pair_keys(np.asarray([[4, 4], [1, 1], [2, 1], [4, 3]]), 4)
    assert find_pairs(pairs, 4, wanted).tolist() == [2, -1, 1, -1]
    assert find_pairs(pairs[:0], 4, wanted).tolist() == [-1] * 4
    assert sorted_pairs(pairs[::-1]).tolist() == [2, 1, 0]
    assert word_hints([b"a", b"b" * 99], np.asarray([[1.0, 2.0], [0.0, 0.0]])).tolist() == [33, 15]
    assert word_hints([b"abc"], None).tolist() == [3]
