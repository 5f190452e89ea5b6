"""karui train pixels, music, adding and copy, and what the other verbs say to such runs."""

import json

import pytest

from karui.cli.main import main
from karui.train.run import Run
from tests.support.sequence_sets import place_mnist, place_music

SETTINGS = ("--set=train.threads=1", "--set=model.hidden_size=4", "--epochs=2")
TASKS = {
    "pixels": (
        "--set=data.side=14",
        "--set=data.valid_examples=10",
        "--recurrent=statistical-ru",
        "--set=model.num_stats=3",
    ),
    "music": ("--data=jsb", "--recurrent=lstm"),
    "adding": ("--set=data.steps=6", "--set=data.examples=60", "--set=data.heldout_examples=20"),
    "copy": ("--set=data.delay=2", "--set=data.examples=60", "--set=data.heldout_examples=20"),
}
SCORES = {"pixels": "accuracy", "music": "nll", "adding": "mse", "copy": "accuracy"}


@pytest.fixture
def karui(tmp_path, monkeypatch, capsys):
    place_mnist(monkeypatch, tmp_path / "data")
    place_music(monkeypatch, tmp_path / "data")

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_trained_and_measured(karui, tmp_path, task):
    run = tmp_path / "run"
    code, out, err = karui("train", task, "--out", run, *SETTINGS, *TASKS[task], "--json")
    assert code == 0, err
    results = json.loads(out)
    score = f"test_{SCORES[task]}"
    assert (results["task"], results["subset"]) == (task, False)
    assert {score, f"valid_{SCORES[task]}", "parameters", "best_epoch"} <= set(results["metrics"])
    assert f"next: karui eval {run}" in err
    code, out, _ = karui("eval", run, "--json")
    measured = json.loads(out)
    assert code == 0
    assert measured[SCORES[task]] == pytest.approx(results["metrics"][score])
    assert measured["split"] == "test"
    code, out, _ = karui("eval", run, "--split=valid")
    assert code == 0
    assert SCORES[task] in out
    code, _, err = karui("train", task, "--out", run, "--resume")
    assert (code, "is already finished" in err) == (0, True)
    page = (run / "report.html").read_text()
    assert "Learning curves" in page
    assert "karui compact" not in page, "such a run makes no file"


def test_such_a_run_is_no_text_classifier(karui, tmp_path):
    run = tmp_path / "run"
    assert karui("train", "copy", "--out", run, *SETTINGS, *TASKS["copy"])[0] == 0
    refused = (
        (("compact", run, "-o", tmp_path / "x.karui"), "whose file is no .karui file but its sparse weights"),
        (("report", run, "--baselines"), "--dense and --baselines are for text classifiers"),
    )
    for command, reason in refused:
        code, _, err = karui(*command)
        assert code == 2
        assert f"{run} is a run of karui train copy" in err
        assert reason in err
        assert len(err.splitlines()) == 1
    assert karui("compact", run, "-o", tmp_path / "x.safetensors")[0] == 0
    code, _, err = karui("eval", run, "--split=train")
    assert (code, "its splits are test and valid" in err) == (2, True)
    code, _, err = karui("eval", run, "--data=imdb")
    assert (code, "it is measured on its own data" in err) == (2, True)
    code, _, err = karui("train", "music", "--out", run, "--resume")
    assert (code, "holds a run of karui train copy" in err) == (2, True)


def test_a_stopped_run_ends_with_the_same_weights(karui, tmp_path, monkeypatch):
    command = ("train", "music", *SETTINGS, "--set=train.checkpoint_every_s=0", "--quiet")
    assert karui(*command, "--out", tmp_path / "whole")[0] == 0
    real, steps = Run._step, []

    def interrupt(self, step):
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return real(self, step)

    monkeypatch.setattr(Run, "_step", interrupt)
    assert karui(*command, "--out", tmp_path / "run")[0] == 130
    monkeypatch.setattr(Run, "_step", real)
    assert karui(*command, "--out", tmp_path / "run", "--resume")[0] == 0
    final = [(tmp_path / run / "checkpoints/final.safetensors").read_bytes() for run in ("whole", "run")]
    assert final[0] == final[1]


BAD = {
    "no task": (
        ("train", "--out=x"),
        "train: name a task; the tasks are classify, pixels, images, music, adding, copy, lm",
    ),
    "unknown task": (("train", "words", "--out=x"), "cannot train 'words'; the tasks are classify, pixels"),
    "no folder": (("train", "adding"), "missing option '--out'"),
    "option of texts": (("train", "copy", "--out=x", "--label=x"), "data.label is a setting of classify"),
    "recipe of another task": (("train", "copy", "--out=x", "--recipe=adding"), "is of the task adding"),
    "unknown setting": (("train", "copy", "--out=x", "--set=data.delays=3"), "did you mean 'data.delay'?"),
    "unknown layer": (("train", "copy", "--out=x", "--recurrent=rnn"), "model.recurrent must be one of sru"),
    "value out of range": (("train", "pixels", "--out=x", "--set=data.side=9"), "data.side must be 28 or 14, got 9"),
    "unknown music": (("train", "music", "--out=x", "--data=bach"), "data.name must be one of jsb, nottingham"),
    "gate of a layer without": (
        ("train", "copy", "--out=x", "--recurrent=statistical-ru"), "gate_bias must be none for statistical-ru"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("command", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(karui, tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = karui(*command)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_settings_of_a_task_are_listed(karui):
    code, out, _ = karui("train", "music", "--settings")
    assert code == 0
    assert "data.piece_steps=0" in out
    assert "data.max_words" not in out
    assert "data.max_words=20000" in karui("train", "--settings")[1]
