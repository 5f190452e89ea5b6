"""Where the named sets lie on this machine, and whether their bytes are the published ones."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from karui.data.catalogue import DataFile, NamedSet, Part
from karui.errors import UserError

CHUNK_BYTES = 1 << 20


def data_root() -> Path:
    """Return `$KARUI_DATA`, else `$KARUI_CACHE/data`, else `~/.cache/karui/data`; it need not exist."""
    if root := os.environ.get("KARUI_DATA"):
        return Path(root).expanduser()
    if cache := os.environ.get("KARUI_CACHE"):
        return Path(cache).expanduser() / "data"
    return Path("~/.cache/karui/data").expanduser()


def cache_root() -> Path:
    """Return `$KARUI_CACHE`, else `~/.cache/karui`: what can be made again lies there; it need not exist."""
    return Path(os.environ.get("KARUI_CACHE") or "~/.cache/karui").expanduser()


def find_file(folder: Path, part: Part) -> tuple[Path, DataFile] | None:
    """Return the first of the part's files that exists in `folder`."""
    for file in part.files:
        path = folder / file.name
        if path.is_file():
            return path, file
    return None


def missing_parts(entry: NamedSet, *, complete: bool = False) -> list[Part]:
    """Return the parts of a set with no file here; with `complete`, also those held as a subset only."""
    folder = data_root() / entry.folder
    found = {part.role: find_file(folder, part) for part in entry.parts}
    return [
        part for part in entry.parts if (held := found[part.role]) is None or (complete and held[1].subset)
    ]


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, a megabyte at a time."""
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def hash_mismatch(file: DataFile, path: Path) -> str | None:
    """Return None when `path` holds the bytes the catalogue promises, else what is wrong, in words."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"{size} bytes, {file.size} expected"
    algorithm, expected = ("sha256", file.sha256) if file.sha256 else ("md5", file.md5)
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for chunk in read_chunks(path):
        digest.update(chunk)
    if digest.hexdigest() != expected:
        return f"{algorithm} {digest.hexdigest()}, {expected} expected"
    return None


def checked_path(entry: NamedSet, role: str) -> tuple[Path, DataFile]:
    """Return the file of a part after checking its hash; raise `UserError` when it is absent or altered."""
    folder = data_root() / entry.folder
    held = find_file(folder, entry.part(role))
    if held is None:
        wanted = entry.part(role).download
        raise UserError(f"{folder / wanted.name}: not there; fetch it with: karui data fetch {entry.name}")
    path, file = held
    problem = hash_mismatch(file, path)
    if problem is not None:
        raise UserError(
            f"{path}: not the published file ({problem}); move it away, then: karui data fetch {entry.name}"
        )
    return path, file
