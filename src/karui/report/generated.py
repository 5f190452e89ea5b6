"""Pages that are made from records, as a whole or between two markers, and the pictures beside them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from karui.errors import UserError
from karui.files import atomic_write
from karui.report.readme import markers

LOOK = 4
"""Goes up when pictures are drawn in another way: those that stand are drawn again."""


class Picture(NamedTuple):
    """A picture: what it shows, and how it is drawn; `draw` gets the text that marks what it was made from."""

    data: object
    draw: Callable[[str], bytes]


def digest(data: object) -> str:
    """A text that stands in a picture made from these data."""
    return f"karui-data-{hashlib.sha256(json.dumps([LOOK, data], sort_keys=True).encode()).hexdigest()}"


def update_page(
    page: Path, text: str | None, pictures: Mapping[str, Picture], *, check: bool = False
) -> list[str]:
    """Write a page and the pictures beside it where they are not as given; return the names that differed.

    With `check` nothing is written, nor where `text` is None. A picture is known by the data it was made from, not by
    its bytes, which change with matplotlib; without data it is left out.

    Raises:
        UserError: there is no such folder.
    """
    if not page.parent.is_dir():
        raise UserError(f"{page.parent} is no folder; give the folder of the generated pages, such as docs")
    if text is None:
        return []
    differed = []
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        differed.append(page.name)
        if not check:
            atomic_write(page, text)
    for name, picture in pictures.items():
        path, mark = page.parent / name, digest(picture.data)
        if picture.data and not (path.exists() and mark.encode() in path.read_bytes()):
            differed.append(name)
            if not check:
                atomic_write(path, picture.draw(mark))
    return differed


def update_part(
    page: Path, marker: str, shown: str, pictures: Mapping[str, Picture], *, check: bool = False
) -> list[str]:
    """Write `shown` between the markers of a page, and the pictures beside it, as `update_page` does.

    A page without the markers is left alone.

    Raises:
        UserError: there is no such folder, or only one of the markers.
    """
    return update_page(page, _with_part(page, marker, shown), pictures, check=check)


def _with_part(page: Path, marker: str, shown: str) -> str | None:
    """The text of a page with `shown` between the markers; None where there is no such page or marker."""
    begin, end = markers(marker)
    if not page.exists() or begin not in (old := page.read_text(encoding="utf-8")):
        return None
    head, _, rest = old.partition(begin)
    if rest.count(end) != 1:
        raise UserError(f"{page}: needs one line {begin} and below it one line {end}")
    return f"{head}{begin}\n{shown and f'{chr(10)}{shown}{chr(10)}'}{end}{rest.partition(end)[2]}"
