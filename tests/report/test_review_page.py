"""Tables, picture and page of sparse classifiers of film reviews, from records."""

from pathlib import Path

import pytest

from karui.errors import UserError
from karui.report.asked import misses
from karui.report.generated import digest
from karui.report.records import read_records, write_record
from karui.report.review_page import CURVE, MARKER, PAGE, section, update_review_page
from karui.report.review_tables import PUBLISHED, TASK, asked_table, groups, words_table

SETTINGS = {
    "data": {"max_tokens": 400},
    "model": {"embedding_dim": 32, "hidden_size": 16},
}


def add(results, recipe: str, *, method: str = "vd", seed: int = 0, **metrics) -> None:
    write_record(
        results,
        task=TASK,
        data="imdb",
        subset=False,
        recipe=recipe,
        seed=seed,
        metrics={
            "test_accuracy": 0.85,
            "words_kept": 300,
            "architecture": [300, 8, 7, 6],
            "kept_params": 900,
            "density": 0.01,
            "artifact_bytes": 2_000,
            "dense_bytes": 2_600_000,
            "penalty_weight": 1.0,
            **metrics,
        },
        details={"model": "bi-sru", "method": method, "budget": {"epochs": 5}, "settings": SETTINGS},
    )


@pytest.fixture
def folders(tmp_path):
    docs, results = tmp_path / "docs", tmp_path / "results"
    docs.mkdir()
    (docs / PAGE).write_text(
        f"# Sparse\n\n<!-- {MARKER}:begin -->\n<!-- {MARKER}:end -->\n\nBelow.\n", encoding="utf-8"
    )
    add(results, "imdb-voc-1")
    add(results, "imdb-voc-1", seed=1, test_accuracy=0.84, words_kept=280)
    add(results, "imdb-voc-0.5", words_kept=700, test_accuracy=0.87, penalty_weight=0.5)
    return docs, results


def test_words_stand_beside_the_published_ones(folders):
    table = words_table(read_records(folders[1]))
    own = table.rows[: len(table.rows) - len(PUBLISHED)]
    assert [row[0] for row in own] == ["SparseVD-Voc, penalty 1", "SparseVD-Voc, penalty 0.5"]
    assert own[0][1:3] == ["300, 280", "84.50 ± 0.71"]
    assert own[0][5] == "8-7+6"
    assert own[0][6] == "karui imdb-voc-1, 5 epochs, 2 seeds"
    assert ["SparseVD-Voc", "265", "83.28"] in [row[:3] for row in table.rows]


def test_a_target_is_compared_with_what_was_delivered(folders):
    _, results = folders
    add(results, "imdb-l0-50kb", method="l0", target_size=50_000, artifact_bytes=49_000, test_accuracy=0.86)
    add(results, "imdb-vd-50kb", target_size=50_000, artifact_bytes=50_001)
    add(results, "imdb-magnitude-5pc", method="magnitude", target_density=0.05, density=0.0505)
    add(results, "imdb-small-50kb", method="none", artifact_bytes=48_000, test_accuracy=0.8)
    records = read_records(results)
    table = asked_table(records)
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["50,000 B"] == [
        *("49,000", "86.00", "50,001 (missed)", "85.00"),
        *("–", "–", "48,000", "80.00"),
    ]
    assert cells["5 %"] == ["–", "–", "–", "–", "5.05 %", "85.00", "–", "–"]
    assert misses(records) == ["`imdb-vd-50kb` seed 0: 50,001 bytes, 1 more than asked"]
    assert "- `imdb-vd-50kb` seed 0" in section(records)


def test_the_page_follows_the_records(folders):
    docs, results = folders
    assert update_review_page(docs, results) == [PAGE, CURVE]
    text = (docs / PAGE).read_text(encoding="utf-8")
    assert text.startswith(f"# Sparse\n\n<!-- {MARKER}:begin -->\n\n## Film reviews\n")
    assert text.endswith(f"\n<!-- {MARKER}:end -->\n\nBelow.\n")
    assert f"]({CURVE})" in text
    assert (docs / CURVE).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert update_review_page(docs, results, check=True) == []
    add(results, "imdb-dense", method="none", test_accuracy=0.88)
    assert update_review_page(docs, results, check=True) == [PAGE, CURVE]
    assert "88.00" not in (docs / PAGE).read_text(encoding="utf-8")


def test_a_page_without_markers_is_left_alone_and_half_a_pair_refused(folders):
    docs, results = folders
    (docs / PAGE).write_text("# Sparse\n", encoding="utf-8")
    assert CURVE not in update_review_page(docs, results)
    (docs / PAGE).write_text(f"<!-- {MARKER}:begin -->\n", encoding="utf-8")
    with pytest.raises(UserError, match="needs one line"):
        update_review_page(docs, results)
    with pytest.raises(UserError, match="is no folder"):
        update_review_page(docs / "none", results)


def test_speeds_stand_below(folders):
    _, results = folders
    entry = {"flops_ratio": 9.992, "time_ratio": 6.456, "quotient": 0.646}
    write_record(
        results,
        task="inference",
        data="random",
        subset=False,
        recipe="compact-speed",
        seed=0,
        metrics={
            "lenet-300-100": {"architecture": [266, 88, 33], "judged": "batch 400", "batch 400": entry},
            "imdb": {"record": "imdb-voc-2", "architecture": [152, 15, 12, 13], "torch": entry},
        },
    )
    text = section(read_records(results))
    assert "| LeNet-300-100, batch 400 | 266-88-33 | 9.99 | 6.46 | 0.65 |" in text
    assert "| film reviews, torch | 152-15-12-13 | 9.99 | 6.46 | 0.65 |" in text


def test_steps_stand_below(folders):
    _, results = folders
    metrics = {
        "limit": 1.4,
        "lenet-300-100": {
            "dense": {"step_ms": 2.117, "ratio": 1.0},
            "l0 16x1": {"step_ms": 2.824, "ratio": 1.334},
        },
        "sru 16/16": {"vd word, input, gate": {"step_ms": 18.2, "ratio": 1.297}},
    }
    kind = {"task": "training-step", "data": "random", "subset": False, "recipe": "gate-step", "seed": 0}
    write_record(results, **kind, metrics=metrics)
    text = section(read_records(results))
    assert "| LeNet-300-100 | dense | – | 2.12 | 1.00 |" in text
    assert "| LeNet-300-100 | hard concrete (L0) | 16x1 | 2.82 | 1.33 |" in text
    assert "| film reviews | sparse variational dropout | word, input, gate | 18.20 | 1.30 |" in text


def test_what_is_recorded_holds():
    records = read_records(Path(__file__).parents[2] / "results")
    assert misses(records) == []
    few = [record["metrics"] for record in groups(records)["imdb-voc-1"]]
    assert all(metrics["words_kept"] <= 300 and metrics["test_accuracy"] >= 0.833 for metrics in few)
    [speed] = [record["metrics"] for record in records if record["recipe"] == "compact-speed"]
    judged = [speed["lenet-300-100"][speed["lenet-300-100"]["judged"]], speed["imdb"]["torch"]]
    assert all(0.5 <= entry["quotient"] <= 2 for entry in (*judged, speed["imdb"]["reader"]))


def test_equal_data_have_one_digest():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1})
