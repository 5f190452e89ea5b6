"""`karui bench runtime`: every side answers, the ratios are those of the times."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from karui.cli.bench import measure
from karui.cli.main import main

TINY = str(Path(__file__).resolve().parent.parent / "golden" / "tiny.karui")


def test_report_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a quiet, funny film\n" * 5, encoding="utf-8")
    assert (
        main(["bench", "runtime", TINY, str(texts), "--passes", "2", "--max-documents", "4", "--json"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["documents"] == 4
    assert report["mean_characters"] == 19
    assert report["artifact_bytes"] == Path(TINY).stat().st_size
    assert [side["name"] for side in report["sides"]] == ["karui, one by one", "karui, one list"]
    assert report["sides"][0]["ratio"] == 1
    assert main(["bench", "runtime", TINY, str(texts), "--passes", "1"]) == 0
    assert "5 documents of 19 characters, one thread" in capsys.readouterr().out


def test_fasttext_answers_the_text_and_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    core = SimpleNamespace(predict=lambda line, *_: asked.append(line))
    package = ModuleType("fasttext.FastText")
    package.__dict__["_FastText"] = lambda model_path: SimpleNamespace(f=core, path=model_path)
    monkeypatch.setitem(sys.modules, "fasttext", ModuleType("fasttext"))
    monkeypatch.setitem(sys.modules, "fasttext.FastText", package)
    model, texts = tmp_path / "peer.ftz", tmp_path / "texts.txt"
    model.touch()
    texts.write_text("Quiet, FUNNY film!\n", encoding="utf-8")
    assert main(["bench", "runtime", TINY, str(texts), "--fasttext", str(model), "--passes=1", "--json"]) == 0
    assert set(asked) == {"Quiet, FUNNY film!\n", "quiet funny film !\n"}
    names = [side["name"] for side in json.loads(capsys.readouterr().out)["sides"]]
    assert names[2:] == ["fastText, split at spaces, one by one", "fastText after karui's words, one by one"]


def test_sides_take_turns_and_are_compared_with_the_first() -> None:
    calls: list[str] = []
    sides = {name: lambda texts, name=name: calls.append(name) for name in ("a", "b")}
    result = measure(sides, ["x", "y"], 3)
    assert calls == ["a", "b"] * 4
    assert [side["name"] for side in result] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.karui"], "nowhere.karui"),
        ([TINY, "nowhere.txt"], "nowhere.txt"),
        ([TINY, "EMPTY"], "no text to time"),
    ],
)
def test_wrong_input_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    texts = tmp_path / "texts.txt"
    texts.write_text("x\n", encoding="utf-8")
    arguments = (
        [*arguments, str(texts)]
        if len(arguments) == 1
        else [a.replace("EMPTY", str(empty)) for a in arguments]
    )
    assert main(["bench", "runtime", *arguments]) == 2
    assert message in capsys.readouterr().err
