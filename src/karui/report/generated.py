"""Parts of pages that are made from records: a text between two markers, and pictures beside the page."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from karui.errors import UserError
from karui.files import atomic_write
from karui.report.readme import markers

LOOK = 1
"""Goes up when pictures are drawn in another way: those that stand are drawn again."""


class Picture(NamedTuple):
    """A picture: what it shows, and how it is drawn; `draw` gets the text that marks what it was made from."""

    data: object
    draw: Callable[[str], bytes]


def digest(data: object) -> str:
    """A text that stands in a picture made from these data."""
    return f"karui-data-{hashlib.sha256(json.dumps([LOOK, data], sort_keys=True).encode()).hexdigest()}"


def update_part(
    page: Path, marker: str, shown: str, pictures: Mapping[str, Picture], *, check: bool = False
) -> list[str]:
    """Write `shown` between the markers of a page, and the pictures beside it; return the names that differed.

    With `check` nothing is written. A page without the markers is left alone.

    Raises:
        UserError: there is no such folder, or only one of the markers.
    """
    if not page.parent.is_dir():
        raise UserError(f"{page.parent} is no folder; give the folder of the generated pages, such as docs")
    begin, end = markers(marker)
    if not page.exists() or begin not in (old := page.read_text(encoding="utf-8")):
        return []
    head, _, rest = old.partition(begin)
    if rest.count(end) != 1:
        raise UserError(f"{page}: needs one line {begin} and below it one line {end}")
    new = f"{head}{begin}\n{shown and f'{chr(10)}{shown}{chr(10)}'}{end}{rest.partition(end)[2]}"
    differed = []
    if new != old:
        differed.append(page.name)
        if not check:
            atomic_write(page, new)
    for name, picture in pictures.items():
        path, mark = page.parent / name, digest(picture.data)
        if picture.data and not (path.exists() and mark.encode() in path.read_bytes()):
            differed.append(name)
            if not check:
                atomic_write(path, picture.draw(mark))
    return differed
