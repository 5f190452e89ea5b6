"""Rows of the table sparse-imdb: how few words, numbers and bytes a classifier of film reviews can do with.

All of them read the first 200 words of a review, as Chirkova, Lobacheva, Vetrov 2018 (SparseVD-Voc) do, and learn from
the labels alone.
"""

from dataclasses import dataclass, replace
from typing import Any

from karui.recipes.classification import ClassificationRecipe
from karui.tasks.settings import DataSettings, ModelSettings, SparseSettings
from karui.train.settings import TrainSettings

PENALTIES = (0.1, 0.25, 0.5, 1, 2, 4)
"""Weights of the KL / N: 1 is the evidence bound, the published loss. Each is a point of accuracy against words."""

DENSITIES = (0.10, 0.05, 0.02)
SIZES_KB = (200, 50, 20)
METHODS = ("l0", "vd", "magnitude")


@dataclass(frozen=True, kw_only=True)
class ImdbRow:
    """One row of sparse-imdb: a recipe, and the seeds of its runs."""

    recipe: ClassificationRecipe
    """What is trained; nothing is searched."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs."""


_DATA = DataSettings(name="imdb", min_count=2, max_tokens=200)
_TRAIN = TrainSettings(max_epochs=6, keep="last", grad_clip_norm=5.0, threads=1)


def _voc(penalty_weight: float) -> ClassificationRecipe:
    """SparseVD-Voc: noise of every weight and a variable for every word."""
    return ClassificationRecipe(
        name=f"imdb-voc-{penalty_weight:g}",
        data=_DATA,
        sparse=SparseSettings(method="vd", groups=("weight", "word")),
        train=replace(_TRAIN, penalty_weight=float(penalty_weight)),
    )


_WIDE = ModelSettings(embedding_dim=32)
_TARGET_DATA = replace(_DATA, batch_size=128)
_TARGET_TRAIN = replace(_TRAIN, max_epochs=5)


def _targets() -> list[ClassificationRecipe]:
    """Every method, gates of single weights, at each density and size."""
    asked: dict[str, dict[str, Any]] = {
        f"{share:.0%}".replace("%", "pc"): {"target_density": share} for share in DENSITIES
    }
    asked |= {f"{size}kb": {"target_size": f"{size}kB"} for size in SIZES_KB}
    return [
        ClassificationRecipe(
            name=f"imdb-{method}-{name}",
            data=_TARGET_DATA,
            model=_WIDE,
            sparse=SparseSettings(method=method, groups=("weight",), **target),  # type: ignore[arg-type]
            train=_TARGET_TRAIN,
        )
        for method in METHODS
        for name, target in asked.items()
    ]


_VOC = [_voc(weight) for weight in PENALTIES]
RECIPES = {recipe.name: recipe for recipe in (*_VOC, *_targets())}
ROWS = {recipe.name: ImdbRow(recipe=recipe) for recipe in RECIPES.values()}
"""Rows of the table sparse-imdb."""

DEFAULT_ROWS = tuple(ROWS)
"""Rows that are made where none is named."""
