"""`enwiki2015`: articles in the form of WikiExtractor, read out of their archive and split by article.

Reading takes half a minute; the ids are kept in the cache folder, where a damaged or old file is made anew.
"""

import contextlib
import hashlib
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from karui.data.language import SPLITS, Interner
from karui.data.lines import readable
from karui.data.storage import cache_root
from karui.errors import UserError
from karui.files import atomic_write

HELD_OUT_SHARE = 1 / 128
"""Share of the articles in the valid part, and again in the test part."""

CACHE_VERSION = 1
_ARTICLE = re.compile(r'<doc id="(\d+)"[^>]*>\n(.*?)</doc>', re.DOTALL)


def read_articles(path: Path) -> Iterator[tuple[str, str]]:
    """Yield id and text of every article of a `.tar.xz` of WikiExtractor's files, in the order of the archive."""
    with readable(path), tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            content = stream.read().decode("utf-8")
            for found in _ARTICLE.finditer(content):
                yield found.group(1), "\n".join(filter(None, found.group(2).split("\n")))


def split_of(article: str) -> str:
    """The part of an article, by the hash of its id: no seed, no order."""
    place = int.from_bytes(hashlib.sha256(article.encode()).digest()[:8], "big") / 2**64
    if place < HELD_OUT_SHARE:
        return "test"
    return "valid" if place < 2 * HELD_OUT_SHARE else "train"


def encode_articles(path: Path, tokens: str, *, lower: bool) -> tuple[Interner, dict[str, np.ndarray]]:
    """Provisional ids (N,) int32 of the parts, and their words; from the cache folder where they lie there.

    Raises `UserError` where the archive cannot be read.
    """
    digest = hashlib.sha256(path.name.encode() + str(path.stat().st_size).encode()).hexdigest()[:12]
    name = f"{path.name.partition('.')[0]}-{tokens}{'-lower' if lower else ''}-{CACHE_VERSION}-{digest}.npz"
    cache = cache_root() / "language" / name
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return _load(cache)
    interner = Interner()
    pieces: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for article, text in read_articles(path):
        pieces[split_of(article)].append(interner.encode(text, tokens, lower=lower))
    parts = {split: np.concatenate([np.zeros(0, np.int32), *pieces[split]]) for split in SPLITS}
    with contextlib.suppress(
        OSError, UserError
    ):  # a folder that cannot be written: it is read again next time
        _save(cache, interner.words, parts)
    return interner, parts


def _save(cache: Path, words: list[str], parts: Mapping[str, np.ndarray]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"words": np.frombuffer("\n".join(words).encode(), np.uint8), **parts}
    np.savez(buffer, **arrays)
    atomic_write(cache, buffer.getvalue())


def _load(cache: Path) -> tuple[Interner, dict[str, np.ndarray]]:
    with cache.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        words = file["words"].tobytes().decode().split("\n")
        parts = {split: file[split] for split in SPLITS}
    interner = Interner(words)
    if interner.words != words or any(part.max(initial=0) >= len(words) for part in parts.values()):
        raise ValueError(f"{cache}: not what this version writes")
    return interner, parts
