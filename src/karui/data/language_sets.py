"""`load_language`: one entry for every source of running text."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from karui.data import stdlib_docs
from karui.data.catalogue import LANGUAGE_SETS, SETS
from karui.data.fetch import fetch_missing
from karui.data.language import SPLITS, Interner, LanguageCorpus, Level, build_corpus
from karui.data.storage import checked_path
from karui.data.text_stream import read_text
from karui.errors import UserError
from karui.runtime.language_tokens import text_lines

LOADABLE = (*LANGUAGE_SETS, stdlib_docs.NAME)
"""Names that `load_language` knows without a path."""


@dataclass(frozen=True)
class _Own:
    """What a set says where the settings leave it open."""

    tokens: str = "text-v1"
    lower: bool = False
    min_count: int = 1


_OWN = {
    "ptb": _Own("blank-v1"),
    "wikitext2": _Own("blank-v1"),
    "enwiki2015": _Own("text-v1", lower=True, min_count=3),
    stdlib_docs.NAME: _Own("text-v1", lower=True, min_count=2),
}
_TOKENS = {"blank": "blank-v1", "text": "text-v1"}


def load_language(
    name: str,
    *,
    level: Level = "word",
    tokens: str = "auto",
    lower: bool | None = None,
    min_count: int = 0,
    max_words: int = 0,
    valid_fraction: float = 0.05,
    limit: int = 0,
    text: str | None = None,
) -> LanguageCorpus:
    """Read a running text: a name of `LOADABLE`, a text file, a folder with train, valid and test, or a Hub name.

    Arguments as in `karui.tasks.language_settings.LanguageData`. Raises `UserError`, one line, for bad input.
    """
    own = _OWN.get(name, _Own())
    lower = own.lower if lower is None else lower
    is_word = level == "word"
    form = _TOKENS.get(tokens, own.tokens) if is_word else "chars-v1"
    texts, notes = read_parts(name, valid_fraction=valid_fraction, text=text)
    interner = Interner()
    parts = {split: interner.encode(texts[split], form, lower=lower) for split in SPLITS}
    return build_corpus(
        interner,
        parts,
        name=name,
        level=level,
        tokens=form,
        lower=lower,
        min_count=(min_count or own.min_count) if is_word else max(min_count, 1),
        max_words=max_words,
        limit=limit,
        notes=notes,
    )


def read_parts(name: str, *, valid_fraction: float, text: str | None) -> tuple[dict[str, str], list[str]]:
    """Return the raw text by split, and notes."""
    if name in LANGUAGE_SETS:
        fetch_missing(name)
        texts = {split: read_text(checked_path(SETS[name], split)[0]) for split in SPLITS}
        if name == "ptb":  # its lines begin and end with a blank, which is no character of the published text
            texts = {split: "\n".join(map(str.strip, part.split("\n"))) for split, part in texts.items()}
        return texts, []
    path = Path(name).expanduser()
    if path.is_file():
        return blocks(read_text(path), name, valid_fraction)
    near = difflib.get_close_matches(name, LOADABLE, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the named texts are {', '.join(LOADABLE)}"
    raise UserError(f"{name}: no such file or folder, and no named text; {hint}")


def blocks(text: str, name: str, valid_fraction: float) -> tuple[dict[str, str], list[str]]:
    """Cut the end of a text off for validation and test, at ends of lines."""
    lines = [f"{line}\n" for line in text_lines(text)]
    held = max(1, round(len(lines) * valid_fraction))
    if len(lines) < 3:
        raise UserError(f"{name}: {len(lines)} lines are too few to cut validation and test parts off")
    cut = {"train": lines[: -2 * held], "valid": lines[-2 * held : -held], "test": lines[-held:]}
    note = f"{name}: the last {held:,} lines are the test part, the {held:,} before them the valid part"
    return {split: "".join(part) for split, part in cut.items()}, [note]
