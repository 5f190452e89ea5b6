"""Files to raw text, and what is left out of it."""

from pathlib import Path

from karui.data.lines import data_suffix, open_bytes, read_lines, readable
from karui.errors import UserError

_KARUI_FILE = b"\x9d\x6b\x72\x75"  # docs/format.md, "Frame"
TABLES = frozenset({".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet"})
"""Suffixes of files whose text stands between other things, which a language model would learn as well."""


def read_text(path: Path) -> str:
    """A whole text file, UTF-8, also as `.gz` or `.xz`; a byte order mark is dropped.

    Raises `UserError`, one line: missing, empty, damaged, a table, or not UTF-8 (naming the line).
    """
    if data_suffix(path) in TABLES:
        raise UserError(f"{path}: a table, not running text; write its texts to a .txt file, one a line")
    with readable(path), open_bytes(path) as stream:
        content = stream.read()
    if content.startswith(_KARUI_FILE):
        raise UserError(f"{path}: a .karui file, not a text; give the text, and the file to karui eval")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text:
        text = "".join(read_lines(path))  # raises, and names the line
    if not text.strip():
        raise UserError(f"{path}: holds no text; give a file with words in it")
    return text
