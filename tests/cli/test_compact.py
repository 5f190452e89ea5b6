"""`karui compact` on small runs: the file, what is printed, what the run folder gets, and what is refused."""

import json
import shutil

import numpy as np
import pytest

import karui
import karui.compact.build
import karui.report
from karui.cli.compact import parse_bytes
from karui.cli.main import main
from karui.cli.runs import open_run
from karui.errors import UserError
from karui.report import load_run
from karui.runtime.format import encode
from karui.runtime.reader import read_artifact
from tests.support.trained_run import BAD, GOOD, train_on_reviews


@pytest.fixture(scope="module")
def sparse_run(tmp_path_factory):
    return train_on_reviews(tmp_path_factory.mktemp("sparse"), "--sparse=vd")


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory):
    return train_on_reviews(tmp_path_factory.mktemp("dense"), "--recurrent=gru")


@pytest.fixture
def compact(capsys, tmp_path, monkeypatch):
    """Run `karui compact` into tmp_path/model.karui; return exit code, stdout and stderr."""
    monkeypatch.setattr(karui.report, "write_report", lambda _folder: None)  # figures take seconds

    def run(run_dir, *options, out=None):
        capsys.readouterr()
        target = tmp_path / "model.karui" if out is None else out
        code = main(["compact", str(run_dir), "-o", str(target), "--no-baseline", *options])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def one_line(err):
    (line,) = err.splitlines()
    assert line.startswith("karui: ")
    return line


def test_file_and_summary_of_a_sparse_run(compact, sparse_run, tmp_path):
    code, out, _ = compact(sparse_run, "--json")
    assert code == 0
    summary = json.loads(out)
    path = tmp_path / "model.karui"
    assert summary["artifact_bytes"] == path.stat().st_size == sum(summary["sizes"].values())
    assert set(summary["sizes"]) >= {"header", "labels", "words", "output"}
    model = karui.load(path)
    assert model.labels == ["bad", "good"]
    assert summary["words_kept"] == len(model.words) < summary["words_before"]
    assert set(model.words) & {*GOOD, *BAD}
    assert summary["test_accuracy"] >= 0.95
    assert abs(summary["masked"]["test_accuracy"] - summary["test_accuracy"]) <= 0.05
    assert summary["dense"]["artifact_bytes"] > 2 * summary["artifact_bytes"]
    assert summary["exact_proof"]["max_error"] <= 1e-5
    assert summary["labels_changed"]["fp32"] == 0
    assert summary["labels_changed"][summary["values"]] <= 2
    assert summary["measured_documents"] == 40
    assert summary["metrics"]["dense_bytes"] == summary["dense"]["artifact_bytes"]
    assert read_artifact(path.read_bytes()).spec.provenance == {}
    run = load_run(sparse_run)  # the report reads what was written
    [entry] = [file for file in run.files if file["path"] == str(path)]
    assert entry["sizes"] == summary["sizes"]
    strongest = max(run.compact.get("words", []), key=lambda each: each["weight"])
    assert strongest["class"] == ("good" if strongest["word"] in GOOD else "bad")
    example = run.examples[0]
    start, end, weight = max(example["spans"], key=lambda span: abs(span[2]))
    assert example["text"][start:end] in {*GOOD, *BAD}
    assert (weight > 0) == (example["predicted"] == ("good" if example["text"][start:end] in GOOD else "bad"))


def test_the_fp32_file_answers_as_the_masked_model(compact, sparse_run, tmp_path):
    code, out, _ = compact(sparse_run, "--values=fp32", "--provenance", "--json")
    assert code == 0
    summary = json.loads(out)
    trained = open_run(sparse_run)
    texts = ["", "what", "the film was superb", "dull " * 300, "A LOVELY, lovely story!"]
    found = karui.load(tmp_path / "model.karui").logits(texts)
    np.testing.assert_allclose(found, trained.answers(trained.masked())(texts), rtol=1e-5, atol=1e-5)
    assert summary["proof"] == summary["exact_proof"]
    assert summary["test_accuracy"] == summary["masked"]["test_accuracy"]
    held = read_artifact((tmp_path / "model.karui").read_bytes()).spec.provenance
    assert (held["recipe"], held["seed"]) == ("classification-sparse", "0")


def test_a_dense_run_keeps_fp32_and_every_word(compact, dense_run):
    code, out, _ = compact(dense_run, "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary["values"] == "fp32"
    assert summary["words_kept"] == summary["words_before"]
    assert summary["dense"]["artifact_bytes"] == summary["artifact_bytes"] == summary["exact_bytes"]
    code, out, _ = compact(dense_run, "--values=int8", "--json")
    assert code == 0
    assert json.loads(out)["artifact_bytes"] < summary["artifact_bytes"] / 2


def test_the_page_for_people(compact, sparse_run):
    code, out, _ = compact(sparse_run)
    assert code == 0
    for words in (
        "whole file",
        "dense",
        "masked",
        "compact",
        "µs/document",
        "proof: on",
        "equals the masked model",
    ):
        assert words in out


def test_a_budget(compact, sparse_run, tmp_path):
    code, out, _ = compact(sparse_run, "--max-bytes=0.4kB", "--json")
    assert code == 0
    assert json.loads(out)["artifact_bytes"] <= 400
    (tmp_path / "model.karui").unlink()
    code, out, err = compact(sparse_run, "--max-bytes=40")
    assert (code, out) == (2, "")
    assert "no file of 40 bytes: the smallest that keeps its answers has" in one_line(err)
    assert not (tmp_path / "model.karui").exists()


def test_files_of_one_run_stand_side_by_side(compact, sparse_run):
    for name in ("a.karui", "b.karui", "a.karui"):
        assert compact(sparse_run, "--values=fp16", out=sparse_run / name)[0] == 0
    paths = [file["path"] for file in load_run(sparse_run).files]
    assert sorted(path for path in paths if path in ("a.karui", "b.karui")) == ["a.karui", "b.karui"]
    (sparse_run / "b.karui").unlink()
    assert compact(sparse_run, "--values=fp16", out=sparse_run / "a.karui")[0] == 0
    assert "b.karui" not in [file["path"] for file in load_run(sparse_run).files]


def test_a_run_folder_that_cannot_be_written_is_said_and_keeps_the_file(compact, dense_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(dense_run, folder)
    (folder / "compact.json").unlink(missing_ok=True)
    (folder / "compact.json").mkdir()
    code, out, err = compact(folder)
    assert code == 2
    assert "whole file" in out
    assert "model.karui is written; its entry in the run folder is not: cannot write" in one_line(err)
    assert karui.load(tmp_path / "model.karui").labels == ["bad", "good"]


def test_a_failed_proof_writes_nothing(compact, sparse_run, tmp_path, monkeypatch):
    def tampered(spec, **how):
        spec.output_bias[0] += 0.01
        return encode(spec, **how)

    monkeypatch.setattr(karui.compact.build, "encode", tampered)
    before = (sparse_run / "compact.json").read_text() if (sparse_run / "compact.json").exists() else None
    code, out, err = compact(sparse_run)
    assert (code, out) == (2, "")
    assert "not written: the file's logits differ from the masked model's by" in one_line(err)
    assert list(tmp_path.iterdir()) == []
    after = (sparse_run / "compact.json").read_text() if (sparse_run / "compact.json").exists() else None
    assert after == before


def test_baselines_and_report_of_a_sparse_run(sparse_run, tmp_path, capsys, monkeypatch):
    import karui.tasks.baseline as rivals

    point = rivals.BaselinePoint("linear", 1000, 0.9, 0.9, 10.0)
    monkeypatch.setattr(rivals, "baselines", lambda _splits, *, seed: [point] if seed == 0 else [])
    monkeypatch.setattr(
        karui.report, "write_report", lambda folder: (folder / "report.html").write_text("new")
    )
    assert main(["compact", str(sparse_run), "-o", str(tmp_path / "m.karui"), "--values=fp16"]) == 0
    saved = json.loads((sparse_run / "baselines.json").read_text())
    assert [each["artifact_bytes"] for each in saved["points"]] == [1000]
    assert (sparse_run / "report.html").read_text() == "new"
    (sparse_run / "baselines.json").write_text('{"seed": 1, "points": [], "notes": []}')
    assert main(["compact", str(sparse_run), "-o", str(tmp_path / "m.karui"), "--values=fp16"]) == 0
    assert json.loads((sparse_run / "baselines.json").read_text())["points"] == []  # measured once a run
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--values=int4"], "values must be auto, fp32, fp16 or int8, got 'int4'"),
        (["--levels=300"], "levels must be from 1 to 127, got 300"),
        (["--max-bytes=big"], "cannot read the size 'big'"),
        (["--encoding=block"], "encoding must be auto, got 'block'"),
    ],
)
def test_wrong_options(compact, sparse_run, options, message):
    code, out, err = compact(sparse_run, *options)
    assert (code, out) == (2, "")
    assert message in one_line(err)


def test_folders_that_cannot_be_used(compact, sparse_run, tmp_path):
    code, _, err = compact(tmp_path / "nothing")
    assert code == 2
    assert "is no run folder" in one_line(err)
    code, _, err = compact(sparse_run, out=tmp_path / "no" / "where.karui")
    assert code == 2
    assert "does not exist; create it first" in one_line(err)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(sparse_run, unfinished)
    (unfinished / "checkpoints" / "final.safetensors").unlink()
    code, _, err = compact(unfinished)
    assert code == 2
    assert "no finished run" in one_line(err)
    damaged = tmp_path / "damaged"
    shutil.copytree(sparse_run, damaged)
    (damaged / "vocabulary.json").write_text("{")
    code, _, err = compact(damaged)
    assert code == 2
    assert "no readable vocabulary" in one_line(err)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("20kB", 20_000),
        ("6000", 6000),
        ("1.5 MB", 1_500_000),
        ("4KiB", 4096),
        (" 2 mib ", 2 * 1024**2),
        ("7b", 7),
    ],
)
def test_sizes_are_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "kB", "-3", "3 parsecs", "1e3", "20 k B"])
def test_what_is_no_size(text):
    with pytest.raises(UserError, match="cannot read the size"):
        parse_bytes(text)
