"""What the report shows of sparse runs, and size against quality over many."""

import json

import pytest
import torch
from torch import nn

from karui.report import write_report
from karui.report.sparse_figures import (
    architecture,
    matrix_table,
    size_against_quality,
    size_points,
    sparse_section,
)
from karui.sparse import HardConcrete, MagnitudePruning, SparseVariationalDropout, project, sparsify
from karui.tasks.sparse_details import BINS, sparse_details

METHODS = {
    "l0": HardConcrete(groups=("input",)),
    "vd": SparseVariationalDropout(),
    "magnitude": MagnitudePruning(),
}


def details(method: str = "l0", keep: int = 60) -> dict:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 5), nn.ReLU(), nn.Linear(5, 4))
    model = sparsify(model, METHODS[method])
    project(model, keep=keep)
    return sparse_details(model, method)


def lines(**values) -> list[dict]:
    return [
        {"split": "train", "epoch": 0, "step": 3, "loss": 1.0},
        *(
            {
                "split": "valid",
                "epoch": epoch,
                "step": 4 * epoch + 4,
                "sparsity": details(keep=keep),
                **values,
            }
            for epoch, keep in enumerate((120, 90, 60))
        ),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_details_count_what_is_kept(method):
    found = json.loads(json.dumps(details(method)))
    matrices = found["matrices"]
    assert list(matrices) == ["0.weight", "2.weight"]
    assert [matrix["of"] for matrix in matrices.values()] == [100, 20]
    assert 50 < sum(matrix["kept"] for matrix in matrices.values()) <= 60
    for histogram in found["histograms"].values():
        assert len(histogram["counts"]) == BINS
        assert histogram["low"] < histogram["high"]
    assert sum(found["histograms"]["0"]["counts"]) == {"l0": 20, "vd": 100, "magnitude": 100}[method]


def test_rows_and_columns_of_a_convolution():
    model = sparsify(nn.Sequential(nn.Conv2d(3, 6, 3)), HardConcrete(groups=("output",)))
    project(model, keep=4 * 27)
    found = sparse_details(model, "l0")
    assert found["matrices"]["0.weight"] == {
        "kept": 108,
        "of": 162,
        "shape": [6, 3, 3, 3],
        "rows": 4,
        "columns": 3,
    }
    assert architecture(found) == "4"


def test_the_section_has_densities_flops_scores_and_shape():
    found = details()
    columns = [matrix["columns"] for matrix in found["matrices"].values()]
    shape = f"{columns[0]}-{columns[1]}"
    body = sparse_section(lines(flops_share=0.4, expected_flops_share=0.5))
    assert f"<b>{shape}</b>" in body
    assert "FLOPs over those of the dense network" in body
    assert body.count("<svg") == 2
    assert "log alpha" in body
    assert [row[0] for row in matrix_table(found).rows] == ["0.weight", "2.weight"]


def test_without_flops_there_is_one_panel_and_without_sparsity_nothing():
    body = sparse_section(lines())
    assert "density of each matrix" in body
    assert "FLOPs" not in body
    assert sparse_section(lines()[:1]) == ""


def test_the_page_of_a_sparse_run(tmp_path):
    log = "\n".join(map(json.dumps, lines(nll=0.3, accuracy=0.9)))
    (tmp_path / "metrics.jsonl").write_text(log + "\n", encoding="utf-8")
    results = {"task": "images", "data": "mnist", "recipe": "x", "seed": 0, "metrics": {"test_nll": 0.1}}
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<h2>What was pruned</h2>" in page
    assert "<script" not in page


def record(method: str, recipe: str, size: int, error: float, model: str = "lenet-300-100") -> dict:
    metrics = {"artifact_bytes": size, "test_error": error}
    return {"method": method, "recipe": recipe, "model": model, "metrics": metrics}


def test_size_against_quality():
    records = [
        record("l0", "a", 100, 2.0),
        record("l0", "a", 120, 1.0),
        record("l0", "b", 50, 3.0),
        record("none", "small", 90, 2.5, model="lenet-300-100-33-30"),
        record("vd", "c", 90, 1.7, model="lenet-5"),
    ]
    assert size_points(records, model="lenet-300-100") == {"l0": [(50, 3.0), (110, 1.5)], "none": [(90, 2.5)]}
    picture = size_against_quality(records, models=("lenet-300-100", "lenet-5", "wrn"))
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    held = {
        **record("l0", "a", 70, 1.9),
        "metrics": {**records[0]["metrics"], "target_layer_densities": [0.3]},
    }
    assert list(size_points([held, records[2]], model="lenet-300-100")) == ["l0-units", "l0"]
    assert size_against_quality([], models=("lenet-5",)) == ""
