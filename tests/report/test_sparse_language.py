"""The table of sparse language models, from records."""

import pytest

from karui.errors import UserError
from karui.report.records import read_records, write_record
from karui.report.sparse_language import (
    MARKER,
    PAGE,
    PUBLISHED,
    TASK,
    language_table,
    section,
    update_sparse_language,
)


def add(results, recipe: str, *, seed: int = 0, **metrics) -> None:
    write_record(
        results,
        task=TASK,
        data="ptb",
        subset=False,
        recipe=recipe,
        seed=seed,
        metrics={
            "test_ppl": 110.0,
            "architecture": [9000, 250],
            "words_kept": 9000,
            "kept_params": 340_000,
            "compression": 38.0,
            "flops_ratio": 0.08,
            "artifact_bytes": 640_000,
            "train_minutes": 90.0,
            **metrics,
        },
        details={
            "model": "lstm-256",
            "method": "vd",
            "budget": {"epochs": 16},
            "settings": {"sparse": {"groups": ["weight"]}},
        },
    )


@pytest.fixture
def folders(tmp_path):
    docs, results = tmp_path / "docs", tmp_path / "results"
    docs.mkdir()
    (docs / PAGE).write_text(
        f"# Sparse\n\n<!-- {MARKER}:begin -->\n<!-- {MARKER}:end -->\n", encoding="utf-8"
    )
    return docs, results


def test_rows_are_averaged_over_seeds_the_best_first_before_the_published_ones(folders):
    add(folders[1], "worse", test_ppl=120.0)
    add(folders[1], "better", test_ppl=107.0)
    add(folders[1], "better", seed=1, test_ppl=109.0, compression=40.0)
    rows = language_table(read_records(folders[1])).rows
    assert len(rows) == 2 + len(PUBLISHED)
    assert rows[0][:4] == ["lstm-256", "sparse variational dropout, weight", "108.00", "39.0"]
    assert "better, 16 epochs" in rows[0][-1]
    assert "2 seeds" in rows[0][-1]
    assert rows[1][2] == "120.00"
    assert rows[2][2:4] == ["109.22", "22.1"]


def test_nothing_is_shown_without_records(folders):
    assert section([]) == ""
    folders[1].mkdir()
    assert update_sparse_language(*folders) == []


def test_the_page_follows_the_records(folders):
    add(folders[1], "row")
    assert update_sparse_language(*folders, check=True) == [PAGE]
    assert update_sparse_language(*folders) == [PAGE]
    assert "110.00" in (folders[0] / PAGE).read_text(encoding="utf-8")
    assert update_sparse_language(*folders) == []
    with pytest.raises(UserError, match="is no folder"):
        update_sparse_language(folders[0] / "nowhere", folders[1])
