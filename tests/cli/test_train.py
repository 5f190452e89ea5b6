"""`karui train` on a CSV of a few documents: run folder, exit codes, resuming, bad input."""

import json
from pathlib import Path

import pytest

import karui.report
from karui.cli.main import main
from karui.tasks.classification import ClassificationTask
from karui.train.run import Run

GOOD, BAD = ("lovely", "superb", "moving"), ("dull", "awful", "boring")
SETTINGS = ("--epochs=3", "--set=train.lr=0.05", "--set=train.threads=1", "--set=train.checkpoint_every_s=0")


def write_reviews(path: Path, rows: int = 12) -> None:
    lines = ["text,label"]
    for i in range(rows):
        for words, label in ((GOOD, "good"), (BAD, "bad")):
            lines += [f"the film was {word} in part {i},{label}" for word in words]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def train(tmp_path, capsys, monkeypatch):
    """Run `karui train classify` on reviews with a test part; return exit code, stdout and stderr."""
    monkeypatch.setattr(karui.report, "write_report", lambda _folder: None)
    folder = tmp_path / "reviews"
    folder.mkdir()
    write_reviews(folder / "train.csv")
    write_reviews(folder / "test.csv", rows=4)

    def run(*arguments, data=folder, out="run"):
        command = ["train", "classify", f"--data={data}", f"--out={tmp_path / out}", *SETTINGS, *arguments]
        code = main(command)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def one_line(err: str) -> str:
    (line,) = err.splitlines()
    assert line.startswith("karui: ")
    return line


def test_run_folder_holds_what_the_other_verbs_read(train, tmp_path):
    code, out, err = train("--json", "--epochs=10")
    assert code == 0
    results = json.loads(out)
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    metrics = results["metrics"]
    assert metrics["test_accuracy"] == metrics["valid_accuracy"] == 1.0
    assert metrics["test_nll"] < 0.5
    assert (results["recipe"], results["seed"], results["subset"]) == ("classification", 0, False)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["train"]["lr"], config["train"]["max_epochs"]) == (0.05, 10)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "results.json",
        "tensorboard",
        "vocabulary.json",
    }
    assert "epoch 10/10" in err
    assert "next: karui compact" in err


def test_options_are_settings(train, tmp_path):
    options = [
        "--recurrent=gru",
        "--directions=1",
        "--sparse=vd",
        "--seed=7",
        "--epochs=1",
        "--set=model.dropout=0.1",
    ]
    code, _, err = train(*options, "--quiet")
    assert (code, err) == (0, "")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["model"]["recurrent"], config["model"]["directions"], config["model"]["dropout"]) == (
        "gru",
        1,
        0.1,
    )
    assert (config["sparse"]["method"], config["train"]["seed"], config["train"]["max_epochs"]) == (
        "vd",
        7,
        1,
    )


def test_run_is_not_overwritten(train):
    assert train()[0] == 0
    code, _, err = train()
    assert code == 2
    assert "is not empty; add --resume to continue that run, or name another folder" in one_line(err)


def test_finished_run_says_so(train, tmp_path):
    first = train("--json")[1]
    before = (tmp_path / "run/checkpoints/final.safetensors").stat().st_mtime_ns
    code, out, err = train("--resume", "--json")
    assert (code, out) == (0, first)
    assert "is already finished; nothing to do" in err
    assert (tmp_path / "run/checkpoints/final.safetensors").stat().st_mtime_ns == before


def test_stopped_run_continues_without_repeating_its_options(train, tmp_path, monkeypatch, capsys):
    assert train("--sparse=vd", out="whole")[0] == 0
    real, epochs = Run._train_epoch, []

    def interrupt(self):
        epochs.append(self.state.epoch)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Run, "_train_epoch", interrupt)
    code, _, err = train("--sparse=vd")
    assert code == 130
    assert "the same command with --resume continues" in err
    assert main(["train", "classify", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert epochs == [0, 1, 2, 2]
    assert "resuming at epoch 3, step 0" in capsys.readouterr().err
    whole, cut = (tmp_path / name / "checkpoints/final.safetensors" for name in ("whole", "run"))
    assert whole.read_bytes() == cut.read_bytes()


def test_evaluation_that_was_cut_off_is_made_up_for(train, tmp_path):
    first = json.loads(train("--json")[1])
    (tmp_path / "run/results.json").unlink()
    code, out, _ = train("--resume", "--json")
    assert code == 0
    assert json.loads(out)["metrics"] == first["metrics"]


def test_resuming_with_another_recipe_names_the_field(train, monkeypatch):
    assert train()[0] == 0
    code, _, err = train("--resume", "--set=model.hidden_size=8")
    assert code == 2
    assert "model.hidden_size was 16 and is 8 now" in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=model.hidden_siz=3"], "no setting 'model.hidden_siz'; did you mean 'model.hidden_size'?"),
        (["--set=train.lr=fast"], "train.lr must be number, got 'fast'"),
        (
            ["--recurrent=lstmm"],
            "model.recurrent must be one of sru, statistical-ru, lstm, gru, qrnn, mingru, none, got 'lstmm'",
        ),
        (["--recipe=nonsense"], "no recipe 'nonsense'; the recipes are classification, "),
        (["--set=train.precision=16-mixed"], "train.precision=16-mixed is not available on this cpu"),
        (["--text=txet"], "txet"),
    ],
)
def test_bad_input_is_one_line_and_leaves_the_folder_empty(train, tmp_path, arguments, message):
    code, _, err = train(*arguments)
    assert code == 2
    assert message in one_line(err)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_unknown_task_and_file_in_the_place_of_the_folder(tmp_path, capsys):
    assert main(["train", "clasify", "--out", str(tmp_path / "run")]) == 2
    assert "cannot train 'clasify'; the tasks are classify" in one_line(capsys.readouterr().err)
    (tmp_path / "file").write_text("here")
    assert main(["train", "classify", "--out", str(tmp_path / "file")]) == 2
    assert "file is a file; --out names a folder" in one_line(capsys.readouterr().err)


def test_loss_that_is_nan_is_one_line(train, monkeypatch):
    loss = ClassificationTask.loss
    monkeypatch.setattr(ClassificationTask, "loss", lambda self, batch: loss(self, batch) * float("nan"))
    code, _, err = train("--quiet")
    assert code == 2
    assert "the loss is nan at epoch 1, step 0" in one_line(err)


def test_set_without_test_part_reports_validation_only(train, tmp_path):
    code, out, err = train("--json", data=tmp_path / "reviews" / "train.csv")
    assert code == 0
    assert "test_accuracy" not in json.loads(out)["metrics"]
    assert "has no test part" in err
    assert "steps are few; more --epochs" in err
    _, _, quiet = train("--quiet", data=tmp_path / "reviews" / "train.csv", out="quiet")
    assert quiet == ""


def test_report_that_fails_is_shown_and_the_run_is_kept(train, tmp_path, monkeypatch):
    def fail(_folder):
        raise ZeroDivisionError("no documents")

    monkeypatch.setattr(karui.report, "write_report", fail)
    code, _, err = train()
    assert code == 0
    assert "report.html was not written: ZeroDivisionError: no documents" in err
    assert (tmp_path / "run" / "results.json").exists()


def test_settings_are_listed_with_defaults_and_meaning(capsys):
    assert main(["train", "--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "train.lr=0.004  (number)" in lines
    place = lines.index('model.recurrent="sru"  (one of sru, statistical-ru, lstm, gru, qrnn, mingru, none)')
    assert lines[place + 1].startswith("    Recurrent layer")
