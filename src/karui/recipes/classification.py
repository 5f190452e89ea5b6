"""Recipes of text classification."""

from dataclasses import dataclass, field

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


RECIPES = {
    "classification": ClassificationRecipe(),
    "classification-sparse": ClassificationRecipe(
        name="classification-sparse", sparse=SparseSettings(method="vd")
    ),
}
