"""Running texts for language models: words in id order, and the train, valid and test parts as ids.

N tokens of a part, V words. The end of every line is the token `</s>`; words outside the vocabulary are `<unk>`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from karui.errors import UserError
from karui.runtime.language_tokens import END, MAX_TOKEN_BYTES, UNKNOWN, text_lines, tokenise_lines

SPLITS = ("train", "valid", "test")
Level = Literal["word", "char"]


@dataclass(frozen=True)
class LanguageCorpus:
    """A running text as ids; ids go by falling count in the training part, equal counts by code points."""

    name: str
    level: Level
    words: list[str]
    """(V,) in id order."""
    counts: np.ndarray
    """(V,) int64, occurrences in the training part; `<unk>` and `</s>` may have none."""
    train: np.ndarray
    """(N,) int32"""
    valid: np.ndarray
    test: np.ndarray
    tokens: str
    """How a text becomes tokens, as docs/format.md names it: blank-v1, text-v1 or chars-v1."""
    lower: bool = False
    subset: bool = False
    notes: tuple[str, ...] = ()
    outside: Mapping[str, int] = field(default_factory=dict)
    """By split: tokens that became `<unk>` because the vocabulary lacks them."""

    @property
    def unk(self) -> int:
        """Id of `<unk>`."""
        return self.words.index(UNKNOWN)

    @property
    def eos(self) -> int:
        """Id of `</s>`."""
        return self.words.index(END)

    def split(self, name: str) -> np.ndarray:
        """Ids of "train", "valid" or "test"."""
        return getattr(self, name)


class Interner:
    """Words to provisional ids, in the order in which they are first seen; one pass, no list of words is kept."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._ids: defaultdict[str, int] = defaultdict()
        self._ids.default_factory = self._ids.__len__
        self.unknown, self.end = self._ids[UNKNOWN], self._ids[END]
        for word in words:
            self._ids[word]

    def encode(self, text: str, tokens: str, *, lower: bool = False) -> np.ndarray:
        """(N,) int32 of a text by one of `karui.runtime.language_tokens.TOKENISATIONS`, `</s>` behind each line."""
        lines = text_lines(text)
        if tokens == "chars-v1" and not lower:
            return self._encode_characters("\n".join([*lines, ""]))
        found = tokenise_lines(lines, tokens, lower=lower)
        return np.fromiter(map(self._ids.__getitem__, found), np.int32, len(found))

    def _encode_characters(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        found = np.flatnonzero(np.bincount(codes, minlength=1))
        table = np.zeros(found[-1] + 1, np.int32)
        for code in found.tolist():
            table[code] = self.end if code == ord("\n") else self._ids[chr(code)]
        return table[codes]

    @property
    def words(self) -> list[str]:
        """All words, in the order of their ids."""
        return list(self._ids)


def build_corpus(
    interner: Interner,
    parts: Mapping[str, np.ndarray],
    *,
    name: str,
    level: Level,
    tokens: str,
    lower: bool = False,
    min_count: int = 1,
    max_words: int = 0,
    limit: int = 0,
    notes: Sequence[str] = (),
) -> LanguageCorpus:
    """Number the words of provisionally numbered parts: the vocabulary is made from the training part alone.

    Words seen fewer than `min_count` times become `<unk>`, so do all but the `max_words` most frequent (0 = all),
    and those of more than 1,024 bytes, which docs/format.md has no place for;
    `<unk>` and `</s>` are always there. Raises `UserError` where a part has no tokens.
    """
    train = parts["train"][: limit or None]
    parts = {**parts, "train": train}
    for split in SPLITS:
        if not len(parts[split]):
            raise UserError(f"{name}: the {split} part has no text; give a longer text")
    words = interner.words
    counts = np.bincount(train, minlength=len(words))
    fits = np.fromiter(map(_fits, words), bool, len(words))
    counts[~fits] = 0
    kept = _kept(interner, words, counts, min_count=min_count, max_words=max_words)
    if len(kept) == 2:
        raise UserError(
            f"{name}: no word occurs {min_count} times in the training part: lower data.min_count"
        )
    table = np.full(len(words), -1, np.int32)
    table[kept] = np.arange(len(kept), dtype=np.int32)
    unknown = int(table[interner.unknown])
    outside = {split: int((table[parts[split]] < 0).sum()) for split in SPLITS}
    table[table < 0] = unknown
    encoded = {split: table[parts[split]] for split in SPLITS}
    unit = "words" if level == "word" else "characters and <unk>"
    n_units = len(kept) - (level == "char")
    sizes = " / ".join(f"{len(encoded[split]):,}" for split in SPLITS)
    said = [
        *notes,
        f"{name}: {sizes} tokens (train / valid / test, ends of lines included), {n_units:,} {unit}",
    ]
    said += [f"{count:,} tokens of the {split} part are <unk>" for split, count in outside.items() if count]
    if n_long := len(words) - int(fits.sum()):
        said.append(
            f"{n_long:,} words of more than {MAX_TOKEN_BYTES:,} bytes are <unk>: no file could hold them"
        )
    return LanguageCorpus(
        name=name,
        level=level,
        words=[words[k] for k in kept.tolist()],
        counts=np.bincount(encoded["train"], minlength=len(kept)),
        tokens=tokens,
        lower=lower,
        notes=tuple(said),
        outside=outside,
        train=encoded["train"],
        valid=encoded["valid"],
        test=encoded["test"],
    )


def _kept(
    interner: Interner, words: list[str], counts: np.ndarray, *, min_count: int, max_words: int
) -> np.ndarray:
    """Provisional ids of the vocabulary in the order of its ids."""
    fixed = np.zeros(len(words), bool)
    fixed[[interner.unknown, interner.end]] = True
    kept = np.flatnonzero((counts >= max(min_count, 1)) | fixed)
    kept = np.array(sorted(kept.tolist(), key=lambda k: (-counts[k], words[k])), np.int64)
    if max_words:
        is_kept = np.cumsum(~fixed[kept]) <= max_words
        kept = kept[is_kept | fixed[kept]]
    return kept


def _fits(word: str) -> bool:
    """Whether a file has a place for a word."""
    is_short = len(word) <= MAX_TOKEN_BYTES // 4
    return is_short or len(word.encode("utf-8", "replace")) <= MAX_TOKEN_BYTES
