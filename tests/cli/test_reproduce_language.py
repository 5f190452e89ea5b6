"""`karui reproduce language-model` on a text of a few lines."""

import dataclasses
import json

import numpy as np

from karui.cli.main import main
from karui.recipes import language
from karui.recipes.language import LanguageRecipe, LanguageRow
from karui.report.records import read_records
from karui.tasks.language_settings import LanguageData, LanguageModelSettings
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


def test_rows_of_language_models_are_none_of_classification(capsys):
    assert main(["reproduce", "classification", "ptb-word"]) == 2
    assert "no row 'ptb-word' in classification" in capsys.readouterr().err
    assert main(["reproduce", "language-model", "nothing"]) == 2
    assert "ptb-sru-6x910" in capsys.readouterr().err
