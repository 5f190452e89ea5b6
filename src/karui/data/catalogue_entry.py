"""What the catalogue says about a data set and its files."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataFile:
    """One file below `$KARUI_DATA/<folder>`.

    `size` is in bytes, None when unknown. `md5` is used only where `sha256` is None. `url` is the canonical
    address, None for a recompressed copy that nobody publishes; `member` is the path inside the archive at
    `url`. `subset` marks a training file that is only a part of the published one.
    """

    name: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    url: str | None = None
    member: str | None = None
    subset: bool = False


@dataclass(frozen=True)
class Part:
    """A piece of a set ("train", "test", ...) and the files that can hold it, the preferred one first."""

    role: str
    files: tuple[DataFile, ...]

    @property
    def download(self) -> DataFile:
        """The file that is fetched when none is there; one without `url` must be put there by hand."""
        return next((file for file in self.files if file.url is not None), self.files[0])


@dataclass(frozen=True)
class NamedSet:
    """A set known by name. `counts` are the published ones by split; "all" is a set tested by folds.

    `kind` says which reader it has: `karui.data.load` ("text"), `mnist` or `cifar` ("images"), `poly_music`
    ("music") or `language` ("language").
    """

    name: str
    title: str
    folder: str
    parts: tuple[Part, ...]
    label_names: tuple[str, ...]
    counts: dict[str, int]
    licence: str
    homepage: str
    kind: Literal["text", "trees", "images", "music", "language"] = "text"

    def part(self, role: str) -> Part:
        """Return the part with this role."""
        return next(part for part in self.parts if part.role == role)
