"""`karui train images` and `karui reproduce sparse-images` on tiny digits, from the command line to the record."""

import json
from dataclasses import replace

import pytest

from karui.cli.main import main
from karui.compact.sparse_tensors import decode_tensors
from karui.recipes import images
from karui.recipes.images import ImageRecipe, ImageRow
from karui.tasks.image_settings import ImageData, ImageModel, ImageSparse
from karui.train.settings import TrainSettings
from tests.support.sequence_sets import place_mnist

DATA = ImageData(batch_size=16, valid_examples=20)
MODEL = ImageModel(units=(12, 6))
TRAIN = TrainSettings(max_epochs=4, lr=1e-2, threads=1, keep="last", weight_averaging=0.5)
SPARSE = {
    "l0": ImageSparse(method="l0", layer_densities=(0.3, 0.5, 0.7)),
    "vd": ImageSparse(method="vd", target_density=0.1),
    "magnitude": ImageSparse(method="magnitude", target_size="8kB"),
    "dense": ImageSparse(),
}
KEYS = {
    "test_error",
    "architecture",
    "kept_params",
    "dense_params",
    "flops_ratio",
    "artifact_bytes",
    "dense_bytes",
}


@pytest.fixture
def rows(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path / "data", train=120, test=30)
    made = {
        f"tiny-{name}": ImageRow(
            recipe=ImageRecipe(name=f"tiny-{name}", data=DATA, model=MODEL, sparse=sparse, train=TRAIN),
            seeds=(3,),
        )
        for name, sparse in SPARSE.items()
    }
    monkeypatch.setattr(images, "ROWS", made)
    return ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]


def record_of(tmp_path, name: str) -> dict:
    path = tmp_path / "results" / "sparse_images" / f"mnist-tiny-{name}-seed3.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SPARSE)
def test_a_row_becomes_a_record(rows, tmp_path, capsys, name):
    assert main(["reproduce", "sparse-images", f"tiny-{name}", *rows]) == 0
    assert f"tiny-{name} seed 3: " in capsys.readouterr().out
    record = record_of(tmp_path, name)
    assert (record["data"], record["model"], record["seed"]) == (
        {"name": "mnist", "subset": False},
        "lenet-300-100-12-6",
        3,
    )
    assert record["method"] == ("none" if name == "dense" else name)
    metrics = record["metrics"]
    assert set(metrics) >= KEYS
    content = (tmp_path / "runs" / f"tiny-{name}-seed3" / "network.safetensors").read_bytes()
    assert metrics["artifact_bytes"] == len(content)
    stored = decode_tensors(content)
    assert metrics["kept_params"] == sum(
        int((value != 0).sum()) for key, value in stored.items() if key.endswith(("weight", "bias"))
    )
    assert metrics["dense_params"] == 784 * 12 + 12 + 72 + 6 + 60 + 10
    assert 0 <= metrics["test_error"] <= 100
    curve = metrics["flops_curve"]
    assert [point["epoch"] for point in curve] == ([] if name == "dense" else [1, 2, 3, 4])
    if name == "l0":
        assert metrics["architecture"] <= [int(0.3 * 784), 6, 4]
        assert metrics["flops_ratio"] == pytest.approx(curve[-1]["deployed"])  # along chains
    if name == "vd":
        assert metrics["density"] == pytest.approx(0.1, rel=0.01)
    if name == "magnitude":
        assert 0.9 * 8000 < metrics["artifact_bytes"] <= 8000 == metrics["target_size"]
    if name == "dense":
        assert (metrics["architecture"], metrics["flops_ratio"]) == ([784, 12, 6], 1.0)
        assert metrics["artifact_bytes"] == pytest.approx(metrics["dense_bytes"], abs=500)


def test_a_finished_run_is_taken_as_it_is(rows, tmp_path):
    arguments = ["reproduce", "sparse-images", "tiny-dense", "--epochs", "1", *rows]
    assert main(arguments) == 0
    before = record_of(tmp_path, "dense")
    log = (tmp_path / "runs" / "tiny-dense-seed3" / "metrics.jsonl").stat().st_mtime_ns
    assert main(arguments) == 0
    assert record_of(tmp_path, "dense") == before
    assert (tmp_path / "runs" / "tiny-dense-seed3" / "metrics.jsonl").stat().st_mtime_ns == log


def test_train_and_eval(tmp_path, monkeypatch, capsys):
    place_mnist(monkeypatch, tmp_path / "data", train=120, test=30)
    out = tmp_path / "run"
    tiny = ["--set", "data.valid_examples=20", "--set", "model.units=12,6", "--set", "data.batch_size=16"]
    arguments = ["train", "images", "--sparse", "l0", "--target-density", "0.2", "--epochs", "2"]
    assert main([*arguments, *tiny, "--out", str(out), "--json", "--quiet"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert (results["task"], results["data"], results["subset"]) == ("images", "mnist", False)
    assert results["metrics"]["density"] <= 0.2
    assert main(["eval", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["accuracy"] == pytest.approx(results["metrics"]["test_accuracy"])
    assert (out / "report.html").is_file()


def test_options_of_other_tasks_are_refused(tmp_path, capsys):
    assert main(["train", "images", "--label", "x", "--out", str(tmp_path / "run")]) == 2
    assert "data.label is a setting of classify; images has none of that name" in capsys.readouterr().err


def test_rows_hold_the_sizes_that_are_asked_for():
    small = images.RECIPES["lenet-300-100-l0"].sparse.layer_densities
    assert [int(share * units) for share, units in zip(small, (784, 300, 100), strict=True)] == [266, 88, 33]
    assert set(images.DEFAULT_ROWS) <= set(images.ROWS)
    assert replace(images.RECIPES["published-wrn-28-10-cifar10-l0"].train, seed=1).momentum == 0.9
