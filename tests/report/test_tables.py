import pytest

from karui.report.schema import load_run
from karui.report.tables import Column, Rival, Table, results_table, rivals, run_table, verdict
from tests.support.run_folder import LINEAR, make_run, point


def record(data="imdb", recipe="small", seed=1, subset=False, points=(), **metrics):
    return {
        "task": "classification",
        "data": {"name": data, "subset": subset},
        "recipe": recipe,
        "seed": seed,
        "metrics": metrics,
        "points": list(points),
    }


def test_the_same_table_three_ways():
    table = Table(
        [Column("name"), Column("size", number=True)], [["a|b", "12"], ["<i>", "[red]3"]], ["a note"]
    )
    assert table.to_markdown().splitlines() == [
        "| name | size |",
        "| --- | ---: |",
        "| a\\|b | 12 |",
        "| <i> | [red]3 |",
        "",
        "- a note",
    ]
    page = table.to_html()
    assert '<td>&lt;i&gt;</td><td class="number">[red]3</td>' in page
    assert '<p class="note">a note</p>' in page
    shown = table.to_terminal()
    assert "[red]3" in shown, "a cell is no markup"
    assert shown.splitlines()[-1] == "a note"


def test_no_figure_is_cut_short_however_narrow_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    shown = run_table(load_run(make_run(tmp_path / "run"))).to_terminal()
    assert "87.1 % in 20.0 kB" in shown
    assert "linear model +1.0" in shown


def test_a_rival_is_chosen_on_validation_and_within_the_bytes():
    points = [
        point("linear", 100, 0.7, 0.9),
        point("linear", 200, 0.8, 0.75),
        point("linear", 300, 0.9, 0.95),
    ]
    points.append(point("fastText", 250, 0.6, 0.6))
    assert rivals(points, 50) == []
    assert rivals(points, 100) == [Rival("linear", 100, 0.9, 160.0)]
    # 0.75 on test, although the smaller file has 0.9 there: the test split chooses nothing
    assert rivals(points, 299) == [Rival("linear", 200, 0.75, 160.0), Rival("fastText", 250, 0.6, 160.0)]
    assert rivals(points, 300, "valid_accuracy")[0].accuracy == 0.9


@pytest.mark.parametrize(
    ("accuracy", "others", "said"),
    [
        (0.9, [0.88, 0.86], "karui +2.0"),
        (0.86, [0.88, 0.87], "linear model +2.0"),
        (0.86, [0.85, 0.871], "fastText +1.1"),
        (0.8801, [0.88, None], "equal"),
        (None, [0.88, 0.8], "–"),
        (0.9, [None, None], "–"),
    ],
)
def test_the_winner_is_named(accuracy, others, said):
    names = (LINEAR, "fastText, quantised")
    beside = [Rival(name, 10, other, None) for name, other in zip(names, others, strict=True)]
    assert verdict(accuracy, beside) == said


def test_a_run_beside_its_rivals(tmp_path):
    table = run_table(load_run(make_run(tmp_path / "run")))
    assert [column.title for column in table.columns][-2:] == ["linear model, no larger", "winner"]
    assert table.rows == [
        ["dense", "88.7 %", "2.61 MB", "1×", "410", "–", "–", "–"],
        ["compact, fp32", "88.6 %", "34.1 kB", "77×", "61", "3", "87.1 % in 20.0 kB", "karui +1.5"],
        ["compact, int8", "88.5 %", "13.4 kB", "195×", "61", "3", "89.5 % in 9.29 kB", "linear model +1.0"],
    ]
    assert table.notes == [
        (
            "compact, int8: L1 logistic regression, int8 is more accurate with no more bytes, "
            "89.5 % in 9.29 kB against 88.5 % in 13.4 kB"
        ),
        "fastText: not installed",
    ]


def test_without_a_test_split_the_validation_figures_are_called_so(tmp_path):
    run = load_run(make_run(tmp_path / "run"))
    for file in run.compact.get("files", []):
        file["test_accuracy"] = None
    for entry in (run.baselines or {}).get("points", []):
        entry["test_accuracy"] = None
    table = run_table(run)
    assert table.columns[1].title == "valid accuracy"
    assert table.rows[1][1] == "89.0 %"
    assert "accuracies are on the validation split: the data set has no test split" in table.notes


def test_two_files_of_one_kind_are_told_apart(tmp_path):
    run = load_run(make_run(tmp_path / "run"))
    for file in run.compact.get("files", []):
        file["values"] = "int8"
    assert [row[0] for row in run_table(run).rows[1:]] == ["model-fp32.karui, int8", "model-int8.karui, int8"]


def test_recorded_results_are_means_over_seeds():
    good = {"dense_accuracy": 0.89, "dense_bytes": 2_000_000, "us_per_document": 50.0, "words_kept": 1200}
    records = [
        record(seed=1, test_accuracy=0.88, artifact_bytes=10_000, **good),
        record(seed=2, test_accuracy=0.90, artifact_bytes=12_000, **good),
        record("ag_news", "news", subset=True, test_accuracy=0.85, artifact_bytes=900),
        record(recipe="baselines", points=[point(LINEAR, 10_900, 0.9, 0.893)]),
        record("ag_news", "baselines", subset=True, points=[point(LINEAR, 1000, 0.9, 0.9)]),
        {**record(recipe="lm", test_accuracy=0.1, artifact_bytes=1), "task": "language-model"},
    ]
    table = results_table(records)
    assert [row[:4] for row in table.rows] == [
        ["ag_news (subset)", "news", "85.0 %", "900 B"],
        ["imdb", "small", "89.0 % (88.0 to 90.0, 2 seeds)", "11.0 kB"],
    ]
    assert table.rows[0][-2:] == ["none so small", "–"]
    assert table.rows[1][4:] == [
        "89.0 % in 2.00 MB",
        "182×",
        "50",
        "1,200",
        "89.3 % in 10.9 kB",
        "linear model +0.3",
    ]
