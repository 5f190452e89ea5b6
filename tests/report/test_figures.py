import re
import xml.etree.ElementTree as ET

import pytest

from karui.report.figures import accuracy_against_bytes, bytes_by_part, learning_curves
from tests.support.run_folder import LINEAR, compact_file, metrics_lines, point


def parsed(svg):
    """The figure as XML, its words, and how many lines with markers it draws."""
    assert svg is not None
    root = ET.fromstring(svg)
    return root, [text for text in (element.text for element in root.iter()) if text]


def test_learning_curves_show_what_was_logged():
    _, words = parsed(learning_curves(metrics_lines()))
    for title in (
        "loss (nats a document)",
        "KL (nats, all weights)",
        "validation accuracy",
        "words kept",
        "epoch",
    ):
        assert title in words
    assert any(word.endswith(" %") for word in words), "accuracy and density are percent"
    assert not any("mathdefault" in word for word in words), "no raw formula on an axis"


def test_a_dense_run_has_no_empty_panels():
    lines = [
        {key: line[key] for key in line if key not in ("penalty", "density", "words_kept")}
        for line in metrics_lines(epochs=1)
    ]
    _, words = parsed(learning_curves(lines))
    assert "validation accuracy" in words
    assert not [word for word in words if word.startswith(("KL", "density", "words kept"))]


@pytest.mark.parametrize("lines", [[], [{"split": "train", "epoch": 0, "step": 1}]])
def test_nothing_logged_is_no_figure(lines):
    assert learning_curves(lines) is None


def test_strange_numbers_do_not_stop_it():
    lines = [
        {"split": "train", "epoch": 0, "step": 10, "loss": float("nan"), "penalty": 0.0},
        {"split": "train", "epoch": 0, "step": 20, "loss": 1.0, "penalty": float("inf")},
        {"split": "valid", "epoch": 0, "step": 20, "accuracy": None, "words_kept": 0},
    ]
    _, words = parsed(learning_curves(lines))
    assert "loss (nats a document)" in words


def test_accuracy_against_bytes_names_every_curve():
    files = [compact_file("int8", 13_400, 0.885), compact_file("fp32", 34_100, None)]
    points = [point(LINEAR, 2000, 0.87, 0.872), point("$x_1$ & <b>", 9290, 0.899, 0.895)]
    dense = {"artifact_bytes": 2_610_000, "test_accuracy": 0.89}
    _, words = parsed(accuracy_against_bytes(files, dense, points, key="test_accuracy"))
    for name in (LINEAR, "$x_1$ & <b>", "karui, compact", "karui, dense", "int8"):
        assert name in words
    assert "fp32" not in words, "a file without the figure is not drawn"
    assert accuracy_against_bytes([], None, [], key="test_accuracy") is None
    assert accuracy_against_bytes([], dense, [point(LINEAR, 2000, 0.87, None)], key="test_accuracy") is None


def test_bars_are_as_long_as_the_bytes():
    root, words = parsed(bytes_by_part([compact_file("int8", 13_400, 0.885)]))
    widths = []
    for element in root.iter("{http://www.w3.org/2000/svg}g"):
        path = element.find("{http://www.w3.org/2000/svg}path")
        if re.fullmatch(r"patch_\d+", element.get("id", "")) and path is not None and path.get("clip-path"):
            x = [float(number) for number in re.findall(r"[ML] ([\d.]+) ", path.get("d", ""))]
            widths.append(max(x) - min(x))
    sizes = [900, 4133, 8267, 100]
    total = sum(widths)
    assert [round(width / total, 3) for width in widths] == [round(size / 13_400, 3) for size in sizes]
    assert "13.4 kB" in words
    assert bytes_by_part([]) is None
