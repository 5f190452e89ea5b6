import json
import platform
import re
import subprocess

import pytest

from karui.errors import UserError
from karui.report import records
from karui.report.records import check_record, commit, data_title, hardware, read_records, write_record

METRICS = {"test_accuracy": 0.88, "artifact_bytes": 13_400}


def written(folder, **changes):
    settings = {"task": "classification", "data": "imdb", "subset": False, "recipe": "imdb_small", "seed": 2}
    return write_record(folder, **{**settings, "metrics": METRICS, **changes})


def test_a_record_says_what_its_numbers_depend_on(tmp_path):
    path = written(tmp_path / "results")
    assert path.name == "imdb-imdb_small-seed2.json"
    record = json.loads(path.read_text())
    assert record["data"] == {"name": "imdb", "subset": False}
    assert record["metrics"] == METRICS
    assert record["python"] == platform.python_version()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert record["torch"][0].isdigit()
    assert re.fullmatch(r"unknown|[0-9a-f]{12}\+?", record["commit"])
    assert read_records(tmp_path / "results") == [record]


def test_hardware_is_generic():
    assert re.fullmatch(r".+, \d+ cores", hardware())
    assert platform.node() not in hardware()


def test_records_and_pages_are_no_change_of_the_source(tmp_path, monkeypatch):
    for name in ("src/records.py", "results/a.json", "docs/a.md", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first")
    own = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*own, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "src/records.py"))
    for name in ("results/a.json", "docs/a.md", "README.md"):
        (tmp_path / name).write_text("second")
    assert re.fullmatch(r"[0-9a-f]{12}", commit())
    (tmp_path / "src/records.py").write_text("second")
    assert re.fullmatch(r"[0-9a-f]{12}\+", commit())


def test_no_repository_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"


def test_a_name_becomes_a_file_name(tmp_path):
    assert written(tmp_path, data="../my data/Ä.csv", recipe="A b").name == "..-my-data-.csv-a-b-seed2.json"
    assert written(tmp_path, name="Table 1").parent == tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {"test_accuracy": 88.1}}, r"test_accuracy must be in \[0, 1\], got 88.1"),
        ({"subset": None}, "data must have a name and subset true or false"),
        ({"seed": "2"}, "seed must be int, got '2'"),
    ],
)
def test_a_wrong_record_is_not_written(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        written(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_reading_passes_over_other_json_and_names_what_is_broken(tmp_path):
    written(tmp_path)
    (tmp_path / "bench.json").write_text('{"rows": []}')
    assert len(read_records(tmp_path)) == 1
    (tmp_path / "x.json").write_text('{"recipe": "x"}')
    with pytest.raises(UserError, match=r"x.json: the key 'task' is missing"):
        read_records(tmp_path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x.json is not JSON"):
        read_records(tmp_path)


def test_a_subset_is_called_one():
    assert data_title({"data": {"name": "ag_news", "subset": True}}) == "ag_news (subset)"
    with pytest.raises(UserError, match="here: the key 'seed' is missing"):
        check_record({"task": "x", "data": {}, "recipe": "x"}, "here")
