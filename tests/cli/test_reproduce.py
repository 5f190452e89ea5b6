"""karui reproduce: a row is trained, compacted and recorded, and a second call takes what is there."""

import dataclasses
import json
from pathlib import Path

import pytest

from karui import recipes
from karui.cli import reproduce
from karui.errors import UserError
from karui.recipes.classification import ClassificationRecipe
from karui.tasks.settings import DataSettings, ModelSettings, SparseSettings
from karui.train.settings import TrainSettings


@pytest.fixture
def tiny_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClassificationRecipe:
    """A row on a small folder of texts with a test part."""
    for split, count in (("train", 60), ("test", 12)):
        for label, word in (("good", "lovely"), ("bad", "awful")):
            folder = tmp_path / "toy" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.txt").write_text(f"a {word} film {i % 7} {split}")
    row = ClassificationRecipe(
        name="toy-3kb",
        data=DataSettings(name=str(tmp_path / "toy"), batch_size=16),
        model=ModelSettings(embedding_dim=4, hidden_size=3),
        sparse=SparseSettings(method="vd"),
        train=TrainSettings(max_epochs=8, lr=2e-2, penalty_weight=0.5, keep="last"),
        expect={"test_accuracy": 0.9, "artifact_bytes": 3000},
    )
    monkeypatch.setattr(recipes, "names", lambda: ["plain", row.name])
    plain = dataclasses.replace(row, name="plain", expect={})
    monkeypatch.setattr(recipes, "get", lambda name: row if name == row.name else plain)
    return row


def test_a_row_is_made_recorded_and_not_made_twice(
    tiny_row: ClassificationRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"runs": tmp_path / "runs", "results": tmp_path / "results"}
    reproduce.reproduce("classification", seeds="3", as_json=True, **places)
    [made] = json.loads(capsys.readouterr().out)
    record = json.loads(Path(made["record"]).read_text())
    metrics = record["metrics"]
    assert (record["recipe"], record["seed"], record["task"]) == ("toy-3kb", 3, "classification")
    assert metrics["test_accuracy"] == 1.0
    assert metrics["artifact_bytes"] == (tmp_path / "runs" / "toy-3kb-seed3" / "model.karui").stat().st_size
    assert metrics["artifact_bytes"] <= 3000 < 20 * metrics["artifact_bytes"]
    assert metrics["dense_bytes"] > metrics["artifact_bytes"]
    assert metrics["words_kept"] < 12
    weights = tmp_path / "runs" / "toy-3kb-seed3" / "checkpoints" / "final.safetensors"
    before = weights.stat().st_mtime_ns
    reproduce.reproduce("classification", "toy-3kb", seeds="3", **places)
    assert "toy-3kb seed 3: 100.00% in" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == before
    changed = dataclasses.replace(tiny_row, train=dataclasses.replace(tiny_row.train, lr=1e-2, seed=3))
    with pytest.raises(UserError, match="holds a run of other settings"):
        reproduce._train(changed, tmp_path / "runs" / "toy-3kb-seed3")


@pytest.mark.usefixtures("tiny_row")
def test_what_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="no table 'images'; the tables are classification"):
        reproduce.reproduce("images")
    with pytest.raises(UserError, match="no row 'plain' in classification; the rows are toy-3kb"):
        reproduce.reproduce("classification", "plain")
    with pytest.raises(UserError, match="seeds must be whole numbers separated by commas, got '1;2'"):
        reproduce.reproduce("classification", seeds="1;2")
