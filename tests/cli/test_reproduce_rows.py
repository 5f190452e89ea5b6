"""karui reproduce pixel-mnist and music: trials on validation, one look at the test part, records, resuming."""

import json
from dataclasses import replace

import pytest

from karui.cli import reproduce_rows
from karui.cli.main import main
from karui.cli.reproduce_runs import seconds_per_epoch
from karui.recipes import music, pixels
from karui.recipes.search import SearchSettings
from karui.tasks.pixels import PixelTask
from karui.train.settings import TrainSettings
from tests.support.sequence_sets import place_mnist, place_music

pytest.importorskip("optuna", reason="needs karui[tune]")
RANGES = {"train.lr": (1e-3, 1e-1), "model.dropout": (0.0, 0.5)}
TRAIN = TrainSettings(max_epochs=3, threads=1, lr=1e-2)


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Two rows of each table on tiny data, of milliseconds an epoch."""
    place_mnist(monkeypatch, tmp_path / "data")
    place_music(monkeypatch, tmp_path / "data")
    for module, names in ((pixels, ("pixel-196-gru", "pixel-196-statistical-ru-iid")), (music, ("jsb-sru",))):
        made = {}
        for name in names:
            row = module.ROWS[name]
            sizes = replace(row.recipe.model, hidden_size=4, num_stats=3, num_layers=1)
            data = replace(row.recipe.data, **({"valid_examples": 10} if module is pixels else {}))
            train = replace(TRAIN, monitor=row.recipe.train.monitor)
            search = SearchSettings(trials=3, epochs=1, examples=5, ranges=RANGES)
            made[name] = replace(
                row,
                recipe=replace(row.recipe, model=sizes, data=data, train=train),
                search=search,
                seeds=(0, 4),
            )
        monkeypatch.setattr(module, "ROWS", made)
        monkeypatch.setattr(module, "DEFAULT_ROWS", names[:1])


@pytest.fixture
def reproduce(tmp_path, capsys):
    def run(*arguments):
        places = (f"--runs={tmp_path / 'runs'}", f"--results={tmp_path / 'results'}")
        code = main(["reproduce", *arguments, *places])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_a_row_is_searched_trained_and_recorded(rows, reproduce, tmp_path):
    code, out, _ = reproduce("pixel-mnist", "--json", "--epochs=2")
    assert code == 0
    made = json.loads(out)
    assert [(each["row"], each["seed"]) for each in made] == [("pixel-196-gru", 0), ("pixel-196-gru", 4)]
    record = json.loads((tmp_path / "results" / "mnist-pixel-196-gru-seed4.json").read_text())
    assert (record["task"], record["recipe"], record["seed"]) == ("pixels", "pixel-196-gru", 4)
    assert set(record["metrics"]) >= {"test_accuracy", "valid_accuracy", "seconds_per_epoch", "parameters"}
    assert record["budget"]["epochs"] == 2
    assert record["budget"]["trials"] == len(record["search"]["trials"]) == 3
    scores = [trial["valid"] for trial in record["search"]["trials"]]
    best = record["search"]["trials"][scores.index(max(scores))]
    assert record["search"]["chosen"] == best["values"]
    config = json.loads((tmp_path / "runs" / "pixel-196-gru-seed4" / "config.json").read_text())
    assert config["train"]["lr"] == best["values"]["train.lr"]
    assert config["model"]["dropout"] == best["values"]["model.dropout"]
    trial = json.loads((tmp_path / "runs" / "pixel-196-gru-search" / "search.json").read_text())
    assert trial["search"]["examples"] == 5
    assert main(["report", "--results", str(tmp_path / "results")]) == 0


def test_nothing_is_made_twice(rows, reproduce, tmp_path, monkeypatch):
    assert reproduce("pixel-mnist", "--seeds=1", "--json")[0] == 0
    monkeypatch.setattr(reproduce_rows, "make_task", lambda *_: pytest.fail("a finished trial ran again"))
    code, out, _ = reproduce("pixel-mnist", "--seeds=1")
    assert code == 0
    assert "pixel-196-gru seed 1: test_accuracy" in out


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(rows, reproduce, tmp_path, monkeypatch):
    real, calls = reproduce_rows._trial, []

    def stop_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(reproduce_rows, "_trial", stop_at_the_third)
    assert reproduce("pixel-mnist", "--seeds=1")[0] == 130
    assert reproduce("pixel-mnist", "--seeds=1", "--json")[0] == 0
    assert len(calls) == 4
    stopped = (tmp_path / "runs" / "pixel-196-gru-search" / "search.json").read_text()
    for path in sorted((tmp_path / "runs").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert reproduce("pixel-mnist", "--seeds=1", "--json")[0] == 0
    assert (tmp_path / "runs" / "pixel-196-gru-search" / "search.json").read_text() == stopped


def test_trials_never_open_the_test_part(rows, reproduce, tmp_path, monkeypatch):
    opened = []
    real = PixelTask.held_out
    monkeypatch.setattr(PixelTask, "held_out", lambda self, split: opened.append(split) or real(self, split))
    assert reproduce("pixel-mnist", "--seeds=0", "--json")[0] == 0
    assert opened.count("test") == 1
    assert opened[-1] == "test"


def test_a_diverged_trial_is_noted_and_a_wholly_diverged_search_says_so(rows, tmp_path, monkeypatch):
    row = pixels.ROWS["pixel-196-gru"]
    values = iter([None, 0.4, 0.3])
    monkeypatch.setattr(reproduce_rows, "_trial", lambda *_: next(values))
    chosen = reproduce_rows.search(row.recipe, row.search, tmp_path / "a", quiet=True)
    assert (chosen["valid"], chosen["values"]) == (0.4, chosen["trials"][1]["values"])
    monkeypatch.setattr(reproduce_rows, "_trial", lambda *_: None)
    with pytest.raises(reproduce_rows.UserError, match="every trial diverged"):
        reproduce_rows.search(row.recipe, row.search, tmp_path / "b", quiet=True)
    with pytest.raises(reproduce_rows.UserError, match="holds a search of other settings"):
        reproduce_rows.search(row.recipe, replace(row.search, seed=1), tmp_path / "a", quiet=True)


def test_music_is_measured_in_nats_and_the_lowest_is_chosen(rows, reproduce, tmp_path):
    assert reproduce("music", "jsb", "--seeds=0", "--json")[0] == 0
    record = json.loads((tmp_path / "results" / "jsb-jsb-sru-seed0.json").read_text())
    scores = [trial["valid"] for trial in record["search"]["trials"]]
    assert record["search"]["valid"] == min(scores)
    assert record["metrics"]["test_nll"] > 0


def test_what_does_not_exist_is_refused_by_name(rows, reproduce):
    code, _, err = reproduce("pixel-mnist", "sru")
    assert code == 2
    assert "no row 'sru' in pixel-mnist; the rows are pixel-196-gru" in err
    assert "no table 'images'; the tables are classification, pixel-mnist, music" in reproduce("images")[2]


@pytest.mark.parametrize(("epochs", "seconds"), [((0, 1, 2), 4.5), ((1, 3, 4), 2.25)])
def test_an_epoch_is_timed_without_its_evaluation(tmp_path, epochs, seconds):
    first, second, third = epochs  # behind whose training the model is evaluated
    lines = [
        ("train", 4.0, 0),
        ("valid", 5.0, first),
        ("train", 7.0, first + 1),
        ("train", 9.5, second),
        ("valid", 10.0, second),
        ("train", 16.0, third),
        ("valid", 17.0, third),
    ]
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        "".join(json.dumps({"split": split, "seconds": s, "epoch": e}) + "\n" for split, s, e in lines)
    )
    assert seconds_per_epoch(log) == seconds
