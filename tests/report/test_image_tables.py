"""Tables of image networks: what is counted, what is published, and which record misses what it was asked for."""

from pathlib import Path

import pytest

from karui.report.asked import TOLERANCE, miss_of
from karui.report.image_tables import DENSE_UNITS, asked_table, network_table, unit_costs, wide_table
from karui.report.records import read_records

RESULTS = Path(__file__).resolve().parents[2] / "results" / "sparse_images"
SURROUNDINGS = {"commit": "c0ffee", "hardware": "a processor", "torch": "2", "date": "2026-01-01"}


def record(recipe: str = "lenet-300-100-l0", *, method: str = "l0", seed: int = 0, **metrics) -> dict:
    model = metrics.pop("model", recipe.rpartition("-")[0] if "pc" not in recipe else "lenet-300-100")
    return {
        "task": "images",
        "data": {"name": "mnist", "subset": model.startswith("wrn")},
        "recipe": recipe,
        "seed": seed,
        **SURROUNDINGS,
        "model": model,
        "method": method,
        "budget": {"epochs": 3},
        "metrics": {
            "test_error": 1.5,
            "architecture": [266, 88, 33],
            "kept_params": 26_773,
            "dense_params": 266_610,
            "flops_ratio": 0.1,
            "density": 0.1,
            "artifact_bytes": 109_804,
            "dense_bytes": 1_066_920,
            **({"target_layer_densities": [0.34, 0.29, 0.33]} if recipe == "lenet-300-100-l0" else {}),
            **metrics,
        },
    }


@pytest.mark.parametrize("network", DENSE_UNITS)
def test_costs_of_the_dense_networks(network):
    weights, flops = unit_costs(network, DENSE_UNITS[network])
    assert weights == {"lenet-300-100": 784 * 300 + 300 * 100 + 1000, "lenet-5": 430_500}[network]
    products = {"lenet-300-100": 266_200, "lenet-5": 500 * 576 + 25_000 * 64 + 405_000}
    assert flops == 2 * products[network]


def test_seeds_make_one_row_and_published_ones_stand_below():
    records = [
        record(seed=0, test_error=1.4),
        record(seed=1, test_error=1.8),
        record("lenet-300-100-l0-5pc", target_density=0.05),
        record("lenet-300-100-small", method="none", model="lenet-300-100-33-30", architecture=[784, 33, 30]),
    ]
    table = network_table(records, "lenet-300-100")
    first, small, *published = table.rows
    assert first == [
        "hard concrete (L0), units",
        "266-88-33",
        "1.60 ± 0.28",
        "26,773 (10.0 %)",
        "10.0 %",
        "109,804",
        "karui lenet-300-100-l0, 3 epochs, 2 seeds",
    ]
    assert small[0] == "dense, small"
    assert small[4] == "10.2 %"
    assert ["L0, a lambda a layer", "266-88-33", "1.8", "26,642 (10.0 %)", "10.0 %"] in [
        row[:5] for row in published
    ]
    assert all(row[-1].startswith("published: ") for row in published)
    assert network_table(records, "lenet-5").rows == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, None),
        ({"target_density": 0.05, "density": 0.0486}, None),
        ({"target_density": 0.05, "density": 0.0484}, "density 0.0484, -3.2% from 0.05"),
        ({"target_density": 0.05, "density": 0.0516}, "density 0.0516, +3.2% from 0.05"),
        ({"target_size": 50_000, "artifact_bytes": 50_000}, None),
        ({"target_size": 50_000, "artifact_bytes": 50_001}, "50,001 bytes, 1 more than asked"),
        ({"target_size": 50_000, "artifact_bytes": 48_400}, "artifact_bytes 48400, -3.2% from 50000"),
    ],
)
def test_a_miss_is_told(metrics, said):
    assert miss_of(record(**metrics)) == said


def test_targets_stand_beside_each_other():
    table = asked_table(
        [
            record("lenet-300-100-l0-5pc", target_density=0.05, density=0.0499),
            record("lenet-300-100-vd-5pc", method="vd", target_density=0.05, density=0.04),
            record("lenet-300-100-vd-10pc", method="vd", target_density=0.1, density=0.1),
        ]
    )
    assert [column.title for column in table.columns][1::2] == [
        "hard concrete (L0): came to",
        "sparse variational dropout: came to",
    ]
    assert table.rows == [
        ["10 %", "–", "–", "10.00 %", "1.50"],
        ["5 %", "4.99 %", "1.50", "4.00 % (missed)", "1.50"],
    ]


def test_wide_networks_say_what_they_were_trained_on():
    curve = [{"epoch": 1, "expected": 0.9, "deployed": 0.6, "expected_density": 0.81}]
    [row] = wide_table(
        [record("wrn-10-1-subset-l0", model="wrn-10-1", target_density=0.5, flops_curve=curve)]
    ).rows
    assert row[:5] == ["WRN-10-1", "hard concrete (L0)", "mnist, a subset", "50.0 %", "81.0 %"]
    [row] = wide_table(
        [record("wrn-10-1-subset-l0", model="wrn-10-1", target_flops=20_000_000, flops_curve=curve)]
    ).rows
    assert row[3:5] == ["20 million FLOPs", "90.0 % of the FLOPs"]


def test_committed_records_came_to_what_they_were_asked_for():
    records = read_records(RESULTS) if RESULTS.exists() else []
    missed = {f"{each['recipe']}-seed{each['seed']}": miss for each in records if (miss := miss_of(each))}
    assert missed == {}, f"off by more than {TOLERANCE:.0%}, or above a size"
