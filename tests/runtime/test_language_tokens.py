"""Tokenisations of language models: fixed rules, the same for training and answering."""

import re

import pytest

from karui.runtime.language_tokens import (
    END,
    MAX_TOKEN_BYTES,
    TOKENISATIONS,
    join_tokens,
    lower_case,
    text_lines,
    tokenise_line,
    tokenise_lines,
)
from karui.runtime.spec import MAX_WORD_BYTES
from karui.runtime.tokenise import tokenise


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("", []),
        (" \t\v\f\r\n ", []),
        (" no it was n't <unk> N ", ["no", "it", "was", "n't", "<unk>", "N"]),
        ("a\u00a0b\u2003c\x1cd", ["a\u00a0b\u2003c\x1cd"]),  # only six blanks separate
        ("Ein  Wort", ["Ein", "Wort"]),
    ],
)
def test_blanks(line: str, tokens: list[str]) -> None:
    assert tokenise_line(line, "blank-v1") == tokens


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("Don't panic, it’s 3.5%!", ["Don't", "panic", ",", "it's", "3", ".", "5", "%", "!"]),
        ("''quoted' rock'n'roll", ["'", "'", "quoted", "'", "rock'n'roll"]),
        ("a\u00a0b\u200bc\ufeffd\ue000", ["a", "b", "c", "d", "\ue000"]),
        ("漢字とe\u0301", ["漢", "字", "と", "e\u0301"]),
        ("x = y_2;", ["x", "=", "y", "_", "2", ";"]),
        ("\ud800\x00\x1f", []),
        ("🙂 ok", ["🙂", "ok"]),
    ],
)
def test_text(line: str, tokens: list[str]) -> None:
    assert tokenise_line(line, "text-v1") == tokens


def test_text_has_the_words_of_the_classifier() -> None:
    text = "Don't call IT dull: ÄRGER, naïve café’s 漢字 ２４ Ⅷ! ?"
    words = [
        token for token in tokenise_line(text, "text-v1", lower=True) if re.search(r"[^\W_]|[!?]", token)
    ]
    assert words == tokenise(text)


def test_ascii_lines_read_as_others() -> None:
    line = "".join(map(chr, range(128))) + " don't 'tis 2'3 x_y A'"
    assert tokenise_line(line, "text-v1") == tokenise_line(line + " ß", "text-v1")[:-1]
    assert (
        tokenise_line(line, "text-v1", lower=True) == tokenise_line(line + " ß", "text-v1", lower=True)[:-1]
    )


def test_characters() -> None:
    assert tokenise_line("a _ß\t", "chars-v1") == ["a", " ", "_", "ß", "\t"]


def test_lower_case_keeps_the_length() -> None:
    text = "İSTANBUL ΣΑΣ ẞ ǅ"
    assert len(lower_case(text)) == len(text)
    assert lower_case("ÄΣX") == "äσx"
    assert tokenise_line("The END", "blank-v1", lower=True) == ["the", "end"]


def test_lines_end() -> None:
    assert tokenise_lines(["a b", "", "c"], "blank-v1") == ["a", "b", END, END, "c", END]
    assert tokenise_lines([], "blank-v1") == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [("", [""]), ("a", ["a"]), ("a\n", ["a"]), ("a\n\n", ["a", ""]), ("a\r\nb", ["a", "b"]), ("\n", [""])],
)
def test_lines_of_a_text(text: str, lines: list[str]) -> None:
    assert text_lines(text) == lines


@pytest.mark.parametrize("tokenisation", TOKENISATIONS)
def test_joined_tokens_read_as_they_were(tokenisation: str) -> None:
    lines = ["well , ( he said ) : no ; yes .", "", "« 5 % » !"]
    tokens = tokenise_lines(lines, tokenisation)
    assert tokenise_lines(text_lines(join_tokens(tokens, tokenisation)), tokenisation) == tokens


def test_text_is_joined_as_people_write() -> None:
    assert (
        join_tokens(["well", ",", "(", "he", ")", "said", ".", END, "no"], "text-v1")
        == "well, (he) said.\nno"
    )
    assert join_tokens(["well", ",", END], "blank-v1") == "well ,\n"


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tokenisation must be one of .*, got 'bpe'"):
        tokenise_line("a", "bpe")
    with pytest.raises(TypeError, match="a text must be a str, got bytes"):
        tokenise_line(b"a", "blank-v1")  # pyright: ignore[reportArgumentType]


def test_the_longest_token_is_that_of_the_format():
    assert MAX_TOKEN_BYTES == MAX_WORD_BYTES
