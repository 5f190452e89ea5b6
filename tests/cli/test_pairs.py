"""A run with a linear part, from training to answers: every verb that meets its pairs."""

import json
import shutil

import numpy as np
import pytest

import karui
import karui.report
from karui.cli.main import main
from karui.cli.runs import open_run
from karui.runtime.reader import read_artifact
from karui.tasks.classification import LINEAR_FILE
from tests.support.trained_run import train_on_reviews

SHARE = ("--set=model.linear_share=0.5", "--set=model.linear_weights=60")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_on_reviews(tmp_path_factory.mktemp("pairs"), "--sparse=vd", *SHARE)


@pytest.fixture
def call(capsys, monkeypatch):
    """Run a verb; return its JSON document or its text."""
    monkeypatch.setattr(karui.report, "write_report", lambda _folder: None)  # figures take seconds

    def verb(*arguments):
        capsys.readouterr()
        assert main([*map(str, arguments)]) == 0
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out

    return verb


def test_train_compact_predict_inspect(run, call, tmp_path):
    path = tmp_path / "model.karui"
    summary = call("compact", run, "-o", path, "--no-baseline", "--json")
    assert summary["test_accuracy"] >= 0.9
    assert summary["sizes"]["pairs"] > 0 < summary["sizes"]["pair_scores"]
    assert summary["artifact_bytes"] == path.stat().st_size == sum(summary["sizes"].values())
    assert summary["exact_proof"]["max_error"] <= 1e-5

    texts = tmp_path / "texts.txt"
    texts.write_text("a lovely film the story was superb\nflat\n\n", encoding="utf-8")
    answers = call("predict", path, texts).splitlines()
    assert answers == karui.load(path).predict(texts.read_text(encoding="utf-8").splitlines())
    assert answers[:2] == ["good", "bad"]

    report = call("inspect", path, "--json")
    model = karui.load(path)
    assert report["num_pairs"] == len(report["pairs"]) == len(model.spec.pairs)
    weights = [entry["weight"] for entry in report["pairs"]]
    assert weights == sorted(weights, reverse=True)
    strongest = report["pairs"][0]
    k = model.spec.pair_names().index(strongest["pair"])
    assert strongest["weight"] == pytest.approx(abs(float(model.spec.pair_scores[k, 0])), abs=1e-6)
    shown = call("inspect", path, "--words", 2)
    lines = shown.split(f"strongest of {report['num_pairs']} pairs\n")[1].splitlines()
    assert strongest["pair"] in lines[0]
    assert len(lines) == 2


def test_the_file_is_the_average_of_network_and_linear_part(run, call, tmp_path):
    path = tmp_path / "model.karui"
    call("compact", run, "-o", path, "--no-baseline", "--values", "fp32")
    trained, texts = open_run(run), ["a lovely film", "the flat story was dull", "", "people in part two"]
    masked = trained.masked()
    expected = trained.answers(masked)(texts)
    assert np.abs(karui.load(path).logits(texts) - expected).max() <= 1e-5
    masked.linear = None
    assert np.abs(trained.answers(masked)(texts) - expected).max() > 1e-2


def test_a_budget_counts_pairs(run, call, tmp_path):
    path = tmp_path / "small.karui"
    summary = call("compact", run, "-o", path, "--no-baseline", "--max-bytes=400", "--json")
    assert summary["artifact_bytes"] <= 400
    names = {part for part in summary["levels"] if part in ("words", "pairs")}
    if names:
        page = call("compact", run, "-o", path, "--no-baseline", "--max-bytes=400")
        assert all(f"% of the {part}, to fit" in page for part in names)
    assert len(read_artifact(path).spec.words) <= len(open_run(run).words)


def test_a_run_without_its_linear_part_is_named(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / LINEAR_FILE).write_bytes(b"damaged")
    assert main(["compact", str(copy), "-o", str(tmp_path / "x.karui"), "--no-baseline"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "linear.npz: no readable linear model" in line
