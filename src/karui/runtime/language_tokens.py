"""Text to the tokens of a language model, and back (docs/format.md, "Tokenisations"): training and answering share it.

A tokenisation splits one line; the end of each line is the token `END`. Every rule is fixed here, none depends on the
version of Python's Unicode tables.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache

from karui.runtime.unicode_table import CLASS_RANGES, LOWER_RUNS

END = "</s>"
UNKNOWN = "<unk>"
MAX_TOKEN_BYTES = 1024  # of a word of a file (docs/format.md, "Limits")
TOKENISATIONS = ("blank-v1", "text-v1", "chars-v1")

_BLANKS = " \t\n\v\f\r"
_WORD = re.compile(f"[^{_BLANKS}]+")
_WORD_CLASS = 1  # letters, marks and digits of `CLASS_RANGES`
# Code points of text-v1 that separate: controls, blanks, and what has no width.
_INVISIBLE = (
    (0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x1680, 0x1680), (0x2000, 0x200F), (0x2028, 0x202F),
    (0x205F, 0x206F), (0x3000, 0x3000), (0xD800, 0xDFFF), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB),
)  # fmt: skip
_ASCII_TEXT = re.compile(
    "[0-9A-Za-z]+(?:'[0-9A-Za-z]+)*|[!-/:-@\\[-`{-~]"
)  # what `_text_pattern` finds in ASCII
_CLOSING, _OPENING = frozenset(",.;:!?)]}%’”»…"), frozenset("([{“«")


@cache
def _lower_table() -> dict[int, int]:
    """Lower-case code point of every code point that has one (Unicode 14.0, simple mapping)."""
    return {
        code: code + delta for first, last, step, delta in LOWER_RUNS for code in range(first, last + 1, step)
    }


@cache
def _text_pattern() -> re.Pattern[str]:
    def members(ranges: Iterable[tuple[int, int]]) -> str:
        return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in ranges)

    word = members((first, last) for first, last, kind in CLASS_RANGES if kind == _WORD_CLASS)
    return re.compile(f"[{word}]+(?:'[{word}]+)*|[^{members(_INVISIBLE)}]")


def lower_case(text: str) -> str:
    """Lower-case a text code point by code point, so that its length stays."""
    return text.lower() if text.isascii() else text.translate(_lower_table())


def tokenise_line(line: str, tokenisation: str, *, lower: bool = False) -> list[str]:
    """Tokens of one line, without the `END` that follows them; a blank line has none.

    "blank-v1": runs of characters other than space, tab, line feed, vertical tab, form feed and carriage return.
    "text-v1": runs of letters, marks and digits, joined by a `'` between two of them (U+2019 is read as `'`); every
    other visible character, and every Chinese, Japanese, Thai, Lao, Khmer or Burmese one, is a token by itself.
    "chars-v1": every code point, a space included.

    Raises:
        ValueError: there is no such tokenisation.
        TypeError: the line is not a str.
    """
    if not isinstance(line, str):
        raise TypeError(f"a text must be a str, got {type(line).__name__}: {line!r:.80}")
    if tokenisation not in TOKENISATIONS:
        raise ValueError(f"tokenisation must be one of {TOKENISATIONS}, got {tokenisation!r}")
    if lower:
        line = lower_case(line)
    if tokenisation == "blank-v1":
        return _WORD.findall(line)
    if tokenisation == "text-v1":
        if line.isascii():
            return _ASCII_TEXT.findall(line)
        return _text_pattern().findall(line.replace("\u2019", "'"))
    return list(line)


def tokenise_lines(lines: Iterable[str], tokenisation: str, *, lower: bool = False) -> list[str]:
    """Tokens of all lines one after the other, each line followed by `END`."""
    tokens: list[str] = []
    for line in lines:
        tokens += tokenise_line(line, tokenisation, lower=lower)
        tokens.append(END)
    return tokens


def text_lines(text: str) -> list[str]:
    """Lines of a text: cut at every line feed, a carriage return before it dropped; a last one that is empty is none.

    A text of nothing is one empty line.
    """
    lines = text.split("\n")
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def join_tokens(tokens: Sequence[str], tokenisation: str) -> str:
    """A text that reads as these tokens; `END` becomes a line feed.

    Words are joined by blanks, in "text-v1" without one before a closing mark or after an opening one.
    """
    if tokenisation == "chars-v1":
        return "".join("\n" if token == END else token for token in tokens)
    out: list[str] = []
    glued = True  # at the beginning of a line
    for token in tokens:
        if token == END:
            out.append("\n")
            glued = True
            continue
        if not glued and not (tokenisation == "text-v1" and token in _CLOSING):
            out.append(" ")
        out.append(token)
        glued = tokenisation == "text-v1" and token in _OPENING
    return "".join(out)
