"""Recipes of text classification."""

from dataclasses import dataclass, field, replace
from typing import Any

from karui.tasks.settings import DataSettings, ModelSettings, SparseSettings
from karui.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe:
    """Everything that decides how a text classifier is trained."""

    name: str = "classification"
    """Name of the recipe."""

    data: DataSettings = field(default_factory=DataSettings)
    """Texts and batches."""

    model: ModelSettings = field(default_factory=ModelSettings)
    """The model."""

    sparse: SparseSettings = field(default_factory=SparseSettings)
    """How weights become zero."""

    train: TrainSettings = field(default_factory=TrainSettings)
    """The training loop."""

    expect: dict[str, float] = field(default_factory=dict)
    """Numbers the recipe should reach, such as test_accuracy; empty where none is known."""


# Where `--sparse vd` begins. The full penalty (weight 1, the evidence bound) prunes a few thousand texts too hard.
CLASSIFICATION_SPARSE = ClassificationRecipe(
    name="classification-sparse",
    data=DataSettings(min_count=2),
    model=ModelSettings(embedding_dim=32, hidden_size=32, embedding_dropout=0.3),
    sparse=SparseSettings(method="vd"),
    train=TrainSettings(max_epochs=20, keep="last", penalty_weight=0.1),
)

# A bidirectional Simple Recurrent Unit of 16 units beside a score a word, taught in part by a linear n-gram model.
_SMALL = ClassificationRecipe(
    data=DataSettings(min_count=2, teacher="linear"),
    sparse=SparseSettings(method="vd"),
    train=TrainSettings(max_epochs=16, keep="last", grad_clip_norm=5.0),
)


def _row(
    name: str, data: str, penalty_weight: float, expect: dict[str, float], **data_settings: Any
) -> ClassificationRecipe:
    """One row of the published table: a set, how hard to prune, and what must come out."""
    return replace(
        _SMALL,
        name=name,
        data=replace(_SMALL.data, name=data, **data_settings),
        train=replace(_SMALL.train, penalty_weight=penalty_weight),
        expect=expect,
    )


_SENTENCES = ModelSettings(embedding_dim=24, hidden_size=24)

IMDB_20KB = _row("imdb-20kb", "imdb", 0.1, {"test_accuracy": 0.883, "artifact_bytes": 20_000}, max_tokens=900)
IMDB_6KB = _row("imdb-6kb", "imdb", 0.5, {"test_accuracy": 0.865, "artifact_bytes": 6_000}, max_tokens=900)
AG_NEWS_25KB = _row("ag-news-25kb", "ag_news", 0.4, {"test_accuracy": 0.887, "artifact_bytes": 25_000})
TREC_100KB = ClassificationRecipe(
    name="trec-100kb",
    data=DataSettings(name="trec", batch_size=16, valid_fraction=0.05),
    model=ModelSettings(
        recurrent="gru",
        embedding_dim=64,
        hidden_size=64,
        embedding_dropout=0.3,
        dropout=0.3,
        linear_share=0.5,
    ),
    sparse=SparseSettings(method="vd"),
    train=TrainSettings(
        max_epochs=30, lr=3e-3, keep="last", penalty_weight=0.03, grad_clip_norm=5.0, weight_averaging=0.999
    ),
    expect={"test_accuracy": 0.89, "artifact_bytes": 100_000},
)
SST2_100KB = replace(
    _row("sst2-100kb", "sst2", 0.3, {"test_accuracy": 0.80, "artifact_bytes": 100_000}, teacher="none"),
    model=_SENTENCES,
)

_ALL = (
    ClassificationRecipe(),
    CLASSIFICATION_SPARSE,
    IMDB_20KB,
    IMDB_6KB,
    AG_NEWS_25KB,
    TREC_100KB,
    SST2_100KB,
)
RECIPES = {recipe.name: recipe for recipe in _ALL}
