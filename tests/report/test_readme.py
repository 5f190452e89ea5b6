from pathlib import Path

import pytest

from karui.errors import UserError
from karui.report.readme import BEGIN, END, update_readme, with_results
from karui.report.records import write_record

ROOT = Path(__file__).resolve().parents[2]
METRICS = {"test_accuracy": 0.88, "artifact_bytes": 13_400}


def test_the_table_stands_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    results = tmp_path / "results"
    write_record(
        results, task="classification", data="ag_news", subset=True, recipe="news", seed=1, metrics=METRICS
    )
    assert update_readme(readme, results, check=True)
    assert "old" in readme.read_text(), "a check writes nothing"
    assert update_readme(readme, results)
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| data | recipe |")
    assert "| ag_news (subset) | news | 88.0 % | 13.4 kB |" in text
    assert text.endswith(f"\n{END}\nafter\n")
    assert not update_readme(readme, results)


def test_without_records_nothing_stands_there(tmp_path):
    assert with_results(f"{BEGIN}{END}", tmp_path) == f"{BEGIN}\n{END}"


@pytest.mark.parametrize("text", ["no markers", f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_markers_must_be_there_once_and_in_order(tmp_path, text):
    with pytest.raises(UserError, match="README: needs one line"):
        with_results(text, tmp_path, where="README")


def test_a_missing_readme_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist; give the path of the README"):
        update_readme(tmp_path / "README.md", tmp_path)


def test_the_readme_of_this_repository_is_up_to_date():
    """Nobody edits that table by hand; `make docs` writes it."""
    assert not update_readme(ROOT / "README.md", ROOT / "results", check=True)
