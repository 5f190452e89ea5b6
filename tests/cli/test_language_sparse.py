"""`karui train lm --sparse vd` to a file: the run, its masked model and the file have one perplexity."""

import json

import pytest

from karui.cli.main import main
from karui.runtime.model import load
from tests.cli.test_language import text, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    (folder / "text.txt").write_text(text(), encoding="utf-8")
    options = ["--sparse", "vd", "--epochs", "6"]
    for each in (
        "model.hidden_size=16",
        "data.bptt_len=16",
        "train.lr=0.03",
        "train.penalty_weight=2",
        "sparse.groups=word,input,weight",
    ):
        options += ["--set", each]
    assert train(folder / "run", folder / "text.txt", *options) == 0
    return folder / "run"


def answer(capsys, *args):
    code = main([*map(str, args), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def test_training_drops_weights_and_learns(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = [line for line in map(json.loads, lines) if "density" in line][-1]
    assert last["density"] < 0.6
    metrics = json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["test_perplexity"] < 8  # of 11 words


def test_the_file_is_shrunk_and_answers_as_the_run(run, tmp_path, capsys):
    path = tmp_path / "model.karui"
    made = answer(capsys, "compact", run, "-o", path, "--values", "fp32")
    assert made["proof"]["max_error"] <= 1e-5
    before, after = made["shape"]["trained"], made["shape"]["compact"]
    assert after["cells"] < before["cells"]
    assert after["weights"] <= before["weights"] < before["cells"]
    other = tmp_path / "other.txt"
    other.write_text(text(60, seed=5), encoding="utf-8")
    of_run, masked, of_file = (
        answer(capsys, "eval", *args) for args in ((run,), (run, "--data", other), (path, "--data", other))
    )
    assert of_file["perplexity"] == pytest.approx(masked["perplexity"], rel=1e-6)
    metrics = json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert of_run["perplexity"] == pytest.approx(metrics["test_perplexity"], rel=1e-6)
    assert len(load(path).words) == made["words"]
    assert main(["compact", str(run), "-o", str(path)]) == 0
    assert f"embedding 16 -> {after['embedding_dim']}, 16 -> " in capsys.readouterr().out


def test_a_shared_table_is_refused_in_one_line(run, tmp_path, capsys):
    options = ["--sparse", "vd", "--set", "model.tied=true"]
    assert train(tmp_path / "run", run.parent / "text.txt", *options) == 2
    captured = capsys.readouterr()
    assert "model.tied must be false for a sparse model" in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("method", ["l0", "vd", "magnitude"])
def test_the_file_has_the_size_asked_for(run, tmp_path, capsys, method):
    out, path = tmp_path / "run", tmp_path / "model.karui"
    options = ["--sparse", method, "--target-size", "2kB", "--epochs", "3", "--set", "model.hidden_size=24"]
    options += ["--set", "data.bptt_len=16", "--set", "train.lr=0.02"]
    assert train(out, run.parent / "text.txt", *options) == 0
    made = answer(capsys, "compact", out, "-o", path)
    assert 0.97 * 2000 <= path.stat().st_size == made["artifact_bytes"] <= 2000
    metrics = json.loads((out / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["size"] <= 2000
    assert metrics["test_perplexity"] < 8  # of 11 words
    found = answer(capsys, "eval", path, "--data", run.parent / "text.txt")
    assert found["perplexity"] < 8
    kept = json.loads((out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["sparsity"][
        "matrices"
    ]
    assert kept["output.weight"]["kept"] > 0  # the output's small table does not vanish first
