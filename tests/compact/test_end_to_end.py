"""From texts to a small file and its answers: train, sparsify, compact, predict, with the layers that have no scores
of words to lean on. The Simple Recurrent Unit goes the same way in tests/cli/test_compact.py."""

import json

import pytest

import karui
import karui.report
from karui.cli.main import main
from tests.support.trained_run import train_on_reviews

OPTIONS = {
    "statistical-ru": ("--set=model.num_stats=6", "--set=model.recur_size=2", "--set=model.alphas=0,0.5,0.9"),
    "qrnn": ("--set=model.window=2",),
    "mingru": ("--epochs=20",),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_sparse_run_becomes_a_small_file_that_knows_the_words(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(karui.report, "write_report", lambda _folder: None)  # figures take seconds
    extra = ("--sparse=vd", "--set=model.word_scores=false", *OPTIONS[name])
    run = train_on_reviews(tmp_path, f"--recurrent={name}", *extra)
    file = tmp_path / "model.karui"
    capsys.readouterr()
    assert main(["compact", str(run), "-o", str(file), "--no-baseline", "--values=int8", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["exact_proof"]["max_error"] <= 1e-5
    assert summary["artifact_bytes"] == file.stat().st_size < 1500
    model = karui.load(file)
    assert [layer.kind for layer in model.spec.layers] == [name.removesuffix("-ru")]
    texts = [
        "the film was a superb story",
        "a story about dull people",
        "witty",
        "the people in part two flat",
    ]
    assert summary["test_accuracy"] >= 0.9
    assert model.predict(texts) == ["good", "bad", "good", "bad"]
