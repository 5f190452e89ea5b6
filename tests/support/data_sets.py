"""Tiny named sets in the published file formats, and a catalogue that knows their hashes."""

import hashlib
import io
import lzma
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from karui.data import catalogue
from karui.data.catalogue import DataFile, NamedSet, Part


def data_file(name: str, content: bytes, **values) -> DataFile:
    """Return the catalogue's line for a file with this content."""
    return DataFile(name, len(content), hashlib.sha256(content).hexdigest(), **values)


def place(
    monkeypatch: pytest.MonkeyPatch, root: Path, name: str, contents: dict[str, tuple[str, bytes]]
) -> None:
    """Write `role: (file name, bytes)` below `root` and let the catalogue expect just these bytes."""
    entry = catalogue.SETS[name]
    parts = []
    for role, (file_name, content) in contents.items():
        path = root / entry.folder / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        parts.append(Part(role, (data_file(file_name, content, url="http://127.0.0.1:9/x"),)))
    replace_entry(monkeypatch, replace(entry, parts=tuple(parts)))
    monkeypatch.setenv("KARUI_DATA", str(root))


def replace_entry(monkeypatch: pytest.MonkeyPatch, entry: NamedSet) -> None:
    """Let the catalogue hold `entry` for the time of a test."""
    monkeypatch.setitem(catalogue.SETS, entry.name, entry)


def tar_xz(files: dict[str, bytes]) -> bytes:
    """Return the bytes of a `.tar.xz` archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """Return the bytes of a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def xz(text: str, encoding: str = "utf-8") -> bytes:
    """Return a text compressed with xz."""
    return lzma.compress(text.encode(encoding))
