import json

import pytest

from karui.cli.main import main
from karui.report.records import write_record
from tests.support.run_folder import make_run


def test_a_run_is_printed_and_its_page_written(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "ag_news (subset)" in shown
    assert "195×" in shown
    assert "compact, int8: L1 logistic regression, int8 is more accurate with no more bytes" in " ".join(
        shown.split()
    )
    assert (run / "report.html").stat().st_size > 20_000


def test_json_for_machines(tmp_path, capsys):
    run, dense = make_run(tmp_path / "run"), make_run(tmp_path / "dense")
    assert main(["report", str(run), "--dense", str(dense), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["runs"]
    assert entry["report"] == str(run / "report.html")
    assert [file["artifact_bytes"] for file in entry["files"]] == [13_400, 34_100]
    assert entry["dense"]["artifact_bytes"] == 2_610_000
    assert entry["data"] == "ag_news (subset)"


def test_recorded_results_and_the_readme(tmp_path, capsys):
    results, readme = tmp_path / "results", tmp_path / "README.md"
    metrics = {"test_accuracy": 0.88, "artifact_bytes": 13_400}
    write_record(
        results, task="classification", data="imdb", subset=False, recipe="small", seed=1, metrics=metrics
    )
    readme.write_text("<!-- results:begin -->\n<!-- results:end -->\n")
    arguments = ["report", "--results", str(results), "--readme", str(readme)]
    assert main([*arguments, "--check"]) == 2
    assert f"{readme}: its result table is out of date" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "88.0 %" in capsys.readouterr().out
    assert "| imdb | small | 88.0 % | 13.4 kB |" in readme.read_text()
    assert main([*arguments, "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["recipe"] == "small"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to report: name run folders, or --results DIR"),
        (["nowhere"], "nowhere is no run folder; karui train"),
        (["--results", "nowhere"], "nowhere is no folder"),
        (["--readme", "README.md", "x"], "--readme needs --results"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_dense_run_must_have_a_file_and_the_same_data(tmp_path, capsys):
    run, dense = make_run(tmp_path / "run"), make_run(tmp_path / "dense")
    (dense / "compact.json").unlink()
    assert main(["report", str(run), "--dense", str(dense)]) == 2
    assert f"{dense} has no compact file; karui compact {dense} -o dense.karui" in capsys.readouterr().err
    other = make_run(tmp_path / "other", subset=False)
    assert main(["report", str(run), "--dense", str(other)]) == 2
    assert f"{other} was trained on ag_news, not on ag_news (subset); give" in capsys.readouterr().err


def test_baselines_are_measured_on_the_splits_of_the_run(tmp_path, capsys):
    rows = [f"{'good' if k % 2 else 'bad'} text number{k % 7},{k % 2}" for k in range(120)]
    (tmp_path / "own.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"name": "own", "data": {"name": str(tmp_path / "own.csv")}}))
    assert main(["report", str(run), "--baselines"]) == 0
    assert "measuring the baselines" in capsys.readouterr().err
    points = json.loads((run / "baselines.json").read_text())["points"]
    assert points[0]["artifact_bytes"] < 100
    assert points[0]["valid_accuracy"] == 1.0
