"""Fetching the named sets from their canonical addresses: resumed when cut, checked before it counts.

A download goes to `NAME.part`, is hashed and only then renamed to NAME, so a file with its own name is a
whole, checked file. Bytes with another hash than the catalogue's are kept as `NAME.refused` for a look.
"""

import contextlib
import http.client
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from karui.data.catalogue import SETS, TREE_SETS, DataFile, NamedSet
from karui.data.storage import CHUNK_BYTES, data_root, hash_mismatch, missing_parts
from karui.errors import UserError
from karui.files import atomic_write, os_reason

TIMEOUT_SECONDS = 60
_AGAIN = "run the same command again to go on from there"

Report = Callable[[int, int | None], None]
"""Called with (bytes so far, bytes in all or None)."""


def entries_of(name: str, *, phrases: bool = True) -> list[NamedSet]:
    """Return the catalogue's entries a set is made of: sst1 and sst2 take their phrases from the trees."""
    if name not in SETS:
        raise UserError(f"{name}: no such set; the named sets are {', '.join(SETS)}")
    return [SETS[name], *([SETS["sst_trees"]] if name in TREE_SETS and phrases else [])]


def fetch_missing(name: str, *, phrases: bool = True) -> list[Path]:
    """Fetch the parts of a set that are not here in any form; return the new files."""
    return [path for entry in entries_of(name, phrases=phrases) for path in fetch_entry(entry)]


def fetch_entry(entry: NamedSet, *, complete: bool = False) -> list[Path]:
    """Fetch the missing parts of one entry; with `complete`, also the full file of a part held as a subset.

    Raises `UserError` for whatever the network, the server or the disk does, and for a wrong hash.
    """
    folder = data_root() / entry.folder
    fetched = []
    for part in missing_parts(entry, complete=complete):
        file = part.download
        if file.url is None:
            raise UserError(
                f"{entry.name}: no address serves {file.name} as one file; put it into {folder} yourself"
                f" (made from {entry.homepage}, SHA-256 {file.sha256})"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder}: {os_reason(error) or error}; set KARUI_DATA to a folder that can be written"
            ) from error
        with progress_bar(f"{entry.name}: {file.name}") as report:
            if file.member is None:
                download(file, folder / file.name, report)
            else:
                _fetch_member(file, folder, report)
        fetched.append(folder / file.name)
    return fetched


def download(file: DataFile, target: Path, report: Report) -> None:
    """Download `file.url` to `target`, continuing a `.part` left by an earlier try, and check its hash."""
    part = target.with_name(f"{target.name}.part")
    _transfer(str(file.url), part, report)
    if file.sha256 or file.md5:
        problem = hash_mismatch(file, part)
        if problem is not None:
            refused = part.replace(target.with_name(f"{target.name}.refused"))
            raise UserError(
                f"{file.url}: not the published file ({problem}); kept as {refused},"
                " try again later or put the right file there yourself"
            )
    part.replace(target)


def _fetch_member(file: DataFile, folder: Path, report: Report) -> None:
    """Fetch the archive that holds `file`, check the member's own hash and write it beside the archive."""
    archive_path = folder / str(file.url).rpartition("/")[2]
    if not archive_path.is_file():
        download(DataFile(archive_path.name, url=file.url), archive_path, report)
    try:
        with zipfile.ZipFile(archive_path) as archive:
            content = archive.read(str(file.member))
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        checked = folder / f"{file.name}.part"
        atomic_write(checked, content)
        problem = hash_mismatch(file, checked)
        if problem is None:
            checked.replace(folder / file.name)
            return
    refused = archive_path.replace(archive_path.with_name(f"{archive_path.name}.refused"))
    raise UserError(
        f"{file.url}: {file.member} in it is not the published file ({problem}); kept as {refused},"
        " try again later or put the right file there yourself"
    )


def _transfer(url: str, part: Path, report: Report) -> None:
    """Bring the bytes of `url` into `part`, asking only for those that are not there yet."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: not an http address")
    offset = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "karui", **({"Range": f"bytes={offset}-"} if offset else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  http and https only, see above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  same
            done, total = _receive(response, part, offset, report)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return  # everything is here already; the hash decides
        raise UserError(f"{url}: the server answers {error.code} {error.reason}; {_by_hand(part)}") from error
    except urllib.error.URLError as error:
        raise UserError(f"{url}: cannot be reached ({error.reason}); {_by_hand(part)}") from error
    except (http.client.HTTPException, OSError) as error:
        if reason := os_reason(error):
            raise UserError(f"{part}: {reason}") from error
        raise UserError(f"{url}: the connection broke ({error}); {_AGAIN}") from error
    if total is not None and done < total:
        raise UserError(f"{url}: cut off after {done:,} of {total:,} bytes; {_AGAIN}")


def _receive(
    response: http.client.HTTPResponse, part: Path, offset: int, report: Report
) -> tuple[int, int | None]:
    """Write the body of an answer; return (bytes in `part`, bytes promised or None)."""
    resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
    done = offset if resumed else 0  # a server that knows no ranges sends everything again
    length = response.headers.get("Content-Length")
    total = done + int(length) if length and length.isdecimal() else None
    with part.open("ab" if resumed else "wb") as stream:
        while chunk := response.read(CHUNK_BYTES):
            stream.write(chunk)
            done += len(chunk)
            report(done, total)
    return done, total


def _by_hand(part: Path) -> str:
    target = part.with_name(part.name.removesuffix(".part"))
    return f"check the network, or put the file there yourself: {target}"


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """Show a bar with bytes, speed and time left on stderr while the body runs."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
