"""The rows of the output comparison: every method on every text, and the layers alone."""

from dataclasses import replace

import pytest

from karui.cli.reproduce_rows import rows_of
from karui.output.registry import OUTPUTS
from karui.recipes import output_comparison
from karui.report.comparison import TITLES
from karui.tasks.output_peers import METHODS


def test_every_method_has_its_rows():
    assert output_comparison.METHODS == OUTPUTS
    assert (*output_comparison.METHODS, *output_comparison.PEERS) == METHODS == tuple(TITLES)
    names = set(output_comparison.ROWS)
    assert {f"{text}-{method}" for text in ("ptb", "enwiki2015") for method in OUTPUTS} <= names
    assert {f"lm1b-{method}" for method in METHODS} <= names
    assert len(names) == 2 * len(OUTPUTS) + len(METHODS)


def test_all_methods_of_a_text_have_the_same_settings():
    assert len({id(row.comparison) for row in output_comparison.ROWS.values()}) == 3
    for row in output_comparison.ROWS.values():
        assert output_comparison.settings_of(row)["name"] == row.comparison.name


def test_rows_are_found_by_the_beginning_of_their_names():
    assert list(rows_of("output-comparison", "ptb-sampled")) == ["ptb-sampled"]
    assert len(rows_of("output-comparison", "lm1b")) == len(METHODS)


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 0.0},
        {"tokens": 0},
        {"factors": ()},
        {"factors": (1.0, 0.5)},
        {"factors": (0.0, 1.0)},
        {"trial_seconds": -1.0},
        {"trial_tokens": -1},
        {"extensions": -1},
    ],
)
def test_budgets_are_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(output_comparison.PTB, **change)
