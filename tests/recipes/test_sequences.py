"""The rows of pixel-mnist and music: fair to each other, and what they are named for."""

import pytest

from karui import recipes
from karui.recipes import base, music, pixels
from karui.recipes.search import SearchSettings
from karui.tasks.sequence_model import SequenceModel
from karui.tasks.sequence_settings import ALPHAS_DEFAULT, ALPHAS_LONG

ABLATIONS = ("iid", "recur", "multi")


def weights(recipe, *, features, outputs, every_step):
    model = SequenceModel(features, outputs, recipe.model, every_step=every_step)
    return sum(weight.numel() for weight in model.parameters())


def test_small_pixel_rows_are_of_equal_size_but_for_the_ablations():
    sizes = {
        name: weights(recipe, features=1, outputs=10, every_step=False)
        for name, recipe in pixels.PIXEL_196.items()
    }
    whole = [size for name, size in sizes.items() if not name.endswith(ABLATIONS)]
    assert len(whole) == 5
    assert max(whole) < 1.05 * min(whole)
    assert all(size < min(whole) for name, size in sizes.items() if name.endswith(ABLATIONS))


@pytest.mark.parametrize("prefix", ["jsb", "nottingham"])
def test_music_rows_are_of_equal_size(prefix):
    sizes = [
        weights(row.recipe, features=88, outputs=88, every_step=True)
        for name, row in music.ROWS.items()
        if name.startswith(prefix)
    ]
    assert len(sizes) == 4
    assert 290_000 < min(sizes) <= max(sizes) < 1.05 * min(sizes)


@pytest.mark.parametrize(
    "rows",
    [
        [pixels.ROWS[name] for name in pixels.DEFAULT_ROWS],
        [row for name, row in music.ROWS.items() if name.startswith("jsb")],
        [row for name, row in music.ROWS.items() if name.startswith("nottingham")],
    ],
)
def test_rows_of_a_table_have_the_same_budget_and_search(rows):
    def budget(row):
        ranges = {name: limits for name, limits in row.search.ranges.items() if name != "model.gate_bias"}
        search = row.search
        return (
            search.trials,
            search.epochs,
            search.examples,
            ranges,
            row.recipe.train,
            row.recipe.data,
            row.seeds,
        )

    assert all(budget(row) == budget(rows[0]) for row in rows)
    for row in rows:
        is_gated = row.recipe.model.recurrent != "statistical-ru"
        assert ("model.gate_bias" in row.search.ranges) == is_gated
        for name, (low, high) in row.search.ranges.items():
            assert base.with_overrides(row.recipe, [f"{name}={low}"]) != base.with_overrides(
                row.recipe, [f"{name}={high}"]
            )


def test_the_ablations_leave_out_what_they_are_named_for():
    for prefix in ("pixel-196", "pixel-784"):
        model = {
            kind: recipes.get(f"{prefix}-statistical-ru{kind}").model
            for kind in ("", "-long", "-iid", "-recur", "-multi")
        }
        assert (model[""].alphas, model["-long"].alphas) == (ALPHAS_DEFAULT, ALPHAS_LONG)
        assert (model["-iid"].alphas, model["-iid"].recur_size) == ((0.99,), 0)
        assert (model["-recur"].alphas, model["-recur"].recur_size) == ((0.99,), model[""].recur_size)
        assert (model["-multi"].alphas, model["-multi"].recur_size) == (ALPHAS_DEFAULT, 0)


def test_published_settings():
    statistical = recipes.get("pixel-784-statistical-ru-long")
    model, train = statistical.model, statistical.train
    assert (model.num_stats, model.recur_size, model.hidden_size, model.dropout) == (200, 60, 200, 0.728)
    assert (train.lr, train.weight_decay, statistical.data.batch_size) == (5.17e-4, 3.95e-5, 512)
    assert recipes.get("permuted-784-gru").data.permuted
    assert recipes.get("pixel-784-gru").model.gate_bias == 1.0


@pytest.mark.parametrize("name", [name for name in recipes.names() if hasattr(recipes.get(name), "task")])
def test_every_recipe_survives_its_file(name, tmp_path):
    recipe = recipes.get(name)
    assert recipe.name == name
    base.save(recipe, tmp_path / "config.json")
    assert base.load(type(recipe), tmp_path / "config.json") == recipe


def test_a_search_that_cannot_be_made():
    with pytest.raises(ValueError, match="trials must be >= 1, got 0"):
        SearchSettings(trials=0)
    with pytest.raises(ValueError, match="must rise, got 1.0 to 0.5"):
        SearchSettings(ranges={"train.lr": (1.0, 0.5)})
