"""`karui eval` of a run and of its file: figures, labels, splits, and what is refused."""

import json
import subprocess
import sys

import pytest

from karui.cli.main import main
from tests.support.trained_run import train_on_reviews, write_reviews


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with its file beside it as model.karui."""
    folder = train_on_reviews(tmp_path_factory.mktemp("run"), "--sparse=vd")
    options = ["--values=fp32", "--no-baseline", "--json"]
    assert main(["compact", str(folder), "-o", str(folder / "model.karui"), *options]) == 0
    return folder


@pytest.fixture
def evaluate(capsys):
    """Run `karui eval`; return exit code, stdout and stderr."""

    def call(*arguments):
        capsys.readouterr()
        code = main(["eval", *map(str, arguments)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def one_line(err):
    (line,) = err.splitlines()
    assert line.startswith("karui: ")
    return line


def test_run_and_file_have_the_same_figures(evaluate, run):
    data = run.parent / "data"
    found = []
    for arguments in ((run,), (run, "--data", data), (run / "model.karui", "--data", data)):
        code, out, _ = evaluate(*arguments, "--json")
        assert code == 0
        found.append(json.loads(out))
    for each in found:
        assert (each["split"], each["documents"], each["subset"]) == ("test", 40, False)
        assert each["accuracy"] == found[0]["accuracy"] >= 0.9
        assert each["nll"] == pytest.approx(found[0]["nll"], rel=1e-5)
        assert each["confusion"] == found[0]["confusion"]
        assert sum(map(sum, each["confusion"])) == 40
        assert [line["label"] for line in each["classes"]] == ["bad", "good"]
        assert each["us_per_document"] > 0
    results = json.loads((run / "results.json").read_text())
    assert found[0]["accuracy"] == results["metrics"]["test_accuracy"]


def test_splits_of_a_run(evaluate, run):
    for split, documents in (("valid", 16), ("train", 144)):
        code, out, _ = evaluate(run, "--split", split, "--json")
        assert code == 0
        assert json.loads(out)["documents"] == documents


def test_the_page_for_people(evaluate, run):
    code, out, _ = evaluate(run)
    assert code == 0
    first, second, *rest = out.splitlines()
    assert first.endswith("test: 40 documents")
    assert second.startswith("accuracy ")
    assert any(line.startswith("good") for line in rest)


def test_one_class_alone_and_other_order_of_labels(evaluate, run, tmp_path):
    (tmp_path / "good.csv").write_text("text,label\nsuperb film,good\nlovely story,good\ndull,bad\n")
    code, out, _ = evaluate(run / "model.karui", "--data", tmp_path / "good.csv", "--json")
    assert code == 0
    assert json.loads(out)["confusion"] == [[1, 0], [0, 2]]
    (tmp_path / "one.csv").write_text("text,label\nsuperb film,good\n")
    code, out, _ = evaluate(run / "model.karui", "--data", tmp_path / "one.csv", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["accuracy"] == 1.0
    assert result["classes"][0]["recall"] is None


@pytest.mark.parametrize("split", ["test", "valid"])
def test_an_unknown_label_is_one_line(evaluate, run, tmp_path, split):
    write_reviews(tmp_path / "other.csv", count=40, seed=3, labels=("bad", "excellent"))
    code, out, err = evaluate(run / "model.karui", "--data", tmp_path / "other.csv", "--split", split)
    assert (code, out) == (2, "")
    assert "excellent" in one_line(err)
    assert "other.csv" in err


def test_what_is_refused(evaluate, run, tmp_path):
    code, _, err = evaluate(run / "model.karui")
    assert code == 2
    assert "add --data" in one_line(err)
    code, _, err = evaluate(run, "--split", "dev")
    assert code == 2
    assert "split must be test, valid or train, got 'dev'" in one_line(err)
    code, _, err = evaluate(tmp_path / "nothing.karui", "--data", run.parent / "data")
    assert code == 2
    assert "there is no such file" in one_line(err)
    (tmp_path / "cut.karui").write_bytes((run / "model.karui").read_bytes()[:-3])
    code, _, err = evaluate(tmp_path / "cut.karui", "--data", run.parent / "data")
    assert code == 2
    assert "checksum" in one_line(err)
    code, _, err = evaluate(tmp_path, "--data", run.parent / "data")
    assert code == 2
    assert "config.json" in one_line(err)


def test_a_file_is_measured_without_torch(run):
    data = run.parent / "data"
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from karui.cli.main import main\n"
        f"code = main(['eval', {str(run / 'model.karui')!r}, '--data', {str(data)!r}, '--json'])\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["documents"] == 40
