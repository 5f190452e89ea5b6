"""Files to raw text, and what is left out of it."""

from pathlib import Path

from karui.data.lines import open_bytes, read_lines, readable
from karui.errors import UserError


def read_text(path: Path) -> str:
    """A whole text file, UTF-8, also as `.gz` or `.xz`; a byte order mark is dropped.

    Raises `UserError`, one line: missing, empty, damaged, or not UTF-8 (naming the line).
    """
    with readable(path), open_bytes(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text:
        text = "".join(read_lines(path))  # raises, and names the line
    if not text.strip():
        raise UserError(f"{path}: holds no text; give a file with words in it")
    return text
