"""`karui reproduce language-model` on a text of a few lines."""

import dataclasses
import json

import numpy as np
import pytest

from karui.cli.main import main
from karui.cli.reproduce_language import SPARSE_FOLDER, SPARSE_TASK
from karui.recipes import language
from karui.recipes.language import LanguageRecipe, LanguageRow
from karui.report.records import read_records
from karui.runtime.model import load_language_model
from karui.tasks.language_settings import LanguageData, LanguageModelSettings
from karui.tasks.settings import SparseSettings
from karui.train.settings import TrainSettings


def test_a_row_is_trained_recorded_and_taken_as_it_is(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(list("abcde"), 8)) for _ in range(120)]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    recipe = LanguageRecipe(
        name="tiny-lm",
        data=LanguageData(name=str(tmp_path / "text.txt"), batch_size=4, bptt_len=8),
        model=LanguageModelSettings(hidden_size=8, num_layers=1),
        train=TrainSettings(max_epochs=1, monitor="nll", threads=1),
    )
    monkeypatch.setitem(language.ROWS, "tiny-lm", LanguageRow(recipe=recipe))
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--json"]
    for _ in range(2):  # the second time nothing is trained
        assert main(["reproduce", "language-model", "tiny-lm", "--seeds", "0,1", *where]) == 0
        made = json.loads(capsys.readouterr().out)
        assert [each["seed"] for each in made] == [0, 1]
    records = read_records(tmp_path / "results")
    assert len(records) == 2
    for record in records:
        assert record["task"] == "lm"
        assert {"test_perplexity", "valid_perplexity", "parameters", "train_minutes"} <= set(
            record["metrics"]
        )
        assert record["settings"]["model"]["hidden_size"] == 8
        assert record["protocol"]["state"] == "carried over the whole part"
        assert record["commit"]
        assert record["hardware"]
    monkeypatch.setitem(
        language.ROWS,
        "tiny-lm",
        LanguageRow(recipe=dataclasses.replace(recipe, model=LanguageModelSettings(hidden_size=9))),
    )
    assert main(["reproduce", "language-model", "tiny-lm", *where]) == 2
    assert "holds a run of other settings" in capsys.readouterr().err


def test_a_sparse_row_is_delivered_as_a_file_and_measured_by_it(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for part, count in (("train", 200), ("valid", 20), ("test", 20)):
        lines = [" ".join(("abcde" * 3)[start : start + 8]) for start in random.integers(0, 5, count)]
        (tmp_path / f"{part}.txt").write_text("\n".join(lines), encoding="utf-8")
    recipe = LanguageRecipe(
        name="tiny-sparse",
        data=LanguageData(name=str(tmp_path), batch_size=4, bptt_len=8),
        model=LanguageModelSettings(
            recurrent="lstm", hidden_size=6, num_layers=1, one_hot=True, tied=False, embedding_init="uniform"
        ),
        sparse=SparseSettings(method="vd", groups=("weight",)),
        train=TrainSettings(max_epochs=4, lr=0.02, monitor="nll", keep="last", penalty_weight=0.1, threads=1),
    )
    monkeypatch.setitem(language.ROWS, "tiny-sparse", LanguageRow(recipe=recipe))
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert main(["reproduce", "language-model", "tiny-sparse", *where]) == 0
    assert "times fewer" in capsys.readouterr().out
    [record] = read_records(tmp_path / "results" / SPARSE_FOLDER)
    assert (record["task"], record["model"], record["method"]) == (SPARSE_TASK, "lstm-6", "vd")
    metrics = record["metrics"]
    file = tmp_path / "runs" / "tiny-sparse-seed0" / "model.karui"
    assert metrics["artifact_bytes"] == file.stat().st_size
    assert metrics["test_ppl"] == pytest.approx(metrics["test_perplexity"], rel=2e-3)  # int8 within 0.1 %
    words = len(load_language_model(file.read_bytes()).words)
    weights, biases = words * 4 * 6 + 4 * 6 * 6 + words * 6, 2 * 4 * 6 + words
    assert metrics["dense_params"] == weights + biases
    assert metrics["compression"] == pytest.approx(1 / metrics["density"])
    assert metrics["kept_params"] - round(weights * metrics["density"]) in range(biases + 1)
    assert metrics["architecture"][0] == metrics["words_kept"] <= words
    assert 0 < metrics["flops_ratio"] < 1  # the fixed identity behind the one-hot words costs nothing
    assert metrics["dense_bytes"] > 4 * weights > metrics["artifact_bytes"]


def test_rows_of_language_models_are_none_of_classification(capsys):
    assert main(["reproduce", "classification", "ptb-word"]) == 2
    assert "no row 'ptb-word' in classification" in capsys.readouterr().err
    assert main(["reproduce", "language-model", "nothing"]) == 2
    assert "ptb-sru-6x910" in capsys.readouterr().err
