"""`karui inspect`: the bytes add up, the strongest words come first."""

import json
from pathlib import Path

import pytest

from karui.cli.main import main
from karui.runtime.language import LanguageModel
from karui.runtime.model import load

GOLDEN = sorted((Path(__file__).resolve().parent.parent / "golden").glob("*.karui"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_report_for_machines(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["artifact_bytes"] == path.stat().st_size == sum(report["bytes_by_part"].values())
    for matrix in report["matrices"]:
        assert matrix["bytes"] == report["bytes_by_part"][matrix["name"]]
        assert 0 < matrix["density"] <= 1
    assert report["provenance"] == {"recipe": "golden"}
    model = load(path)
    if isinstance(model, LanguageModel):
        assert report["kind"] == "language model"
        assert report["num_words"] == len(model.words)
        return
    assert sorted(entry["word"] for entry in report["words"]) == model.words
    weights = [entry["weight"] for entry in report["words"]]
    assert weights == sorted(weights, reverse=True)
    if len(model.labels) == 2:
        entry = report["words"][0]
        change = float(model.logits_ids([[model.words.index(entry["word"]) + 1]])[0, 0] - model.logits("")[0])
        assert abs(change) == pytest.approx(entry["weight"], abs=1e-5)
        assert entry["label"] == model.labels[int(change > 0)]


def test_report_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    path = next(path for path in GOLDEN if path.stem == "tiny")
    assert main(["inspect", str(path), "--words", "3"]) == 0
    out = capsys.readouterr().out
    assert f"{path.stat().st_size} bytes, 15 words, labels negative, positive" in out
    assert "layer 0: sru (tanh), 4 + 3 units" in out
    assert "recipe: golden" in out
    assert len(out.split("strongest words\n")[1].split("\n\n")[0].splitlines()) == 3


def test_a_file_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", __file__]) == 2
    assert "no karui artifact" in capsys.readouterr().err
