"""What a table says of the records of one recipe."""

import pytest

from karui.report.groups import all_of, average, by_recipe, source_of, spread


def record(recipe: str, score: float, hardware: str = "a processor") -> dict:
    return {
        "recipe": recipe,
        "hardware": hardware,
        "budget": {"epochs": 3},
        "metrics": {"score": score},
    }


def test_seeds_of_a_recipe_are_one_group():
    first, second, third = record("b", 1.0), record("a", 2.0), record("b", 2.0, "another")
    groups = by_recipe([first, second, third])
    assert list(groups.items()) == [("b", [first, third]), ("a", [second])]
    assert average(groups["b"], "score") == pytest.approx(1.5)
    assert spread(groups["b"], "score", "{:.1f}".format) == "1.5 ± 0.7"
    assert spread(groups["a"], "score", "{:.1f}".format) == "2.0"
    assert source_of(groups["b"]) == "karui b, 3 epochs, 2 seeds"
    assert source_of(groups["a"], "a processor") == "karui a, 3 epochs, a processor, one seed"
    assert all_of([first, second, third], "hardware") == "a processor and another"
