"""karui train --target-*: files of the size asked for, runs that go on to the bit, and what cannot be said at once."""

import json
from pathlib import Path

import pytest

from karui.cli.main import main
from karui.train.run import Run
from tests.support.sequence_sets import place_mnist, place_music

WORDS = {"alpha": "up rise high sky peak", "beta": "down fall low deep base"}
FEW = (
    "--set=data.batch_size=16",
    "--set=model.embedding_dim=8",
    "--set=model.hidden_size=8",
    "--set=data.min_count=1",
)
FAST = ("--epochs=3", "--set=train.threads=1", "--quiet")


@pytest.fixture
def karui(tmp_path, monkeypatch, capsys):
    place_music(monkeypatch, tmp_path / "data")
    place_mnist(monkeypatch, tmp_path / "data")
    folder = tmp_path / "texts"
    for label, words in WORDS.items():
        (folder / label).mkdir(parents=True)
        parts = words.split()
        for number in range(60):
            rare = " ".join(f"{label}{(number * k) % 97}" for k in range(1, 9))
            text = f"{parts[number % 5]} {rare} {parts[(number // 5) % 5]}"
            (folder / label / f"{number}.txt").write_text(text)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    run.texts = folder
    return run


@pytest.mark.parametrize("method", ["l0", "vd", "magnitude"])
def test_the_file_has_the_size_asked_for(karui, tmp_path, method):
    run, file = tmp_path / "run", tmp_path / "model.karui"
    options = ("--data", karui.texts, "--sparse", method, "--target-size=1.2kB", *FEW, *FAST)
    code, _, err = karui("train", "classify", "--out", run, *options)
    assert code == 0, err
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    assert {"density", "target_density", "size"} <= set(metrics)
    code, _, err = karui("compact", run, "-o", file, "--no-baseline")
    assert code == 0, err
    assert 0.97 * 1200 <= file.stat().st_size <= 1200
    samples_are_unsure(karui, run, method)


def samples_are_unsure(karui, run, method):
    code, out, err = karui("eval", run, "--samples", "5", "--split=valid", "--json")
    if method == "magnitude":
        assert (code, "no random weights" in err) == (2, True)
        return
    found = json.loads(out)["sampled"]
    assert found["samples"] == 5
    assert 0 <= found["mutual_information"] <= found["entropy"] <= 0.6932
    assert found["mutual_information"] > 1e-6
    assert json.loads(karui("eval", run, "--samples=5", "--split=valid", "--json")[1])["sampled"] == found
    assert "mean of 2 draws of the weights: accuracy" in karui("eval", run, "--samples=2", "--split=valid")[1]
    assert "samples must be at least 1" in karui("eval", run, "--samples=0", "--split=valid")[2]


KILLED = [
    *((("classify", *FEW), method) for method in ("l0", "magnitude")),
    *((("music", "--data=jsb", "--set=model.hidden_size=6"), method) for method in ("l0", "magnitude")),
    (("pixels", "--set=data.side=14", "--set=data.valid_examples=10", "--set=model.hidden_size=30"), "vd"),
    (("adding", "--set=data.steps=6", "--set=data.examples=60", "--set=model.hidden_size=6"), "l0"),
    (("copy", "--set=data.delay=2", "--set=data.examples=60", "--set=model.hidden_size=6"), "vd"),
]


@pytest.mark.parametrize(("task", "method"), KILLED)
def test_a_killed_run_goes_on_to_the_bit(karui, tmp_path, monkeypatch, task, method):
    name, *options = task
    if name == "classify":
        options += ["--data", karui.texts]
    options = [
        *options,
        "--sparse",
        method,
        "--target-density=0.2",
        "--set=train.checkpoint_every_s=0",
        *FAST,
    ]
    assert karui("train", name, "--out", tmp_path / "whole", *options)[0] == 0
    evaluate, count = Run._evaluate, 0

    def killed(self, epoch):
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        evaluate(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_evaluate", killed)
        assert karui("train", name, "--out", tmp_path / "killed", *options)[0] != 0
    assert karui("train", name, "--out", tmp_path / "killed", *options, "--resume")[0] == 0
    found, wanted = (tmp_path / run / "checkpoints/final.safetensors" for run in ("killed", "whole"))
    assert found.read_bytes() == wanted.read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["split"] == "valid"][-1]
    assert last["density"] == pytest.approx(0.2, rel=0.03)
    assert ("multiplier" in last) == (method != "magnitude")


def test_a_target_alone_prunes_by_vd_and_params_are_met(karui, tmp_path):
    run = tmp_path / "run"
    options = ("--data=jsb", "--set=model.hidden_size=6", "--target-params=800", *FAST)
    code, _, err = karui("train", "music", "--out", run, *options)
    assert code == 0, err
    assert json.loads((run / "config.json").read_text())["sparse"]["method"] == "vd"
    code, out, err = karui("eval", run, "--json")
    assert code == 0, err
    assert json.loads(out)["nll"] > 0


BAD = {
    "two": (("--target-size=5kB", "--target-density=0.1"), "sparse.target_density must be the only target"),
    "zero": (("--target-size=0",), "sparse.target_size: a size must be at least 1 byte"),
    "no size": (("--target-size=much",), "sparse.target_size: cannot read the size 'much'"),
    "no density": (("--target-density=1.5",), "sparse.target_density must be in (0, 1], got 1.5"),
    "too small": (("--target-size=30",), "a target of 30 bytes cannot be met: with everything pruned"),
    "too few": (("--target-params=3",), "a target of 3 params cannot be met"),
    "dense": (
        ("--sparse=none", "--target-size=5kB"),
        "sparse.method must be l0, vd or magnitude with a target",
    ),
    "magnitude": (("--sparse=magnitude",), "method=magnitude needs a target: --target-size"),
    "group": (("--sparse=l0", "--set=sparse.groups=rank"), "no layer of the model offers the group 'rank'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_one_line(karui, tmp_path, case):
    options, wanted = BAD[case]
    run = tmp_path / "run"
    code, _, err = karui("train", "classify", "--out", run, "--data", karui.texts, *options, *FEW, *FAST)
    assert code == 2
    assert wanted in err
    assert len(err.strip().splitlines()) == 1
    assert not any(Path(run).glob("*.safetensors"))


SEQUENCES = {
    "pixels": (
        "--set=data.side=14",
        "--set=data.valid_examples=10",
        "--recurrent=gru",
        "--set=model.hidden_size=24",
    ),
    "music": ("--data=jsb", "--recurrent=lstm", "--set=model.hidden_size=8"),
    "adding": ("--set=data.steps=6", "--set=data.examples=60", "--set=model.hidden_size=32"),
    "copy": ("--set=data.delay=2", "--set=data.examples=60", "--set=model.hidden_size=24"),
}


@pytest.mark.parametrize("method", ["l0", "vd", "magnitude"])
@pytest.mark.parametrize("task", SEQUENCES)
def test_sequence_runs_have_the_size_asked_for(karui, tmp_path, task, method):
    run, file = tmp_path / "run", tmp_path / "model.safetensors"
    options = (*SEQUENCES[task], "--sparse", method, "--target-size=5kB", *FAST[1:], "--epochs=1")
    code, _, err = karui("train", task, "--out", run, *options)
    assert code == 0, err
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    code, out, err = karui("compact", run, "-o", file, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert 0.97 * 5000 <= file.stat().st_size == found["artifact_bytes"] == metrics["size"] <= 5000
    assert found["kept_params"] < found["dense_params"]
    score = {"pixels": "accuracy", "adding": "mse"}.get(task, "nll")
    assert found[f"valid_{score}"] == pytest.approx(metrics[f"valid_{score}"], rel=1e-4)


@pytest.mark.parametrize(("target", "bound"), [("params=700", "kept_params"), ("flops=1000", "")])
def test_sequence_runs_come_to_numbers_and_flops(karui, tmp_path, target, bound):
    run, file = tmp_path / "run", tmp_path / "model.safetensors"
    options = (*SEQUENCES["music"], "--sparse=l0", f"--target-{target}", *FAST[1:], "--epochs=2")
    code, _, err = karui("train", "music", "--out", run, *options)
    assert code == 0, err
    code, out, err = karui("compact", run, "-o", file, "--json")
    assert code == 0, err
    if bound:
        assert 0.97 * 700 <= json.loads(out)[bound] <= 700
    else:
        metrics = json.loads((run / "results.json").read_text())["metrics"]
        assert 970 <= metrics["flops"] <= 1000
        assert metrics["expected_flops"] > 0


def test_what_such_a_file_cannot_be_is_one_line(karui, tmp_path):
    run, file = tmp_path / "run", tmp_path / "model.safetensors"
    options = (*SEQUENCES["music"], "--target-size=5kB", *FAST[1:], "--epochs=1")
    code, _, err = karui("train", "music", "--out", run, *options[:-2], "--target-size=900", *FAST[1:])
    assert code == 2
    assert "a target of 900 bytes cannot be met: with everything pruned" in err
    assert karui("train", "music", "--out", tmp_path / "other", *options)[0] == 0
    run = tmp_path / "other"
    for arguments, wanted in (
        (("--max-bytes=100",), "more than 100; nothing was written"),
        (("--values=int8",), "is stored in fp32"),
    ):
        code, _, err = karui("compact", run, "-o", file, *arguments)
        assert (code, wanted in err, len(err.strip().splitlines())) == (2, True, 1)
        assert not file.exists()


def test_prices_a_layer_and_a_falling_temperature(karui, tmp_path):
    prices = '--set=sparse.l0_lambdas={"recurrent": 0.5, "output": 0}'
    options = ("--data=jsb", "--set=model.hidden_size=6", "--sparse=l0", "--set=sparse.beta_end=0.3", prices)
    code, _, err = karui("train", "music", "--out", tmp_path / "run", *options, *FAST[1:], "--epochs=1")
    assert code == 0, err
    assert json.loads((tmp_path / "run/config.json").read_text())["sparse"]["beta_end"] == 0.3
    options = (*options[:-1], '--set=sparse.l0_lambdas={"recurrent": 0.5}')
    code, _, err = karui("train", "music", "--out", tmp_path / "other", *options, *FAST[1:], "--epochs=1")
    assert (code, "but not the sparse layer 'output'" in err) == (2, True)


def test_samples_of_a_file_are_refused(karui, tmp_path):
    code, _, err = karui("eval", tmp_path / "model.karui", "--samples=3")
    assert code == 2
    assert "--samples draws weights of a run of karui train classify" in err
