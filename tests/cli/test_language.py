"""`karui train lm`, `karui eval` and `karui sample` of a run, from a file on disk to the last line."""

import json
import math
import shutil

import numpy as np
import pytest

from karui.cli.language_runs import open_language_run
from karui.cli.main import main
from karui.recipes.base import with_overrides

SMALL = [
    "model.hidden_size=8",
    "model.num_layers=1",
    "data.batch_size=4",
    "data.bptt_len=8",
    "train.threads=1",
]


def text(count: int = 400, seed: int = 0) -> str:
    random = np.random.default_rng(seed)
    names, verbs = ["the cat", "a dog", "Bob"], ["sees", "hears", "likes"]
    return "".join(
        f"{random.choice(names)} {random.choice(verbs)} {random.choice(names)} .\n" for _ in range(count)
    )


def train(out, data, *options):
    settings = [word for each in SMALL for word in ("--set", each)]
    return main(["train", "lm", "--data", str(data), "--out", str(out), "--quiet", *settings, *options])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text.txt").write_text(text(), encoding="utf-8")
    assert train(folder / "run", folder / "text.txt", "--epochs", "2", "--output", "sampled") == 0
    return folder / "run"


def answer(capsys, *args):
    code = main([*map(str, args), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def test_results_name_the_figures(run):
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    metrics = results["metrics"]
    assert results["task"] == "lm"
    assert {"valid_perplexity", "test_perplexity", "valid_nll", "test_nll", "parameters"} <= set(metrics)
    assert metrics["test_perplexity"] == pytest.approx(math.exp(metrics["test_nll"]))
    assert metrics["test_perplexity"] < 12  # of 11 words
    assert (run / "vocabulary.json").exists()


def test_eval_repeats_the_figures_of_the_run(run, capsys):
    metrics = json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"]
    found = answer(capsys, "eval", run)
    assert found["perplexity"] == pytest.approx(metrics["test_perplexity"], rel=1e-6)
    assert found["tokens"] == pytest.approx(-found["log10_prob"] * math.log(10) / metrics["test_nll"])
    assert (found["oovs"], found["oov_rate"], found["split"]) == (0, 0.0, "test")
    valid = answer(capsys, "eval", run, "--split", "valid")
    assert valid["perplexity"] == pytest.approx(metrics["valid_perplexity"], rel=1e-6)


def test_eval_on_another_file_counts_words_outside_the_vocabulary(run, capsys, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the zebra sees Bob .\nBob hears\n", encoding="utf-8")
    found = answer(capsys, "eval", run, "--data", other)
    assert (found["tokens"], found["oovs"], found["lines"], found["split"]) == (9, 1, 2, "whole file")
    assert found["oov_rate"] == pytest.approx(1 / 9)
    assert found["perplexity_without_oovs"] < found["perplexity"]
    assert main(["eval", str(run), "--data", str(other)]) == 0
    page = capsys.readouterr().out
    for line in (
        "total log10 probability",
        "out of vocabulary           1 (11.111%)",
        "perplexity without them",
    ):
        assert line in page


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "holds no text"), (b"\xff\n", "line 1: not UTF-8"), (None, "no such file")]
)
def test_eval_refuses_bad_text_in_one_line(run, capsys, tmp_path, content, message):
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["eval", str(run), "--data", str(path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_options_of_classifiers_are_refused(run, capsys):
    assert main(["eval", str(run), "--fold", "1"]) == 2
    assert "for classifiers" in capsys.readouterr().err


def test_characters(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(text(300), encoding="utf-8")
    assert train(tmp_path / "run", tmp_path / "text.txt", "--epochs", "1", "--level", "char") == 0
    metrics = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["metrics"]
    found = answer(capsys, "eval", tmp_path / "run")
    assert found["bpc"] == pytest.approx(metrics["test_bpc"], rel=1e-6)
    assert metrics["test_bpc"] == pytest.approx(metrics["test_nll"] / math.log(2))
    assert {"valid_bpc", "test_bpc_reset_100"} <= set(metrics)


def test_sample_continues_a_prompt(run, capsys):
    options = ["--tokens", "8", "--temperature", "0"]
    first = answer(capsys, "sample", run, "--prompt", "the cat", *options)
    assert answer(capsys, "sample", run, "--prompt", "the cat", *options)["text"] == first["text"]
    assert len(first["text"].split()) <= 8
    assert main(["sample", str(run), "--prompt", "the cat", *options]) == 0
    assert capsys.readouterr().out.startswith("the cat ")
    drawn = {answer(capsys, "sample", run, "--tokens", "12", "--seed", seed)["text"] for seed in range(3)}
    assert len(drawn) == 3


def test_sample_refuses(run, capsys, tmp_path):
    assert main(["sample", str(run), "--top-k", "99999"]) == 2
    assert "top_k must be from 0 to" in capsys.readouterr().err
    assert main(["sample", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "none.karui")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "ptbb"], "did you mean 'ptb'?"),
        (["--set", "model.output=adaptive"], "tied must be false for adaptive"),
        (["--output", "softmax"], "model.output must be one of full"),
        (["--level", "byte"], "data.level must be one of word, char"),
        (["--directions", "2"], "model.directions is a setting of classify"),
        (["--set", "data.batch_size=100000"], "lower it"),
        (["--set", 'model.output_options={"nonsense": 1}'], "no option 'nonsense'"),
    ],
)
def test_train_refuses_in_one_line(run, capsys, tmp_path, options, message):
    data = [] if options[0] == "--data" else ["--data", str(run.parent / "text.txt")]
    out = ["--out", str(tmp_path / "run"), "--set", "model.hidden_size=8"]
    assert main(["train", "lm", *out, *data, *options]) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count("\n") == 1


def test_options_of_language_models_are_refused_elsewhere(capsys, tmp_path):
    assert main(["train", "classify", "--out", str(tmp_path / "run"), "--level", "char"]) == 2
    assert "data.level is a setting of lm" in capsys.readouterr().err


def test_every_recipe_is_read_by_the_task():
    from karui import recipes
    from karui.recipes.language import RECIPES, LanguageRecipe

    for name in RECIPES:
        recipe = recipes.get(name)
        assert isinstance(recipe, LanguageRecipe)
        assert with_overrides(recipe, ["data.limit=5"]).data.limit == 5


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("one.txt", b"a single line of text", ["one.txt", "1 line,", "train.txt"]),
        ("rows.csv", b"text,label\na,b\n" * 9, ["rows.csv", "table", "one a line"]),
        ("model.txt", b"\x9d\x6b\x72\x75\x01", ["model.txt", ".karui file", "karui eval"]),
    ],
)
def test_what_is_no_running_text_is_named_with_its_remedy(tmp_path, capsys, name, content, parts):
    (tmp_path / name).write_bytes(content)
    assert train(tmp_path / "run", tmp_path / name) == 2
    complaint = capsys.readouterr().err
    assert all(part in complaint for part in parts), complaint
    assert complaint.count("\n") == 1


def test_a_column_is_refused_where_the_text_is_a_file(run, capsys):
    data = run.parent / "text.txt"
    assert main(["eval", str(run), "--data", str(data), "--text", "body"]) == 2
    assert "leave --text out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "options", "expected"),
    [
        ("full", '{"foo": 1}', "model.output_options: full has no option 'foo'; it has chunk_size"),
        ("sampled", '{"num_splits": 1.5}', "output_options.num_splits must be a whole number, got 1.5"),
        ("adaptive", '{"cutoffs": 5}', "output_options.cutoffs must be a list of whole numbers, got 5"),
        ("adaptive", '{"cutoffs": [5, 5]}', "output_options.cutoffs must be 'auto' or ascending"),
        ("sampled", '{"unique": 1}', "output_options.unique must be true or false, got 1"),
        ("nce", '{"log_z": "learnt"}', "output_options.log_z must be one of ('fixed', 'learned')"),
    ],
)
def test_options_of_output_layers_are_refused_in_one_line(run, tmp_path, capsys, output, options, expected):
    tied = "true" if output != "adaptive" else "false"
    settings = ["--set", f"model.tied={tied}", "--set", f"model.output_options={options}"]
    assert train(tmp_path / "new", run.parent / "text.txt", "--output", output, *settings) == 2
    complaint = capsys.readouterr().err
    assert expected in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("nce", '{"log_z": "learned"}'),
        ("sampled", '{"num_splits": 2}'),
        ("sampled", '{"unique": true}'),
        ("class", '{"n_clusters": 4}'),
        ("adaptive", '{"cutoffs": [4, 8], "min_dim": 2, "div_value": 2}'),
        ("full", '{"chunk_size": 4}'),
    ],
)
def test_options_of_output_layers_reach_them_and_come_back(run, tmp_path, output, options):
    tied = "true" if output not in ("adaptive", "class") else "false"
    settings = ["--set", f"model.tied={tied}", "--set", f"model.output_options={options}"]
    words = ["--output", output, "--epochs", "1", "--set", "data.limit=200", "--set", "model.num_samples=4"]
    assert train(tmp_path / "new", run.parent / "text.txt", *words, *settings) == 0
    trained, _ = open_language_run(tmp_path / "new")
    for name, value in json.loads(options).items():
        name = "log_z_mode" if name == "log_z" else name  # `log_z` is a method of every output layer
        assert getattr(trained.model.output, name) == value


@pytest.mark.parametrize(
    ("level", "monitor", "known"),
    [
        ("word", "bpc", "nll or perplexity"),
        ("char", "perplexity", "nll or bpc"),
        ("word", "accuracy", "nll or"),
    ],
)
def test_a_figure_that_the_task_lacks_cannot_be_watched(run, tmp_path, capsys, level, monitor, known):
    options = ["--level", level, "--set", f"train.monitor={monitor}"]
    assert train(tmp_path / "new", run.parent / "text.txt", *options) == 2
    assert f"train.monitor must be {known}" in capsys.readouterr().err
    assert not list((tmp_path / "new").iterdir())


def test_words_that_no_file_could_hold_are_unknown_ones(tmp_path, capsys):
    data = tmp_path / "text.txt"
    data.write_text(f"{'x' * 3000} {'é' * 512} {'é' * 513}\n" + text(40), encoding="utf-8")
    assert train(tmp_path / "run", data, "--epochs", "1") == 0
    words = open_language_run(tmp_path / "run")[0].words
    assert "é" * 512 in words
    assert "é" * 513 not in words
    assert "x" * 3000 not in words
    assert main(["compact", str(tmp_path / "run"), "-o", str(tmp_path / "m.karui")]) == 0


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("--top-k", "1000", "top_k must be from 0 to "), ("--temperature", "inf", "temperature must be finite")],
)
def test_what_cannot_be_drawn_is_named(run, capsys, option, value, expected):
    assert main(["sample", str(run), option, value]) == 2
    assert expected in capsys.readouterr().err


def test_a_vocabulary_that_does_not_fit_is_refused(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "vocabulary.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"eos": 999}), encoding="utf-8")
    assert main(["sample", str(tmp_path / "run")]) == 2
    assert "vocabulary.json: no readable vocabulary" in capsys.readouterr().err


def test_the_report_of_a_run_shows_its_figures(run, capsys):
    assert main(["report", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "test_perplexity" in printed
    assert "accuracy" not in printed
    assert main(["report", str(run), "--baselines"]) == 2
    assert "--baselines are for text classifiers" in capsys.readouterr().err
