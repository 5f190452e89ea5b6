"""The native coder writes and reads the bits of its plain Python twin."""

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karui import _native
from karui.runtime.coding import MatrixCoder, Model, code_words
from karui.runtime.format import row_hints

words = st.lists(
    st.binary(min_size=1, max_size=9).filter(lambda word: 0 not in word), unique=True, max_size=12
).map(sorted)
LETTERS = """
a an and act acted acting action actor actors actress bad badly band bore bored boring cast casting character
characters could couldn't did didn't does doesn't don't dull excellent fail failed fails film films fine fun
funnier funniest funny good great greatest horrible interest interested interesting laugh laughable laughed
laughs lovely perfect perfectly performance performances poor poorly terrible terribly terrific waste wasted
wonderful wonderfully worse worst
"""
ENGLISH = sorted(LETTERS.split())


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, dict]:
    rows, cols, values = draw(st.integers(0, 9)), draw(st.integers(0, 7)), draw(st.integers(0, 2))
    largest = draw(st.sampled_from([1, 2, 7, 15, 100, 127]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    numbers = (
        rng.normal(size=(rows, cols)).clip(-2, 2)
        / 2
        * (rng.random((rows, cols)) < draw(st.sampled_from([0.1, 0.6, 1.0])))
    )
    if values == 0:
        codes = np.rint(numbers * largest)
    else:
        numbers += 0.0  # no minus zero
        codes = (
            numbers.astype(np.float16).view(np.uint16)
            if values == 1
            else numbers.astype(np.float32).view(np.int32)
        )
    hints = draw(st.sampled_from([None, rng.integers(0, 5, rows).astype(np.int32)]))
    options = {"record": draw(st.integers(0, 3)), "values": values, "largest": largest, "hints": hints}
    return codes.astype(np.int32), options


@settings(max_examples=60, deadline=None)
@given(words, st.lists(st.tuples(matrices(), st.integers(0, 2)), max_size=3))
def test_twins_write_the_same_bytes(word_list: list[bytes], parts: list) -> None:
    native, plain = _native.Encoder(), Model(None)
    native.words(word_list)
    code_words(plain, word_list, len(word_list))
    for (codes, options), layout in parts:
        native.matrix(codes, layout=layout, **options)
        MatrixCoder(plain, codes.shape[1], **options).run(codes.tolist(), layout)
    stream = native.finish()
    assert stream == plain.finish()

    decoder, reader = _native.Decoder(stream), Model(stream)
    assert decoder.words(len(word_list), 9, 1000) == word_list
    assert code_words(reader, [], len(word_list)) == word_list
    for (codes, options), layout in parts:
        found = np.full_like(codes, 77)
        decoder.matrix(found, layout=layout, **options)
        assert np.array_equal(found, codes)
        assert MatrixCoder(reader, codes.shape[1], **options).run([[]] * len(codes), layout) == codes.tolist()
    decoder.check_end()
    assert decoder.position == native.position


def test_words_take_fewer_bytes_than_zlib() -> None:
    encoder = _native.Encoder()
    encoder.words([word.encode() for word in ENGLISH])
    assert len(encoder.finish()) <= 0.8 * len(zlib.compress("\n".join(ENGLISH).encode(), 9))


def test_coarser_values_take_fewer_bytes() -> None:
    numbers = np.random.default_rng(0).normal(size=(400, 12)).clip(-4, 4) / 4
    sizes = []
    for largest in (127, 31, 15, 7, 3):
        encoder = _native.Encoder()
        encoder.matrix(
            np.rint(numbers * largest).astype(np.int32), record=0, values=0, largest=largest, layout=1
        )
        sizes.append(encoder.bits / numbers.size)
    assert all(a > b + 0.5 for a, b in itertools.pairwise(sizes))
    assert sizes[2] < np.log2(31)


def test_hints_tell_about_signs() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(500, 4)).astype(np.float32)
    hints = row_hints(embedding)
    assert hints[7] == 1 + 2 * np.abs(embedding[7]).argmax() + (
        embedding[7][np.abs(embedding[7]).argmax()] < 0
    )
    assert row_hints(np.zeros((3, 2), np.float32)).tolist() == [0, 0, 0]
    signs = np.where(hints % 2 == 0, 3, -3).astype(np.int32)[:, None]
    bits = {}
    for given_hints in (None, hints):
        encoder = _native.Encoder()
        encoder.matrix(signs, record=0, values=0, largest=3, layout=1, hints=given_hints)
        bits[given_hints is None] = encoder.bits
    assert bits[False] < 0.4 * bits[True]


@pytest.mark.parametrize("cut", [1, 2, 10, 100])
def test_a_cut_stream_is_refused(cut: int) -> None:
    encoder = _native.Encoder()
    encoder.words([word.encode() for word in ENGLISH])
    stream = encoder.finish()
    decoder = _native.Decoder(stream[:-cut])
    with pytest.raises(_native.BadStream, match="ends too early|too long"):
        decoder.words(len(ENGLISH), 64, 5000)
        decoder.matrix(np.zeros((1000, 10), np.int32), record=0, values=0, largest=127, layout=0)
    longer = _native.Decoder(stream + bytes(cut + 4))
    longer.words(len(ENGLISH), 64, 5000)
    with pytest.raises(_native.BadStream, match="left over"):
        longer.check_end()


def test_arguments_are_checked() -> None:
    cells = np.zeros((2, 2), np.int32)
    good = {"record": 0, "values": 0, "largest": 5, "layout": 0}
    for wrong in (
        {"record": 256},
        {"values": 3},
        {"largest": 0},
        {"largest": 128},
        {"layout": 3},
        {"hints": np.zeros(3, np.int32)},
    ):
        with pytest.raises(ValueError, match="must"):
            _native.Encoder().matrix(cells, **{**good, **wrong})
    with pytest.raises(ValueError, match="larger"):
        _native.Encoder().matrix(cells + 6, **good)
    with pytest.raises(ValueError, match="NUL"):
        _native.Encoder().words([b"a\0b"])
