"""`karui predict`: an answer for every line, one clear line for what is not text."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from karui.cli.main import main
from karui.runtime.model import load

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
TINY = str(GOLDEN / "tiny.karui")
LINES = (
    b"a quiet, funny film\n\nnul\x00 in good text\r\n\xef\xbb\xbf\xc3\x9f and \xe6\xbc\xa2 without a line end"
)
TEXTS = ["a quiet, funny film", "", "nul\0 in good text", "\ufeffß and 漢 without a line end"]


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.txt"
    path.write_bytes(LINES)
    return path


def test_one_label_a_line(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", TINY, str(reviews)]) == 0
    assert capsys.readouterr().out.splitlines() == load(TINY).predict(TEXTS)


def test_probabilities(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", TINY, str(reviews), "--proba"]) == 0
    wanted = load(TINY).predict_proba(TEXTS)
    for row, line in zip(wanted, capsys.readouterr().out.splitlines(), strict=True):
        assert line.split("\t")[1:] == [f"negative={row[0]:.6f}", f"positive={row[1]:.6f}"]


def test_json_lines(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(GOLDEN / "sru.karui")
    assert main(["predict", path, str(reviews), "--json"]) == 0
    wanted = load(path).predict_proba(TEXTS)
    for row, line in zip(wanted, capsys.readouterr().out.splitlines(), strict=True):
        answer = json.loads(line)
        assert list(answer["probabilities"]) == ["a", "b", "c"]
        assert list(answer["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-6)
        assert answer["probability"] == max(answer["probabilities"].values())
        assert answer["label"] == "abc"[int(row.argmax())]


def test_standard_input() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from karui.cli.main import main; sys.exit(main(sys.argv[1:]))",
            "predict",
            TINY,
        ],
        input=LINES,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().splitlines() == load(TINY).predict(TEXTS)


def test_standard_input_that_is_not_utf8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"good\nb\xe4d\n")))
    assert main(["predict", TINY, "-"]) == 2
    error = capsys.readouterr().err
    assert (
        error
        == "karui: standard input, line 2: byte 0xe4 at position 2 is not UTF-8; convert the file to UTF-8\n"
    )


def test_file_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9\n")
    assert main(["predict", TINY, str(path)]) == 2
    assert f"{path}, line 1: byte 0xe9" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nowhere.karui", "-"], [TINY, "nowhere.txt"], [__file__, "-"]])
def test_wrong_files_are_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert ("nowhere" if "nowhere" in "".join(arguments) else "no karui artifact") in shown.err
