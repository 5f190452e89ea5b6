"""`karui reproduce sparse-imdb` on tiny texts, from the command line to the record, and what its recipes ask for."""

import json
from dataclasses import replace

import pytest

from karui import recipes
from karui.cli.main import main
from karui.recipes import imdb_sparse
from karui.recipes.classification import ClassificationRecipe
from karui.recipes.imdb_sparse import ImdbRow
from karui.tasks.settings import DataSettings, ModelSettings, SparseSettings
from karui.train.settings import TrainSettings

TRAIN = TrainSettings(max_epochs=4, lr=2e-2, keep="last", threads=1)
MODEL = ModelSettings(embedding_dim=4, hidden_size=3)
ROWS = {
    "words": (SparseSettings(method="vd", groups=("weight", "word")), None),
    "l0-20pc": (SparseSettings(method="l0", groups=("weight",), target_density=0.2), None),
    "magnitude-400b": (SparseSettings(method="magnitude", groups=("weight",), target_size="400B"), None),
    "small-600b": (SparseSettings(), 600),
}
KEYS = {
    "test_accuracy",
    "architecture",
    "kept_params",
    "dense_params",
    "flops_ratio",
    "artifact_bytes",
    "dense_bytes",
    "words_kept",
}


@pytest.fixture
def places(tmp_path, monkeypatch):
    for split, count in (("train", 60), ("test", 12)):
        for label, word in (("good", "lovely"), ("bad", "awful")):
            folder = tmp_path / "toy" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                rare = " ".join(f"w{(7 * i + k) % 90}" for k in range(4))
                (folder / f"{i}.txt").write_text(f"a {word} film {rare} {split}")
    base = ClassificationRecipe(
        name="toy",
        data=DataSettings(name=str(tmp_path / "toy"), batch_size=16, max_tokens=9),
        model=MODEL,
        train=TRAIN,
    )
    made = {
        f"toy-{name}": ImdbRow(
            recipe=replace(base, name=f"toy-{name}", sparse=sparse), seeds=(3,), max_bytes=max_bytes
        )
        for name, (sparse, max_bytes) in ROWS.items()
    }
    monkeypatch.setattr(imdb_sparse, "ROWS", made)
    return ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_becomes_a_record_of_its_file(places, tmp_path, capsys, name):
    assert main(["reproduce", "sparse-imdb", f"toy-{name}", *places]) == 0
    assert f"toy-{name} seed 3: " in capsys.readouterr().out
    [path] = (tmp_path / "results" / "sparse_imdb").glob("*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    sparse, max_bytes = ROWS[name]
    metrics = record["metrics"]
    assert (record["method"], record["seed"], record["model"]) == (sparse.method, 3, "bi-sru-3 over 4")
    assert record["task"] == "sparse-classification"
    assert set(metrics) >= KEYS
    run = tmp_path / "runs" / f"toy-{name}-seed3"
    assert metrics["artifact_bytes"] == (run / "model.karui").stat().st_size
    assert metrics["words_kept"] == metrics["architecture"][0]
    assert 0 <= metrics["test_accuracy"] <= 1
    assert 0 <= metrics["sparse_flops_ratio"] <= metrics["flops_ratio"] <= 1
    assert metrics["kept_params"] < metrics["dense_params"]
    assert record["words"][0].keys() == {"word", "weight", "class"}  # fewer than are listed
    assert len(record["words"]) == metrics["words_kept"]
    if sparse.target_density is not None:
        assert metrics["target_density"] == sparse.target_density
        assert metrics["density"] == pytest.approx(sparse.target_density, rel=0.01)
    if sparse.target_size is not None:
        assert 0.95 * 400 <= metrics["artifact_bytes"] <= metrics["target_size"] == 400
    if max_bytes is not None:
        assert metrics["artifact_bytes"] <= max_bytes


def test_every_row_is_a_recipe_that_asks_for_what_its_name_says():
    for name, row in imdb_sparse.ROWS.items():
        assert recipes.get(name) == row.recipe
        assert row.recipe.name == name
        asked = row.recipe.sparse.target
        if name.startswith("imdb-small-"):
            assert row.max_bytes == 1000 * int(name.removeprefix("imdb-small-").removesuffix("kb"))
        elif name.endswith("kb"):
            assert (asked.kind, asked.value) == ("size", 1000 * int(name.rpartition("-")[2][:-2]))
        elif name.endswith("pc"):
            assert (asked.kind, asked.value) == ("density", int(name.rpartition("-")[2][:-2]) / 100)
        else:
            assert asked is None
    names = [
        f"imdb-{m}-{t}" for m in imdb_sparse.METHODS for t in ("10pc", "5pc", "2pc", "200kb", "50kb", "20kb")
    ]
    assert set(names) <= set(imdb_sparse.DEFAULT_ROWS)
