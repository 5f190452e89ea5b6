"""`make setup` says in one line what a machine lacks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAKE = shutil.which("make")


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("python", "line"),
    [
        (sys.executable, "karui: no C++ compiler found; install one (g++ or clang++) or set CXX"),
        ("no-python", "karui: no-python is missing or older than 3.11; install Python 3.11 or set PYTHON="),
    ],
)
def test_a_missing_tool_is_one_line(tmp_path: Path, python: str, line: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "CMakeLists.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "native").mkdir()
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "find"):
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "bin" / tool).symlink_to(found)
    environment = {name: value for name, value in os.environ.items() if name not in {"CXX", "MAKEFLAGS"}}
    done = subprocess.run(
        [str(MAKE), "setup", f"PYTHON={python}", f"SHELL={tmp_path}/bin/bash"],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment | {"PATH": str(tmp_path / "bin")},
        check=False,
    )
    assert done.returncode != 0
    assert [text for text in done.stderr.splitlines() if text.startswith("karui:")] == [line]
    assert not (tmp_path / ".venv").exists()
