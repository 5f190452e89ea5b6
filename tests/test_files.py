"""karui.files: old content or new, never half; what the user can put right is one line."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from karui.errors import UserError
from karui.files import alone_in, atomic_write, os_reason, replacing


def test_text_and_bytes_are_written_untouched(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", "軽い\r\n")
    atomic_write(str(tmp_path / "b"), b"\x00\xff")
    assert (tmp_path / "a").read_bytes() == "軽い\r\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_failure_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "model.karui"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.karui"]


def test_the_temporary_file_lies_beside_and_keeps_the_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "plot.png") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"1")
        assert not (tmp_path / "plot.png").exists()
    assert (tmp_path / "plot.png").read_bytes() == b"1"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_missing_folder_and_folder_as_target(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot write .*/nowhere/x: the folder .*/nowhere does not exist; create it"
    ):
        atomic_write(tmp_path / "nowhere" / "x", "")
    with pytest.raises(UserError, match="it is a folder; name a file"):
        atomic_write(tmp_path, "")


def test_a_device_is_written_not_replaced() -> None:
    atomic_write(os.devnull, "x")
    assert not Path(os.devnull).is_file()
    with pytest.raises(UserError, match="cannot write /dev/full: the disk is full; free some space"):
        atomic_write("/dev/full", "x")
    assert Path("/dev/full").is_char_device()


def test_errors_about_other_files_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x"):
        (tmp_path / "source").read_text()


def test_a_native_writer_is_understood_by_its_text() -> None:
    error = RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })')
    assert os_reason(error) == os_reason(OSError(errno.ENOSPC, "full"))
    assert os_reason(RuntimeError("tensor shapes differ")) is None


FILL = """
from pathlib import Path
from karui.errors import UserError
from karui.files import atomic_write
target = Path({target!r})
atomic_write(target, b"old")
try:
    atomic_write(target, bytes(1_000_000))
except UserError as error:
    print(error)
print(target.read_bytes(), sorted(p.name for p in target.parent.iterdir()))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a small tmpfs of its own")
@pytest.mark.parametrize(
    ("mount", "reason"),
    [("size=64k", "the disk is full; free some space or choose another folder")],
)
def test_a_full_disk_keeps_the_old_content(tmp_path: Path, mount: str, reason: str) -> None:
    (tmp_path / "disk").mkdir()
    code = FILL.format(target=str(tmp_path / "disk" / "x"))
    script = f'mount -t tmpfs -o {mount} none "$0" || exit 77; "$1" -c "$2"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(tmp_path / "disk"), sys.executable, code],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"this machine lets nobody mount a tmpfs: {done.stderr.strip()}")
    assert done.stdout.splitlines() == [f"cannot write {tmp_path / 'disk' / 'x'}: {reason}", "b'old' ['x']"]


def test_a_folder_is_left_to_the_process_that_is_at_work_in_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from karui.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with (
            pytest.raises(UserError, match=f"another process is at work in {tmp_path}: wait"),
            alone_in(tmp_path),
        ):
            pass
        other.kill()
        other.wait()
        with alone_in(tmp_path):
            pass
        assert not list(tmp_path.iterdir())
    finally:
        other.kill()
        other.communicate()
