"""Files of language models on the command line: compact, eval, predict, sample, inspect."""

import io
import json
import math
import sys

import pytest

import karui
from karui.cli.main import main
from karui.runtime.language_format import encode_language_model
from tests.cli.test_language import text, train
from tests.runtime.language_specs import random_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text.txt").write_text(text(), encoding="utf-8")
    assert train(folder / "run", folder / "text.txt", "--epochs", "1", "--output", "negative") == 0
    return folder / "run"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.karui"
    path.write_bytes(encode_language_model(random_model(), values="fp16"))
    return path


def lines_of(capsys, *args):
    code = main([str(each) for each in args])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out.splitlines()


def complaint(capsys, *args):
    code = main([str(each) for each in args])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_run_and_its_file_have_the_same_perplexity(run, tmp_path, capsys):
    path = tmp_path / "model.karui"
    [line] = lines_of(capsys, "compact", run, "-o", path, "--provenance", "--json")
    made = json.loads(line)
    assert made["artifact_bytes"] == path.stat().st_size == sum(made["bytes_by_part"].values())
    assert made["proof"]["max_error"] <= 1e-5
    assert [each["values"] for each in made["tried"]] == ["fp32", "fp16", "int8"]
    written = next(each for each in made["tried"] if each["values"] == made["values"])
    assert made["values"] == "fp32", "a dense run is what the others are compared with"
    assert written["artifact_bytes"] == made["artifact_bytes"]
    held_out = tmp_path / "held-out.txt"
    held_out.write_text(text(60, seed=5) + "some other words\n", encoding="utf-8")
    exact = tmp_path / "exact.karui"
    lines_of(capsys, "compact", run, "-o", exact, "--values", "fp32", "--json")
    of_run, of_file, of_exact = (
        json.loads(lines_of(capsys, "eval", model, "--data", held_out, "--json")[0])
        for model in (run, path, exact)
    )
    assert of_file["tokens"] == of_run["tokens"]
    assert of_file["oovs"] == of_run["oovs"] == 3
    for key in ("perplexity", "perplexity_without_oovs"):
        assert of_file[key] == pytest.approx(of_run[key], rel=3e-3)
        assert of_exact[key] == pytest.approx(of_run[key], rel=1e-6)
    assert karui.load(path).provenance["seed"] == "0"


def test_compact_takes_wishes(run, tmp_path, capsys):
    path = tmp_path / "model.karui"
    out = lines_of(capsys, "compact", run, "-o", path, "--values", "int8")
    assert "int8 values" in out[0]
    assert any(line.endswith("<- written") and line.startswith("int8") for line in out)
    small = path.stat().st_size
    lines_of(capsys, "compact", run, "-o", path, "--tolerance", "0")
    assert path.stat().st_size > 2 * small
    assert "no file of 100 bytes: the smallest has" in complaint(
        capsys, "compact", run, "-o", path, "--max-bytes", "100"
    )
    assert "levels are for text classifiers" in complaint(capsys, "compact", run, "-o", path, "--levels", "7")
    assert "values must be auto, fp32, fp16 or int8" in complaint(
        capsys, "compact", run, "-o", path, "--values", "int4"
    )
    assert "tolerance must be at least 0" in complaint(
        capsys, "compact", run, "-o", path, "--tolerance", "-1"
    )


def test_predict_tells_the_next_words(file, tmp_path, capsys, monkeypatch):
    texts = tmp_path / "texts.txt"
    texts.write_text("z0 y1\n\nz4", encoding="utf-8")
    model = karui.load(file)
    found = lines_of(capsys, "predict", file, texts, "--top", "3")
    assert found == [
        "\t".join(f"{token}={share:.6f}" for token, share in model.next(line, 3))
        for line in ("z0 y1", "", "z4")
    ]
    records = [json.loads(line) for line in lines_of(capsys, "predict", file, texts, "--json")]
    assert [each["token"] for each in records[0]["next"]] == [token for token, _ in model.next("z0 y1", 5)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"z0 new\n")))
    [line] = lines_of(capsys, "predict", file, "--score")
    assert line.startswith(f"{model.score('z0 new').log_prob / math.log(10):.4f}\tperplexity=")
    assert line.endswith("tokens=3\toovs=1")
    record = json.loads(lines_of(capsys, "predict", file, texts, "--score", "--json")[0])
    assert [each["token"] for each in record["tokens"]] == ["z0", "y1", "</s>"]
    assert sum(each["log10_prob"] for each in record["tokens"]) == pytest.approx(
        record["log10_prob"], abs=1e-5
    )
    assert "has no labels" in complaint(capsys, "predict", file, texts, "--proba")
    assert len(lines_of(capsys, "predict", file, texts, "--top", "999")[0].split("\t")) == 40


def test_predict_scores_only_language_models(capsys):
    assert "--score is for language models" in complaint(
        capsys, "predict", "tests/golden/tiny.karui", "tests/golden/tiny.karui", "--score"
    )


def test_inspect_shows_the_parts(file, capsys):
    report = json.loads("\n".join(lines_of(capsys, "inspect", file, "--json")))
    assert report["kind"] == "language model"
    assert report["artifact_bytes"] == file.stat().st_size == sum(report["bytes_by_part"].values())
    assert (report["output"], report["tied"], report["unknown"], report["num_words"]) == (
        "full",
        False,
        "<unk>",
        40,
    )
    assert report["parameters"] == sum(math.prod(each["shape"]) for each in report["matrices"])
    page = "\n".join(lines_of(capsys, "inspect", file))
    assert "language model, tokens blank-v1, unknown word <unk>" in page
    assert "layer 0: sru (identity), 6 units" in page
    assert "output_weight" in page
