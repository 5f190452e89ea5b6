"""`karui reproduce output-comparison`: tiny rows from end to end, what is made is kept, failures are named."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from karui.cli import compare_outputs, reproduce_outputs
from karui.cli.main import main
from karui.errors import UserError
from karui.recipes import output_comparison
from karui.report.comparison import parts_of
from karui.report.records import read_records
from karui.train import timed

LINES = ["the cat sat on the mat", "a dog ate the cat food", "the dog sat", "a mat was on the dog"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Rows of milliseconds on a text of its own, in place of the real ones."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES * 60) + "\n", encoding="utf-8")
    ptb = output_comparison.PTB
    comparison = replace(
        ptb,
        name="tiny",
        data=replace(ptb.data, name=str(text), batch_size=4, bptt_len=5, valid_fraction=0.2),
        model=replace(ptb.model, hidden_size=8, embedding_dim=8, num_samples=4),
        seconds=0.2,
        trial_seconds=0.02,
        trial_tokens=40,
        extensions=0,
        tokens=400,
        marks=(0.05,),
        factors=(0.5, 1.0),
        valid_tokens=60,
        test_tokens=50,
        queries=3,
    )
    layers = output_comparison.LayerComparison(
        name="layers", classes=40, hidden=8, positions=6, num_samples=5, repeats=2, seconds=0.0
    )
    rows = [
        *(
            output_comparison.ComparisonRow(comparison=comparison, method=m)
            for m in output_comparison.METHODS
        ),
        output_comparison.ComparisonRow(comparison=layers, method="torch-softmax"),
    ]
    monkeypatch.setattr(output_comparison, "ROWS", {row.name: row for row in rows})
    monkeypatch.setattr(output_comparison, "DEFAULT_ROWS", tuple(row.name for row in rows))
    return tmp_path / "results"


def make(results, *arguments):
    return main(["reproduce", "output-comparison", *arguments, "--results", str(results)])


@pytest.mark.parametrize("method", output_comparison.METHODS)
def test_a_method_on_a_text(tiny, method, capsys):
    assert make(tiny, f"tiny-{method}", "--json") == 0
    (made,) = json.loads(capsys.readouterr().out)
    (record,) = read_records(tiny)
    assert made["metrics"] == record["metrics"]
    assert made["record"] == str(tiny / "output_comparison" / f"tiny-{method}.json")
    parts_of([record])  # complete
    metrics = record["metrics"]
    assert metrics["classes"] == 12, "ten words, </s> and <unk>"
    assert 1 < metrics["perplexity_at_time"] < 12
    assert 1 < metrics["perplexity_at_tokens"] < 16
    assert metrics["tokens_at_time"] > 0
    assert metrics["query_ms"] > 0
    assert [trial["factor"] for trial in record["trials"]] == [0.5, 1.0]
    assert record["curve"][-1]["cpu_seconds"] >= 0.2
    assert record["curve"][-1]["examples"] == metrics["tokens_at_time"]
    assert record["curve_at_tokens"][-1]["examples"] >= 400
    assert record["reasons"] == {}
    assert record["factor"] == min(record["trials"], key=lambda trial: trial["valid"])["factor"]
    assert record["method"] == method
    assert record["settings"]["seconds"] == 0.2
    assert ("perplexity_as_softmax" in metrics) == (method == "negative")


def test_what_is_made_is_kept(tiny, capsys):
    assert make(tiny, "tiny-sampled") == 0
    said = capsys.readouterr()
    assert "tiny-sampled: test perplexity" in said.out
    assert "learning rates x 0.5" in said.err
    path = tiny / "output_comparison" / "tiny-sampled.json"
    before = path.stat().st_mtime_ns
    assert make(tiny, "tiny-sampled") == 0
    assert path.stat().st_mtime_ns == before
    assert "learning rates" not in capsys.readouterr().err


def test_a_layer_alone(tiny, capsys):
    assert make(tiny, "layers-torch-softmax") == 0
    assert "ms a step" in capsys.readouterr().out
    (record,) = read_records(tiny)
    assert "curve" not in record
    assert record["data"]["name"] == "zipf"
    assert record["metrics"]["optimizer_ms"] > 0


def test_the_best_trial_is_taken_and_a_diverged_one_is_not(tiny, monkeypatch):
    true = timed.train_timed
    seen, opened = [], []

    def fake(task, train, budget, **arguments):
        seen.append(train.lr / output_comparison.PTB.train.lr)
        result = true(task, train, budget, **arguments)
        opened.append(budget.opens_test)
        if not budget.opens_test and len(seen) == 1:
            result.end, result.diverged = None, {"cpu_seconds": 1.0, "examples": 5}
        return result

    monkeypatch.setattr(timed, "train_timed", fake)
    compare_outputs.make_row(output_comparison.ROWS["tiny-full"], tiny, lambda _: None)
    assert seen == pytest.approx([0.5, 1.0, 1.0, 1.0]), "two trials, two runs"
    assert opened == [False, False, True, True], "trials never open the test part"
    (record,) = read_records(tiny)
    assert record["trials"][0]["valid"] is None
    assert record["factor"] == 1.0


@pytest.mark.parametrize(
    ("scores", "best", "tried"),
    [
        ({0.5: 3.0, 1.0: 2.0, 2.0: 4.0}, 1.0, [0.5, 1.0, 2.0]),
        ({0.5: 4.0, 1.0: 3.0, 2.0: 2.0, 4.0: 5.0}, 2.0, [0.5, 1.0, 2.0, 4.0]),
        ({0.5: 4.0, 1.0: 3.0, 2.0: 2.0, 4.0: 1.0, 8.0: 0.5}, 8.0, [0.5, 1.0, 2.0, 4.0, 8.0]),
        ({0.5: 1.0, 1.0: 3.0, 2.0: 4.0, 0.25: 2.0}, 0.5, [0.25, 0.5, 1.0, 2.0]),
        ({0.5: None, 1.0: None, 2.0: None, 0.25: None, 0.125: 9.0}, 0.125, [0.125, 0.25, 0.5, 1.0, 2.0]),
        ({0.5: 1.0, 1.0: 3.0, 2.0: None, 0.25: None}, 0.5, [0.25, 0.5, 1.0, 2.0]),
    ],
)
def test_factors_go_on_while_the_best_is_at_an_edge(scores, best, tried):
    chosen, trials = compare_outputs.choose_factor((0.5, 1.0, 2.0), 2, scores.__getitem__)
    assert chosen == best
    assert trials == [{"factor": factor, "valid": scores[factor]} for factor in tried]
    assert compare_outputs.choose_factor((0.5, 1.0, 2.0), 0, scores.__getitem__)[0] in (0.5, 1.0, 2.0)
    assert compare_outputs.choose_factor((1.0,), 2, lambda _: None) == (1.0, [{"factor": 1.0, "valid": None}])


def test_a_run_that_would_take_too_long_is_no_score_and_says_why(tiny, monkeypatch):
    row = output_comparison.ROWS["tiny-sampled"]
    comparison = replace(row.comparison, tokens=10**9, most_seconds=1.0)
    row = output_comparison.ComparisonRow(comparison=comparison, method="sampled")
    metrics = compare_outputs.make_row(row, tiny, lambda _: None)
    (record,) = read_records(tiny)
    parts_of([record])  # complete
    assert metrics["perplexity_at_tokens"] is metrics["cpu_seconds_at_tokens"] is None
    assert metrics["perplexity_at_time"] > 1
    assert list(record["reasons"]) == ["perplexity_at_tokens"]
    assert record["reasons"]["perplexity_at_tokens"].startswith("would take ")
    assert record["reasons"]["perplexity_at_tokens"].endswith(" minutes")


def test_reasons():
    at = {"cpu_seconds": 12.4, "examples": 3000}
    assert compare_outputs.why_none(timed.TimedResult(diverged=at)) == (
        "the loss was no longer finite after 12 s and 3,000 tokens"
    )
    assert compare_outputs.why_none(timed.TimedResult(too_long=1500.0)) == "would take 25 minutes"
    assert "too large" in compare_outputs.why_none(timed.TimedResult(end={"test": None}))
    assert compare_outputs.why_none(timed.TimedResult(end={"test": 3.0})) is None


def test_a_record_of_other_settings_is_neither_taken_nor_written_over(tiny, capsys):
    assert make(tiny, "tiny-huffman") == 0
    path = tiny / "output_comparison" / "tiny-huffman.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["settings"]["seconds"] = 9.0
    path.write_text(json.dumps(record), encoding="utf-8")
    assert make(tiny, "tiny-huffman") == 2
    assert "tiny-huffman.json has other settings; remove it" in capsys.readouterr().err
    assert json.loads(path.read_text(encoding="utf-8")) == record


def write_record_of(name, results, *, failing):
    """A process that stands for a row: it writes a file where the record belongs, or fails."""
    settings = output_comparison.settings_of(output_comparison.ROWS[name])
    content = json.dumps({"metrics": {}, "settings": settings})
    folder = results / "output_comparison"
    code = (
        f"import pathlib, sys; p = pathlib.Path({str(folder)!r}); p.mkdir(parents=True, exist_ok=True)\n"
        f"if {name in failing}: sys.exit(2)\n"
        f"(p / {f'{name}.json'!r}).write_text({content!r})"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def test_several_rows_are_made_in_processes_and_failures_are_named(tiny, monkeypatch):
    started = []

    def start(name, results, *, quiet):
        started.append(name)
        return write_record_of(name, results, failing={"tiny-nce"} if len(started) < 20 else set())

    monkeypatch.setattr(reproduce_outputs, "_start", start)
    rows = dict(output_comparison.ROWS)
    with pytest.raises(UserError, match=r"1 of 12 rows failed \(tiny-nce\); run it again for those"):
        reproduce_outputs.make_rows(rows, results=tiny, jobs=2, quiet=True)
    assert started[:2] == ["tiny-full", "tiny-self-normalized"], "the slow ones first"
    assert started[-1] == "layers-torch-softmax", "those that use all threads come last, one by one"
    started.extend([""] * 20)
    made = reproduce_outputs.make_rows(rows, results=tiny, jobs=2, quiet=True)
    assert started[-1] == "tiny-nce", "only what is missing is made"
    assert [each["row"] for each in made] == list(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ptb-softmax"], "no row 'ptb-softmax' in output-comparison; the rows are ptb-full"),
        (["ptb-full", "--seeds", "1"], "it takes no seeds, epochs or accelerator"),
        (["ptb-full", "--accelerator", "cuda"], "it takes no seeds, epochs or accelerator"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys):
    assert make(tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_layer_that_does_not_fit_is_refused(tiny, monkeypatch, capsys):
    from karui.tasks import output_process

    monkeypatch.setattr(output_process, "megabytes_free", lambda: 0.0)
    assert make(tiny, "layers-torch-softmax") == 2
    assert "0.0 GB are free; close other programs" in capsys.readouterr().err
