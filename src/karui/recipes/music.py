"""Recipes of polyphonic music, and the rows of the table music.

`music-published` has the settings of Bai, Kolter, Koltun 2018 (Adam 1e-3, one sequence a step, 100 epochs, dropout
0.25, chosen on validation). The rows hold equal numbers of weights, about those authors' 300 thousand for JSB and
fewer than their million for Nottingham, and are searched.
"""

from dataclasses import replace
from typing import Any

from karui.recipes.search import Row, SearchSettings
from karui.recipes.sequences import MusicRecipe
from karui.tasks.sequence_settings import LayerSettings, MusicData
from karui.train.settings import TrainSettings

_SIZES: dict[str, dict[str, Any]] = {
    "sru": {"hidden_size": 250, "num_layers": 2, "gate_bias": 1.0},
    "statistical-ru": {"hidden_size": 200, "num_stats": 192, "recur_size": 60},
    "lstm": {"hidden_size": 224, "gate_bias": 1.0},
    "gru": {"hidden_size": 264, "gate_bias": 1.0},
}
_TRAIN = TrainSettings(
    lr=2e-3, grad_clip_norm=1.0, monitor="nll", keep="best", threads=1, decay_start=0.5, log_every=100
)
_JSB = MusicData(name="jsb", batch_size=8)
_NOTTINGHAM = MusicData(name="nottingham", batch_size=16, piece_steps=128)


def _recipe(prefix: str, layer: str, data: MusicData, max_epochs: int) -> MusicRecipe:
    model = LayerSettings(recurrent=layer, **_SIZES[layer])  # type: ignore[arg-type]
    return MusicRecipe(
        name=f"{prefix}-{layer}", data=data, model=model, train=replace(_TRAIN, max_epochs=max_epochs)
    )


_JSB_RECIPES = {recipe.name: recipe for recipe in (_recipe("jsb", layer, _JSB, 25) for layer in _SIZES)}
_NOTTINGHAM_RECIPES = {
    recipe.name: recipe for recipe in (_recipe("nottingham", layer, _NOTTINGHAM, 16) for layer in _SIZES)
}
_PUBLISHED = MusicRecipe(
    name="music-published",
    data=MusicData(name="jsb", batch_size=1),
    model=LayerSettings(recurrent="gru", hidden_size=264, dropout=0.25),
    train=replace(_TRAIN, max_epochs=100, lr=1e-3, schedule="constant", grad_clip_norm=0.4),
)
_DEFAULT = MusicRecipe(
    data=_JSB, model=LayerSettings(recurrent="gru", hidden_size=264), train=replace(_TRAIN, max_epochs=30)
)
RECIPES = {
    _DEFAULT.name: _DEFAULT,
    _PUBLISHED.name: _PUBLISHED,
    **_JSB_RECIPES,
    **_NOTTINGHAM_RECIPES,
}


def _row(recipe: MusicRecipe, *, trials: int, epochs: int, examples: int, seeds: tuple[int, ...]) -> Row:
    """Every row of a set has the same trials; a layer with a gate has its first bias searched too."""
    ranges = {"train.lr": (3e-4, 3e-2), "train.grad_clip_norm": (0.1, 10.0), "model.dropout": (0.0, 0.6)}
    if recipe.model.gate_bias is not None:
        ranges["model.gate_bias"] = (0.0, 3.0)
    search = SearchSettings(trials=trials, epochs=epochs, examples=examples, ranges=ranges)
    return Row(recipe=recipe, search=search, seeds=seeds)


ROWS = {
    **{
        name: _row(recipe, trials=6, epochs=10, examples=0, seeds=(0, 1, 2))
        for name, recipe in _JSB_RECIPES.items()
    },
    **{
        name: _row(recipe, trials=6, epochs=2, examples=173, seeds=(0,))
        for name, recipe in _NOTTINGHAM_RECIPES.items()
    },
}
"""Rows of the table music."""

DEFAULT_ROWS = tuple(ROWS)
"""Rows that are made where none is named."""
