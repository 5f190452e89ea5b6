"""Lines of a text file, plain or compressed, with each defect named by file and line.

`datasets` and pyarrow read the same formats, but when a byte is wrong they do not say on which line it is;
that is why CSV, TSV and JSON Lines are read here with Python's own modules.
"""

import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from karui.errors import UserError

COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def data_suffix(path: Path) -> str:
    """Return the lower-case suffix that tells the format: `.csv` for `a.csv` and for `a.csv.xz`."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever the operating system or a decompressor says about `path` into one `UserError` line."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise UserError(
            f"{path}: damaged or cut compressed file ({error}); write or copy it again"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from error


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file, decompressing `.gz` and `.xz`."""
    return COMPRESSED.get(path.suffix.lower(), open)(path, "rb")


def read_lines(path: Path, *, keep_nul: bool = False) -> Iterator[str]:
    """Yield the lines with their ends; a byte order mark is dropped.

    Raises `UserError` with file and line for bytes that are not UTF-8, and for NUL bytes unless `keep_nul`.
    """
    with readable(path), open_bytes(path) as stream:
        _refuse_utf16(path)
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        for number, line in enumerate(text, start=1):
            if not keep_nul and "\0" in line:
                raise UserError(
                    f"{path}: line {number}: NUL byte; remove it, for example with: tr -d '\\000'"
                )
            if not line.isascii() and (match := _ESCAPED_BYTE.search(line)):
                byte = ord(match.group()) - 0xDC00
                raise UserError(
                    f"{path}: line {number}: not UTF-8 (byte 0x{byte:02x});"
                    " convert the file, for example with: iconv -f latin1 -t utf-8"
                )
            yield line


def _refuse_utf16(path: Path) -> None:
    with open_bytes(path) as stream:
        if stream.read(2) in _UTF16_MARKS:
            raise UserError(
                f"{path}: line 1: UTF-16, not UTF-8; convert the file with: iconv -f utf-16 -t utf-8"
            )
