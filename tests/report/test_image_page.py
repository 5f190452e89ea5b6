"""The generated part of docs/images.md: tables and pictures of the records, kept between two markers."""

import pytest

from karui.cli.main import main
from karui.errors import UserError
from karui.report.generated import markers
from karui.report.image_page import CURVE, MARKER, PAGE, SIZES, section, update_image_page
from karui.report.records import write_record
from tests.report.test_image_tables import record

BEGIN, END = markers(MARKER)
CURVE_POINTS = [
    {"epoch": 1, "expected": 0.9, "deployed": 0.5, "expected_density": 0.9},
    {"epoch": 2, "expected": 0.52, "deployed": 0.5, "expected_density": 0.51},
]


@pytest.fixture
def folders(tmp_path):
    docs, results = tmp_path / "docs", tmp_path / "results"
    docs.mkdir()
    (docs / PAGE).write_text(f"# Images\n\n{BEGIN}\n{END}\n\nBelow.\n", encoding="utf-8")
    add(results, record(flops_curve=CURVE_POINTS))
    add(results, record("lenet-300-100-l0-5pc", target_density=0.05, density=0.05, artifact_bytes=60_000))
    return docs, results


def add(results, made: dict) -> None:
    details = {name: made[name] for name in ("model", "method", "budget")}
    data = made["data"]
    write_record(
        results,
        task="images",
        data=data["name"],
        subset=data["subset"],
        recipe=made["recipe"],
        seed=made["seed"],
        metrics=made["metrics"],
        details=details,
    )


def test_the_section_stands_between_the_markers(folders):
    docs, results = folders
    assert update_image_page(docs, results) == [PAGE, SIZES, CURVE]
    text = (docs / PAGE).read_text(encoding="utf-8")
    assert text.startswith(f"# Images\n\n{BEGIN}\n\n## Measured\n")
    assert text.endswith(f"\n{END}\n\nBelow.\n")
    assert "| hard concrete (L0), units | 266-88-33 | 1.50 |" in text
    assert "### Asked and delivered" in text
    assert "Missed:" not in text
    for name in (SIZES, CURVE):
        assert f"]({name})" in text
        assert (docs / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert update_image_page(docs, results, check=True) == []


def test_new_records_are_noticed_and_misses_named(folders):
    docs, results = folders
    update_image_page(docs, results)
    add(results, record("lenet-300-100-vd-5pc", method="vd", target_density=0.05, density=0.06))
    before = (docs / PAGE).read_bytes()
    assert update_image_page(docs, results, check=True) == [PAGE, SIZES]
    assert (docs / PAGE).read_bytes() == before
    assert main(["report", "--results", str(results), "--pages", str(docs), "--check"]) == 2
    assert main(["report", "--results", str(results), "--pages", str(docs)]) == 0
    text = (docs / PAGE).read_text(encoding="utf-8")
    assert "- `lenet-300-100-vd-5pc` seed 0: density 0.06, +20.0% from 0.05" in text


def test_what_has_no_place_is_left_alone(folders, tmp_path):
    docs, results = folders
    assert section([]) == ""
    (docs / PAGE).write_text("no markers\n", encoding="utf-8")
    assert update_image_page(docs, results) == []
    (docs / PAGE).write_text(f"{BEGIN}\n", encoding="utf-8")
    with pytest.raises(UserError, match="needs one line"):
        update_image_page(docs, results)
    with pytest.raises(UserError, match="is no folder"):
        update_image_page(tmp_path / "missing", results)
