"""The page of the output comparison: winners, ratios and verdicts follow from the records, and only from them."""

import copy

import pytest

from karui.cli.main import main
from karui.errors import UserError
from karui.output.table import SPARSE_FROM
from karui.recipes.output_comparison import ENWIKI, PTB
from karui.report.comparison import Part, layer_table, parts_of, text_table
from karui.report.comparison_claims import CLAIMS, verdict_of, winners
from karui.report.comparison_page import PAGE, TRAINED, page, perplexity_against_seconds, update_pages
from karui.report.records import write_record
from karui.tasks.language_model import SPARSE_CLASSES

SETTINGS = {
    "name": "ptb",
    "data": {"batch_size": 32, "bptt_len": 35},
    "model": {"num_layers": 2, "hidden_size": 200, "recurrent": "sru", "num_samples": 1024},
    "train": {"optimizer": "adam", "lr": 3e-3, "sparse_lr": 0.15},
    "seconds": 100.0,
    "tokens": 5000,
    "factors": [0.5, 1.0],
    "extensions": 2,
    "trial_seconds": 12.0,
    "trial_tokens": 700,
    "most_seconds": 1200.0,
    "valid_tokens": 0,
    "test_tokens": 0,
}
LAYERS = {"name": "lm1b", "classes": 1000, "hidden": 256, "positions": 1024, "num_samples": 64}
SURROUNDINGS = {
    "seed": 0,
    "commit": "c0ffee",
    "hardware": "a processor, 2 cores",
    "torch": "2.13.0",
    "date": "2026-01-01",
}


def text_record(method, at_time, at_tokens, *, name="ptb", step_ms=50.0, **metrics):
    """A record of a method on a text."""
    curve = [
        {
            "cpu_seconds": 10.0 * k,
            "seconds": 11.0 * k,
            "steps": k,
            "examples": 1000 * k,
            "valid": at_time * (3 - k),
        }
        for k in (1, 2)
    ]
    found = {
        "classes": 10_000, "parameters": 4_000_000, "step_ms": step_ms, "peak_mb": 120.0, "query_ms": 1.5,
        "perplexity_at_time": at_time, "tokens_at_time": 9000, "perplexity_at_tokens": at_tokens,
        "cpu_seconds_at_tokens": 40.0, "log_z_mean": 3.0, "log_z_sd": 0.5,
    }  # fmt: skip
    trials = [
        {"factor": factor, "valid": valid} for factor, valid in ((0.25, 250.0), (0.5, 200.0), (1.0, 300.0))
    ]
    return {
        "task": "output-comparison", "data": {"name": name, "subset": False}, "recipe": f"output-comparison-{name}",
        **SURROUNDINGS, "metrics": {**found, **metrics}, "method": method, "settings": {**SETTINGS, "name": name},
        "curve": curve, "curve_at_tokens": curve, "trials": trials, "factor": 0.5, "reasons": {},
    }  # fmt: skip


def layer_record(method, step_ms, peak_mb=3.0):
    """A record of a layer alone."""
    metrics = {"classes": 1000, "parameters": 1, "step_ms": step_ms, "optimizer_ms": 1.0, "peak_mb": peak_mb}
    return {
        "task": "output-comparison", "data": {"name": "zipf", "subset": False}, "recipe": "output-comparison-lm1b",
        **SURROUNDINGS, "metrics": {**metrics, "query_ms": 0.05}, "method": method, "settings": LAYERS, "threads": 2,
    }  # fmt: skip


def bench_record(**steps):
    """A record of `karui bench output`: method -> steps at 100 and 1000 classes."""
    rows = [
        {"method": method, "classes": classes, "step_ms": step}
        for method, pair in steps.items()
        for classes, step in zip((100, 1000), pair, strict=True)
    ]
    return {
        "task": "benchmark", "data": {"name": "synthetic", "subset": False}, "recipe": "bench-output-cpu",
        **SURROUNDINGS, "metrics": {"rows": rows},
    }  # fmt: skip


RECORDS = [
    text_record("full", 180.0, 150.0, step_ms=200.0),
    text_record("sampled", 120.0, 153.0, step_ms=49.0),
    text_record("importance-target", 121.0, 152.0),
    text_record("nce", 130.0, 170.0),
    text_record("negative", 140.0, 160.0, perplexity_as_softmax=300.0, perplexity_corrected=200.0),
    text_record("huffman", 160.0, 190.0, query_ms=0.1),
    layer_record("full", 900.0, peak_mb=4.5),
    layer_record("sampled", 30.0, peak_mb=1.2),
    bench_record(full=(10.0, 100.0), sampled=(30.0, 31.0), huffman=(20.0, 40.0)),
]


def said(records, beginning):
    """The item of the page whose claim begins so."""
    lines = [line for line in page(records).splitlines() if line.startswith(f"- *{beginning}")]
    assert len(lines) == 1
    return lines[0]


def changed(method, **metrics):
    """The records with other figures of a method on the text."""
    records = copy.deepcopy(RECORDS)
    for record in records:
        if record.get("method") == method and "curve" in record:
            record["metrics"].update(metrics)
    return records


def test_winners_are_named_with_their_ratios():
    part = parts_of(RECORDS)[0]
    first, second, fastest, *_ = winners(part)
    assert first == (
        "**ptb**, 10,000 words: after 100 s of training sampled softmax has the lowest test perplexity, 120.0, and "
        "importance sampling + target is within 3 %; full softmax stands at 180.0, 1.50 times as much."
    )
    assert second.startswith(
        "After 5,000 tokens full softmax has the lowest test perplexity, 150.0, and importance"
    )
    assert fastest.startswith(
        "The fastest step is that of sampled softmax, 49 ms; the other end is full softmax with 4.08"
    )


def test_other_records_have_other_winners():
    part = parts_of(changed("huffman", perplexity_at_time=90.0))[0]
    assert winners(part)[0].endswith(
        "after 100 s of training Huffman tree has the lowest test perplexity, 90.0, before sampled softmax with 120.0; "
        "full softmax stands at 180.0, 2.00 times as much; the best layer with one table is sampled softmax."
    )


@pytest.mark.parametrize(
    ("beginning", "verdict", "figure"),
    [
        ("Importance sampling, NCE", "Holds.", "a step at 1,000 words over one at 100: sampled softmax 1.03"),
        ("A Huffman tree", "Does not hold.", "Huffman tree 2.00"),
        ("Approximations pay", "Holds.", "5 of 5 methods are below full softmax on ptb in equal time"),
        ("Sampled softmax with hits kept, importance", "Holds in part.", "sampled softmax 1.02, NCE 1.13"),
        (
            "Negative sampling does not",
            "Holds.",
            "softmax(s) has 1.50 times the perplexity of softmax(s + log q)",
        ),
        ("Trees are", "Holds.", "ptb in equal time, perplexity over that of NCE: Huffman tree 1.23"),
        ("NCE is behind", "Holds.", "in equal time it is number 3 of 6 on ptb"),
        ("Self-normalised softmax and NCE", "Does not hold.", "NCE 3.04, full softmax 3.04"),
        ("Rows with a rule", "Holds.", "needs 3.75 to 3.75 times the memory"),
        ("Factorised layers", "Holds.", "ptb, full softmax's time over theirs: Huffman tree 15"),
    ],
)
def test_verdicts_follow_from_the_figures(beginning, verdict, figure):
    line = said(RECORDS, beginning)
    assert f"**{verdict}**" in line
    assert figure in line


@pytest.mark.parametrize(
    ("method", "figures", "beginning", "verdict"),
    [
        ("nce", {"perplexity_at_tokens": 151.0}, "Sampled softmax with hits kept, importance", "Holds."),
        ("nce", {"perplexity_at_tokens": 151.0}, "NCE is behind", "Does not hold."),
        ("negative", {"perplexity_as_softmax": 201.0}, "Negative sampling does not", "Does not hold."),
        (
            "huffman",
            {"perplexity_at_tokens": 150.0, "perplexity_at_time": 100.0},
            "Trees are",
            "Does not hold.",
        ),
        (
            "huffman",
            {"perplexity_at_tokens": 350.0, "perplexity_at_time": 250.0},
            "Trees are",
            "Does not hold.",
        ),
        ("nce", {"log_z_mean": 0.1}, "Self-normalised softmax and NCE", "Holds."),
        ("full", {"perplexity_at_time": 100.0}, "Approximations pay", "Does not hold."),
        ("huffman", {"query_ms": 2.0}, "Factorised layers", "Does not hold."),
    ],
)
def test_other_figures_have_other_verdicts(method, figures, beginning, verdict):
    assert f"**{verdict}**" in said(changed(method, **figures), beginning)


def test_a_claim_nobody_measured_is_left_out():
    text = page(RECORDS)
    assert "BlackOut has a small bias" not in text
    assert "Adaptive softmax has" not in text
    everything = page([*RECORDS, text_record("blackout", 130.0, 180.0)])
    assert "*BlackOut has a small bias.*" in everything
    assert (
        "**Does not hold.** Here: ptb after equal tokens, perplexity over that of full softmax: BlackOut 1.20"
        in everything
    )


def test_verdicts():
    assert [verdict_of(holds) for holds in ([], [True], [True, False], [False])] == [
        "Measured.", "Holds.", "Holds in part.", "Does not hold.",
    ]  # fmt: skip
    assert len({claim.said for claim in CLAIMS}) == len(CLAIMS)


def test_tables_hold_the_figures_and_leave_out_what_is_missing():
    records = changed("nce", perplexity_at_time=None, tokens_at_time=None, perplexity_at_tokens=None)
    records[3]["reasons"] = {"perplexity_at_tokens": "would take 22 minutes"}
    records[1]["factor"] = 1.0
    part = parts_of(records)[0]
    table = text_table(part)
    assert table.rows[0] == [
        "sampled softmax",
        "**120.0**",
        "9,000",
        "153.0",
        "40",
        "49.0",
        "120",
        "1.50",
        "1",
    ]
    assert table.rows[-1][:4] == ["NCE", "–", "–", "–"]
    assert table.notes == [
        "sampled softmax: the best rate is the largest of those tried.",
        "NCE: no score at equal tokens, would take 22 minutes.",
    ]
    alone = layer_table(parts_of(records)[1])
    assert alone.rows == [
        ["sampled softmax", "30.0", "1.0", "30×", "1", "1.17", "0.050"],
        ["full softmax", "900", "1.0", "1.0×", "4", "4.39", "0.050"],
    ]
    assert "Not recorded: ptb: importance sampling, BlackOut" in page(records)


def test_records_of_other_settings_are_named():
    records = copy.deepcopy(RECORDS)
    for number, part, more in ((1, "train", {"lr": 0.5}), (2, "model", {"newer": 3})):
        settings = records[number]["settings"]
        records[number]["settings"] = settings | {part: settings[part] | more}
    assert "Made with other settings" not in page(RECORDS)
    assert "Made with other settings, so not comparable: ptb: sampled softmax.\n" in page(records)


def test_what_the_page_says_by_heart_is_so():
    assert f"from {SPARSE_FROM:,} words up" in TRAINED
    assert SPARSE_CLASSES == SPARSE_FROM
    assert "Perplexities within 3 % are called equal." in page(RECORDS)
    for name in (
        "model",
        "train",
        "factors",
        "extensions",
        "trial_seconds",
        "most_seconds",
    ):  # told once, for both texts
        assert getattr(PTB, name) == getattr(ENWIKI, name)
    assert (PTB.data.batch_size, PTB.data.bptt_len) == (ENWIKI.data.batch_size, ENWIKI.data.bptt_len)


def test_the_rules_are_those_of_the_settings():
    text = page([*RECORDS, text_record("full", 1.0, 1.0, name="other", classes=20_000)])
    assert "0.5, 1, and one beyond, up to 2 times" in text
    assert "A trial takes 12 s, or longer until it has read 700 tokens of ptb and 700 tokens of other" in text
    assert "would take more than 20 minutes is not made" in text
    assert "a point inside a line is not where a shorter run would have ended." in text


def test_a_loss_without_a_bound_is_told_and_does_not_press_the_others_flat():
    assert "no lower bound" not in page([*RECORDS, text_record("importance", 125.0, 150.0)])
    astray = text_record("importance", 5000.0, 150.0)
    text = page([*RECORDS, astray])
    assert (
        text.count("- importance sampling: its estimate of Z holds the target only where it was drawn") == 1
    )
    assert "Beyond the upper edge: importance sampling (up to 10,000.0)." in text
    assert perplexity_against_seconds(parts_of([*RECORDS, astray])[0]).startswith(b"\x89PNG")
    assert "| 3e12 |" in page([*RECORDS, text_record("importance", 3.1e12, 150.0)])


def test_without_records_there_is_no_page(tmp_path):
    assert page([]) is None
    assert update_pages(tmp_path, tmp_path) == []
    with pytest.raises(UserError, match="is no folder"):
        update_pages(tmp_path / "missing", tmp_path)


def test_incomplete_records_are_named():
    record = text_record("full", 180.0, 150.0)
    del record["metrics"]["query_ms"]
    with pytest.raises(
        UserError, match="the record of full in output-comparison-ptb: metrics.query_ms must be a number"
    ):
        parts_of([record])
    record = text_record("full", 180.0, 150.0)
    del record["curve"][0]["valid"]
    with pytest.raises(UserError, match="a point of the curve lacks 'valid'"):
        parts_of([record])
    record = text_record("full", 180.0, 150.0, perplexity_at_time=None)  # diverged: a record too
    assert isinstance(parts_of([record])[0], Part)


def store(folder, records):
    """Write records as `karui reproduce` does."""
    for record in records:
        keys = ("method", "settings", "curve", "trials", "factor", "reasons", "threads")
        write_record(
            folder, task=record["task"], data=record["data"]["name"], subset=False, recipe=record["recipe"], seed=0,
            metrics=record["metrics"], details={key: record[key] for key in keys if key in record},
            name=f"{record['recipe']}-{record.get('method')}",
        )  # fmt: skip


def test_page_and_pictures_are_kept_up_to_date(tmp_path, capsys):
    results, docs = tmp_path / "results", tmp_path / "docs"
    docs.mkdir()
    store(results, RECORDS)
    arguments = ["report", "--results", str(results), "--pages", str(docs)]
    assert main([*arguments, "--check"]) == 2
    assert f"{PAGE}, {docs}" in capsys.readouterr().err
    assert list(docs.iterdir()) == [], "a check writes nothing"
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    picture = docs / "output-comparison-ptb.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"]({picture.name})" in (docs / PAGE).read_text(encoding="utf-8")
    store(results, changed("huffman", peak_mb=999.0))
    assert update_pages(docs, results, check=True) == [PAGE], "the picture does not show memory"
    records = copy.deepcopy(RECORDS)
    records[1]["curve"][0]["valid"] = 77.0
    store(results, records)
    assert update_pages(docs, results) == [picture.name]
    assert update_pages(docs, results, check=True) == []


def test_pages_need_records(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--pages", str(tmp_path)]) == 2
    assert "--pages needs --results" in capsys.readouterr().err
