"""Writing files so that a reader sees the old content or the new one, never half of it."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from karui.errors import UserError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EROFS: "it lies on a read-only file system; choose another folder",
    errno.EACCES: "permission denied; choose a file or folder you may use",
    errno.EPERM: "not permitted; choose a file or folder you may use",
    errno.ENOENT: "there is no such file or folder; check the spelling",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EFBIG: "the file would be larger than the file system allows",
}


def os_reason(error: BaseException) -> str | None:
    """Return cause and remedy of an operating-system error in one clause, or None for other errors.

    Native writers (safetensors) wrap the operating system's text in errors of their own, so a full or
    read-only disk is also known by that text.
    """
    if isinstance(error, OSError) and error.errno in _REASONS:
        return _REASONS[error.errno]
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        if os.strerror(number) in str(error):
            return _REASONS[number]
    return None


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, else removed.

    The temporary name keeps the suffix of `path`, for writers that look at it. A device or pipe
    (`/dev/stdout`) cannot be replaced and is yielded as it is. A symbolic link stays; its target is replaced.

    Raises `UserError` naming the path and the remedy where it cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"cannot write {target}: {_REASONS[errno.EISDIR]}")
    is_device = target.exists() and not target.is_file()
    target = Path(os.path.realpath(target))
    if not target.parent.is_dir() and not is_device:
        raise UserError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")
    written = Path(path) if is_device else target.with_name(f".tmp-{os.getpid()}-{target.name}")
    try:
        yield written
        if not is_device:
            _sync(written)
            written.replace(target)
    except Exception as error:
        reason = os_reason(error)
        if reason is None or _names_another_file(error, written):
            raise
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        if not is_device:
            with contextlib.suppress(OSError):  # a read-only folder never held it
                written.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder; the rename is done
        _sync(target.parent)


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` (text as UTF-8, line ends untouched) to `path` as one step; errors as in `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names_another_file(error: Exception, written: Path) -> bool:
    """Tell whether the body of `with replacing(...)` failed on a file that is not the one being written."""
    name = getattr(error, "filename", None)
    return name is not None and os.fspath(name) != os.fspath(written)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder, inside the block or until this process ends.

    Where the system or the file system has no such locks, nothing is kept out. Raises UserError where another
    process is in there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is at work in {folder}: wait for it to end, or choose another folder"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(opened)
