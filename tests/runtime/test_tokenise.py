"""The native tokeniser equals its plain Python twin, and both equal Unicode 14.0."""

import itertools
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karui.runtime.tokenise import (
    WordIds,
    count_words,
    settled_length,
    tokenise,
    tokenise_reference,
    tokenise_spans,
)
from karui.runtime.unicode_table import CLASS_RANGES, LOWER_RUNS

PIECES = [
    "'",
    "\u2019",
    "<br>",
    "<BR/>",
    "<br />",
    "<br",
    "<",
    ">",
    "/",
    " ",
    "!",
    "?",
    "Don't",
    "\0",
    "\ud800",
    "\u0301",
    "İ",
    "Σ",
    "漢",
    "ไทย",
    "𝔸",
    "𐐀",
    "\U0001f600",
    "a",
    "Z",
    "9",
    "²",
    "Ⓐ",
    "ß",
    "ǅ",
]
texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't STOP!", ["don't", "stop", "!"]),
        ("it\u2019s 'quoted' a''b b' 'c", ["it's", "quoted", "a", "b", "b", "c"]),
        ("good<br />bad<BR>x<br/>y<br >z", ["good", "bad", "x", "y", "br", "z"]),
        ("what?!!", ["what", "?", "!", "!"]),
        ("漢字ok ไท", ["漢", "字", "ok", "ไ", "ท"]),
        ("İSTANBUL ΣΑΣ ǅ", ["istanbul", "σασ", "ǆ"]),
        ("a\0b\ud800c e\u0301", ["a", "b", "c", "e\u0301"]),
        ("3.5 x_y x-ray 10/10", ["3", "5", "x", "y", "x", "ray", "10", "10"]),
        ("漢'a a'漢", ["漢", "a", "a", "漢"]),
        ("", []),
        (" \n\t.,", []),
    ],
)
def test_words_of_examples(text: str, words: list[str]) -> None:
    assert tokenise(text) == words
    assert tokenise_reference(text) == words


@given(texts)
def test_native_equals_reference(text: str) -> None:
    assert tokenise(text) == tokenise_reference(text)


@given(texts)
def test_spans_cover_the_words(text: str) -> None:
    words, spans = tokenise_spans(text)
    assert words == tokenise(text)
    for word, (start, end) in zip(words, spans, strict=True):
        assert tokenise(text[start:end]) == [word]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@given(texts, texts)
def test_settled_text_has_settled_words(text: str, more: str) -> None:
    cut = settled_length(text)
    assert tokenise(text[:cut]) + tokenise(text[cut:] + more) == tokenise(text + more)


def test_a_megabyte_of_text() -> None:
    text = "".join(chr(code) for code in range(0x20, 0x3000)) * 90
    assert len(text) > 1_000_000
    assert tokenise(text) == tokenise_reference(text)
    assert tokenise("A" * 1_000_000) == ["a" * 1_000_000]


@given(st.lists(texts, max_size=5), st.integers(0, 4))
def test_ids_and_counts(documents: list[str], max_tokens: int) -> None:
    counts = count_words(documents)
    expected: dict[str, int] = {}
    for word in (word for text in documents for word in tokenise_reference(text)):
        expected[word] = expected.get(word, 0) + 1
    assert counts == expected
    vocabulary = list(counts)[::2]
    word_ids = WordIds(vocabulary)
    numbers = {word: number for number, word in enumerate(vocabulary, 1)}
    ids, offsets = word_ids.encode_batch(documents, max_tokens)
    assert ids.dtype == np.int32
    assert offsets.dtype == np.int64
    for k, text in enumerate(documents):
        wanted = ([numbers.get(word, 0) for word in tokenise_reference(text)] or [0])[: max_tokens or None]
        assert ids[offsets[k] : offsets[k + 1]].tolist() == wanted
        assert word_ids.encode(text, max_tokens).tolist() == wanted


def test_many_words() -> None:
    words = [f"w{number}" for number in range(50_000)]
    assert WordIds(words).encode(" ".join(words) + " other").tolist() == [*range(1, 50_001), 0]


def test_a_word_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' twice"):
        WordIds(["a", "b", "a"])


@pytest.mark.parametrize("value", [3, None, b"bytes"])
def test_a_text_that_is_no_str_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=f"must be a str, got {type(value).__name__}"):
        tokenise(value)  # pyright: ignore[reportArgumentType]


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="this Python has another Unicode version")
def test_tables_equal_unicode_14() -> None:
    kinds = bytearray(sys.maxunicode + 1)
    for first, last, kind in CLASS_RANGES:
        kinds[first : last + 1] = bytes([kind]) * (last + 1 - first)
    lower = list(range(sys.maxunicode + 1))
    for first, last, step, delta in LOWER_RUNS:
        for code in range(first, last + 1, step):
            lower[code] = code + delta
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        full = character.lower()
        assert lower[code] == (ord(full) if len(full) == 1 else ord("i"))
        in_word = unicodedata.category(character)[0] in "LMN"
        assert in_word == (kinds[code] in (1, 2)), hex(code)
