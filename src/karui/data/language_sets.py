"""`load_language`: one entry for every source of running text."""

import difflib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from karui.data import hub, stdlib_docs
from karui.data.catalogue import LANGUAGE_SETS, SETS
from karui.data.columns import TEXT_NAMES
from karui.data.fetch import fetch_missing
from karui.data.folders import SPLIT_FOLDERS
from karui.data.language import SPLITS, Interner, LanguageCorpus, Level, build_corpus
from karui.data.lines import readable
from karui.data.storage import checked_path
from karui.data.text_stream import read_text
from karui.data.wikipedia import encode_articles, read_articles, split_of
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

    Arguments as in `karui.tasks.language_settings.LanguageData`. A set that is not below the data root is fetched
    first. Raises `UserError`, one line, for bad input.
    """
    own = _OWN.get(name, _Own())
    is_word = level == "word"
    form = _TOKENS.get(tokens, own.tokens) if is_word else "chars-v1"
    lower = own.lower if lower is None else lower
    interner, parts, notes = _encoded(name, form, lower=lower, valid_fraction=valid_fraction, text=text)
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


def read_lines_of(
    name: str, split: str, *, text: str | None = None, valid_fraction: float = 0.0
) -> tuple[list[str], str]:
    """Raw lines of what a trained model is measured on, and what they are: a part of a text, or a whole file.

    valid_fraction: the share that a run kept for validation and test, to have the parts of its own text; 0: a text
    without parts is read whole. Raises `UserError`, one line, for bad input.
    """
    path = Path(name).expanduser()
    _refuse_column(name, text)
    if name not in LOADABLE and path.is_file() and not valid_fraction:
        return text_lines(read_text(path)), "whole file"
    if name == "enwiki2015":
        fetch_missing(name)
        archive = checked_path(SETS[name], "all")[0]
        chosen = [each for key, each in read_articles(archive) if split_of(key) == split]
        return [line for article in chosen for line in text_lines(article)], split
    texts, _ = _raw(name, valid_fraction=valid_fraction or 0.05, text=text)
    return text_lines(texts[split]), split


def _encoded(
    name: str, form: str, *, lower: bool, valid_fraction: float, text: str | None
) -> tuple[Interner, Mapping[str, np.ndarray], Sequence[str]]:
    if name == "enwiki2015":
        fetch_missing(name)
        interner, parts = encode_articles(checked_path(SETS[name], "all")[0], form, lower=lower)
        return interner, parts, ["enwiki2015: split by article, 1 of 128 each for valid and test"]
    texts, notes = _raw(name, valid_fraction=valid_fraction, text=text)
    interner = Interner()
    return interner, {split: interner.encode(texts[split], form, lower=lower) for split in SPLITS}, notes


def _raw(name: str, *, valid_fraction: float, text: str | None) -> tuple[dict[str, str], list[str]]:
    """Return the raw text by split, and notes."""
    path = Path(name).expanduser()
    _refuse_column(name, text)
    if name == stdlib_docs.NAME:
        return _stdlib_docs()
    if name in LANGUAGE_SETS:
        fetch_missing(name)
        texts = {split: read_text(checked_path(SETS[name], split)[0]) for split in SPLITS}
        if name == "ptb":  # its lines begin and end with a blank, which is no character of the published text
            texts = {split: "\n".join(map(str.strip, part.split("\n"))) for split, part in texts.items()}
        return texts, []
    if path.is_dir():
        return _completed(_folder(path), name, valid_fraction)
    if path.is_file():
        return blocks(read_text(path), name, valid_fraction)
    is_hub = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.suffix
    if name.startswith(hub.PREFIX) or is_hub:
        return _completed(_hub(name, text), name, valid_fraction)
    if name in SETS:
        raise UserError(
            f"{name} holds {SETS[name].kind}, not running text; the texts are {', '.join(LOADABLE)}"
        )
    near = difflib.get_close_matches(name, LOADABLE, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the named texts are {', '.join(LOADABLE)}"
    raise UserError(f"{name}: no such file or folder, and no named text; {hint}")


def _refuse_column(name: str, text: str | None) -> None:
    if text is not None and (name in LOADABLE or Path(name).expanduser().exists()):
        raise UserError(f"{name} is running text, without columns: leave --text out, it is for Hub names")


def _stdlib_docs() -> tuple[dict[str, str], list[str]]:
    """One document a line; those whose name's hash says so are the test part, every twentieth other one valid."""
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    documents = stdlib_docs.read_documents()
    for number, document in enumerate(documents):
        split = "test" if document.in_test else "train" if number % 20 else "valid"
        texts[split].append(" ".join(document.text.split()))
    note = f"{len(documents):,} documents of the standard library of Python {platform.python_version()}"
    return {split: "\n".join(lines) for split, lines in texts.items()}, [note]


def _folder(path: Path) -> dict[str, str]:
    """Files of a folder by split: `train.txt`, or any name with the split as one of its parts (`ptb.train.txt.xz`)."""
    with readable(path):
        files = sorted(
            entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".")
        )
    found: dict[str, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        matches = [file for file in files if set(names) & set(file.name.lower().split("."))]
        if len(matches) > 1:
            raise UserError(
                f"{path}: {matches[0].name} and {matches[1].name} are both the {split} part; keep one"
            )
        if matches:
            found[split] = matches[0]
    if "train" not in found:
        raise UserError(f"{path}: no train part; name a file of it train.txt (and valid.txt, test.txt)")
    return {split: read_text(file) for split, file in found.items()}


def _hub(name: str, text: str | None) -> dict[str, str]:
    """The text column of a Hub data set by split, one row a line."""
    loaded: Any = hub.load(name)
    found: dict[str, str] = {}
    for split, names in hub.SPLITS.items():
        chosen = next((candidate for candidate in names if candidate in loaded), None)
        if chosen is None:
            continue
        columns = loaded[chosen].column_names
        column = text or next((each for each in TEXT_NAMES if each in columns), None)
        if column not in columns:
            raise UserError(
                f"{name}: cannot tell which column is the text; columns: {', '.join(columns)}; name it with --text NAME"
            )
        rows = ("" if row is None else str(row) for row in loaded[chosen][column][:])
        found[split] = "\n".join(row.rstrip("\n").replace("\0", " ") for row in rows)
    if "train" not in found:
        raise UserError(f"{name}: no split named train; splits found: {', '.join(loaded)}")
    return found


def _completed(texts: dict[str, str], name: str, valid_fraction: float) -> tuple[dict[str, str], list[str]]:
    """All three parts: those that are missing are cut off the end of the training text."""
    missing = [split for split in ("valid", "test") if split not in texts]
    if not missing:
        return texts, []
    cut, _ = blocks(texts["train"], name, valid_fraction)
    if len(missing) == 1:  # one block is needed, and one stays in the training part
        kept = {"train": cut["train"] + cut["valid"], missing[0]: cut["test"]}
    else:
        kept = cut
    return {**texts, **kept}, [f"{name}: {' and '.join(missing)} cut off the end of the training text"]


def blocks(text: str, name: str, valid_fraction: float) -> tuple[dict[str, str], list[str]]:
    """Cut the end of a text off for validation and test, at ends of lines."""
    lines = [f"{line}\n" for line in text_lines(text)]
    if len(lines) < 3:
        raise UserError(
            f"{name}: {len(lines)} line{'s' * (len(lines) > 1)}, too few to cut validation and test parts off: break"
            " the text into lines, or give a folder with train.txt, valid.txt and test.txt"
        )
    held = max(1, round(len(lines) * valid_fraction))
    cut = {"train": lines[: -2 * held], "valid": lines[-2 * held : -held], "test": lines[-held:]}
    note = f"{name}: the last {held:,} lines are the test part, the {held:,} before them the valid part"
    return {split: "".join(part) for split, part in cut.items()}, [note]
