"""Recipes of pixel-by-pixel images, and the rows of the table pixel-mnist.

The 784-step recipes hold published settings: the Statistical Recurrent Unit 200/60/200 with the best settings found by
DLHacks/SRU (Adam 5.17e-4, weight decay 3.95e-5, dropout 0.728, batch 512), LSTM and GRU with 200 units and a gate bias
of 1 (same source), LSTM with a large one (Jozefowicz et al. 2015). No settings are published for the Simple Recurrent
Unit here. The 196-step recipes are of 17 thousand weights each, the ablations of their own sizes: minutes an epoch on
one core. An ablation leaves out what it is named for and keeps the rest: iid has one scale and no feedback, recur one
scale, multi no feedback.
"""

from dataclasses import replace
from typing import Any

from karui.recipes.search import Row, SearchSettings
from karui.recipes.sequences import PixelRecipe
from karui.tasks.sequence_settings import ALPHAS_LONG, LayerSettings, PixelData
from karui.train.settings import TrainSettings

_ONE_SCALE = (0.99,)

# layer -> what a recipe of it has beyond the sizes
_KINDS: dict[str, dict[str, Any]] = {
    "sru": {"recurrent": "sru"},
    "statistical-ru": {"recurrent": "statistical-ru"},
    "statistical-ru-long": {"recurrent": "statistical-ru", "alphas": ALPHAS_LONG},
    "statistical-ru-iid": {"recurrent": "statistical-ru", "alphas": _ONE_SCALE, "recur_size": 0},
    "statistical-ru-recur": {"recurrent": "statistical-ru", "alphas": _ONE_SCALE},
    "statistical-ru-multi": {"recurrent": "statistical-ru", "recur_size": 0},
    "lstm": {"recurrent": "lstm"},
    "gru": {"recurrent": "gru"},
}

_SMALL_SIZES: dict[str, dict[str, Any]] = {
    "sru": {"hidden_size": 72, "num_layers": 2, "gate_bias": 1.0},
    "statistical-ru": {"hidden_size": 52, "num_stats": 48, "recur_size": 16},
    "lstm": {"hidden_size": 64, "gate_bias": 1.0},
    "gru": {"hidden_size": 74, "gate_bias": 1.0},
}
_PUBLISHED_SIZES: dict[str, dict[str, Any]] = {
    "sru": {"hidden_size": 128, "num_layers": 4, "gate_bias": 1.0},
    "statistical-ru": {"hidden_size": 200, "num_stats": 200, "recur_size": 60},
    "lstm": {"hidden_size": 200, "gate_bias": 3.0},
    "gru": {"hidden_size": 200, "gate_bias": 1.0},
}
_SMALL_TRAIN = TrainSettings(max_epochs=12, lr=3e-3, grad_clip_norm=1.0, threads=1)
_PUBLISHED_TRAIN = TrainSettings(
    max_epochs=200, lr=1e-3, grad_clip_norm=1.0, schedule="constant", patience=20, threads=1
)
_DLHACKS_TRAIN = replace(_PUBLISHED_TRAIN, lr=5.17e-4, weight_decay=3.95e-5)


def _recipe(
    prefix: str, kind: str, data: PixelData, sizes: dict[str, Any], train: TrainSettings
) -> PixelRecipe:
    settings = {**sizes, **_KINDS[kind]}  # an ablation takes its feedback away whatever the sizes say
    return PixelRecipe(name=f"{prefix}-{kind}", data=data, model=LayerSettings(**settings), train=train)


def _small(kind: str) -> PixelRecipe:
    sizes = _SMALL_SIZES[_KINDS[kind]["recurrent"]]
    return _recipe("pixel-196", kind, PixelData(side=14, batch_size=64), sizes, _SMALL_TRAIN)


def _published(kind: str, *, permuted: bool = False) -> PixelRecipe:
    layer = _KINDS[kind]["recurrent"]
    sizes, train = _PUBLISHED_SIZES[layer], _PUBLISHED_TRAIN
    if layer == "statistical-ru":
        sizes, train = {**sizes, "dropout": 0.728}, _DLHACKS_TRAIN
    prefix = "permuted-784" if permuted else "pixel-784"
    return _recipe(prefix, kind, PixelData(permuted=permuted, batch_size=512), sizes, train)


PIXEL_196 = {recipe.name: recipe for recipe in map(_small, _KINDS)}
PIXEL_784 = {recipe.name: recipe for recipe in map(_published, _KINDS)}
PERMUTED_784 = {
    recipe.name: recipe
    for recipe in (_published(kind, permuted=True) for kind in ("sru", "statistical-ru-long", "lstm", "gru"))
}
_DEFAULT = PixelRecipe(train=_SMALL_TRAIN)
RECIPES = {_DEFAULT.name: _DEFAULT, **PIXEL_196, **PIXEL_784, **PERMUTED_784}


def _row(recipe: PixelRecipe) -> Row:
    """Every row of one length has the same trials; a layer with a gate has its first bias searched too."""
    ranges = {"train.lr": (3e-4, 3e-2), "train.grad_clip_norm": (0.1, 10.0), "model.dropout": (0.0, 0.5)}
    if recipe.model.gate_bias is not None:
        ranges["model.gate_bias"] = (0.0, 5.0)
    if recipe.data.side == 14:
        return Row(recipe=recipe, search=SearchSettings(trials=6, epochs=1, examples=12_000, ranges=ranges))
    return Row(recipe=recipe, search=SearchSettings(trials=6, epochs=5, ranges=ranges))


ROWS = {
    recipe.name: _row(recipe) for recipe in (*PIXEL_196.values(), *PIXEL_784.values(), *PERMUTED_784.values())
}
"""Rows of the table pixel-mnist."""

DEFAULT_ROWS = tuple(PIXEL_196)
"""Rows that are made where none is named; the others take hours on a processor."""
