"""Documentation that cannot rot: its Python runs offline, its commands exist, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from karui.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OFFLINE = """
import socket
def refuse(*_arguments, **_options):
    raise OSError("documentation examples run without a network")
socket.socket.connect = refuse
"""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "python")], ids=name_of)
def test_python_blocks_run(path: Path) -> None:
    """The blocks of a page run one after the other, as a reader would type them."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OFFLINE + "\n".join(blocks(path, "python"))],
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def commands(path: Path) -> list[list[str]]:
    """Each `karui ...` of a page's plain code blocks, as words."""
    lines = "".join(blocks(path, "(?:sh)?")).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.partition("#")[0].split("|")]
    return [shlex.split(part)[1:] for part in parts if part.startswith("karui ")]


@pytest.mark.parametrize("path", [path for path in PAGES if commands(path)], ids=name_of)
def test_commands_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(path):
        verb = words[:2] if words[0] in {"data", "bench"} else words[:1]
        assert verb[0] in VERBS, words
        assert main([*verb, "--help"]) == 0
        known = capsys.readouterr().out
        for word in words:
            if word.startswith("-") and word != "-":
                assert re.search(rf"(?<![\w-]){re.escape(word.split('=')[0])}(?![\w-])", known), (words, word)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{name_of(path)} links to {target}"
