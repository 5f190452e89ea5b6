"""Rows of the table sparse-imdb: how few words, numbers and bytes a classifier of film reviews can do with.

All of them read the first 400 words of a review and learn from the labels alone. (SparseVD-Voc of Chirkova, Lobacheva,
Vetrov 2018 is an LSTM that reads 200, from word vectors trained on other texts.)
"""

from dataclasses import dataclass, replace
from typing import Any

from karui.recipes.classification import ClassificationRecipe
from karui.tasks.settings import DataSettings, ModelSettings, SparseSettings
from karui.train.settings import TrainSettings

WIDTHS = {0.1: 8, 0.3: 8, 0.6: 8, 1: 8, 1.4: 8, 2: 16}
"""Weight of the KL / N (1 is the evidence bound, the published loss) -> columns of the embedding and units a direction.
Each is a point of accuracy against words."""

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

    max_bytes: int | None = None
    """Budget of the file of a run that was not trained to a size."""


_DATA = DataSettings(name="imdb", min_count=2, max_tokens=400, batch_size=128)
_TRAIN = TrainSettings(max_epochs=5, keep="last", grad_clip_norm=5.0, threads=1)


def _voc(penalty_weight: float, width: int) -> ClassificationRecipe:
    """SparseVD-Voc: noise of every weight and a variable for every word."""
    return ClassificationRecipe(
        name=f"imdb-voc-{penalty_weight:g}",
        data=_DATA,
        model=ModelSettings(embedding_dim=width, hidden_size=width),
        sparse=SparseSettings(method="vd", groups=("weight", "word")),
        train=replace(_TRAIN, penalty_weight=float(penalty_weight)),
    )


_WIDE = ModelSettings(embedding_dim=32, hidden_size=8)
_TARGET_TRAIN = replace(_TRAIN, max_epochs=2)
_TARGET_EPOCHS = {"l0": 4, "vd": 2, "magnitude": 2}
"""Closed gates round to zero in a file, so hard concrete meets a size in training: each evaluation sets it right."""


def _targets() -> list[ClassificationRecipe]:
    """Every method, gates of single weights, at each density and size."""
    asked: dict[str, dict[str, Any]] = {
        f"{share:.0%}".replace("%", "pc"): {"target_density": share} for share in DENSITIES
    }
    asked |= {f"{size}kb": {"target_size": f"{size}kB"} for size in SIZES_KB}
    return [
        ClassificationRecipe(
            name=f"imdb-{method}-{name}",
            data=_DATA,
            model=_WIDE,
            sparse=SparseSettings(method=method, groups=("weight",), **target),  # type: ignore[arg-type]
            train=replace(_TARGET_TRAIN, max_epochs=_TARGET_EPOCHS[method]),
        )
        for method in METHODS
        for name, target in asked.items()
    ]


_SMALL = {200: (20_000, 12, 8), 50: (10_000, 4, 8), 20: (3_800, 4, 8)}
"""Words, width of the embedding and units of a dense model whose int8 file takes so many kB."""


def _dense(name: str, max_words: int, embedding_dim: int, hidden_size: int) -> ClassificationRecipe:
    return ClassificationRecipe(
        name=name,
        data=replace(_DATA, max_words=max_words),
        model=ModelSettings(embedding_dim=embedding_dim, hidden_size=hidden_size),
        train=replace(_TARGET_TRAIN, keep="best"),
    )


_VOC = [_voc(weight, width) for weight, width in WIDTHS.items()]
_DENSE = _dense("imdb-dense", _DATA.max_words, _WIDE.embedding_dim, _WIDE.hidden_size)
_SMALL_DENSE = {size: _dense(f"imdb-small-{size}kb", *sizes) for size, sizes in _SMALL.items()}
RECIPES = {recipe.name: recipe for recipe in (*_VOC, *_targets(), _DENSE, *_SMALL_DENSE.values())}
_SEEDS = {"imdb-voc-1": (0, 1, 2)}
"""Three of the row that is compared with the published one."""
ROWS = {
    **{
        recipe.name: ImdbRow(recipe=recipe, seeds=_SEEDS.get(recipe.name, (0,)))
        for recipe in (*_VOC, *_targets(), _DENSE)
    },
    **{recipe.name: ImdbRow(recipe=recipe, max_bytes=1000 * size) for size, recipe in _SMALL_DENSE.items()},
}
"""Rows of the table sparse-imdb."""

DEFAULT_ROWS = tuple(ROWS)
"""Rows that are made where none is named."""
