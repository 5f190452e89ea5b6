"""Recipes of the sequence tasks: pixels, music, adding, copy."""

from dataclasses import dataclass, field
from typing import Literal

from karui.tasks.sequence_settings import AddingData, CopyData, LayerSettings, MusicData, PixelData
from karui.tasks.settings import SparseSettings
from karui.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class PixelRecipe:
    """Everything that decides how images are learned pixel by pixel."""

    task: Literal["pixels"] = "pixels"
    """The task."""

    name: str = "pixels"
    """Name of the recipe."""

    data: PixelData = field(default_factory=PixelData)
    """Images and batches."""

    model: LayerSettings = field(default_factory=LayerSettings)
    """The recurrent layer."""

    sparse: SparseSettings = field(default_factory=SparseSettings)
    """How weights become zero."""

    train: TrainSettings = field(default_factory=TrainSettings)
    """The training loop."""


@dataclass(frozen=True, kw_only=True)
class MusicRecipe:
    """Everything that decides how polyphonic music is learned."""

    task: Literal["music"] = "music"
    """The task."""

    name: str = "music"
    """Name of the recipe."""

    data: MusicData = field(default_factory=MusicData)
    """Sequences and batches."""

    model: LayerSettings = field(default_factory=LayerSettings)
    """The recurrent layer."""

    sparse: SparseSettings = field(default_factory=SparseSettings)
    """How weights become zero."""

    train: TrainSettings = field(default_factory=TrainSettings)
    """The training loop."""


@dataclass(frozen=True, kw_only=True)
class AddingRecipe:
    """Everything that decides how the adding problem is learned."""

    task: Literal["adding"] = "adding"
    """The task."""

    name: str = "adding"
    """Name of the recipe."""

    data: AddingData = field(default_factory=AddingData)
    """Length and batches."""

    model: LayerSettings = field(default_factory=LayerSettings)
    """The recurrent layer."""

    sparse: SparseSettings = field(default_factory=SparseSettings)
    """How weights become zero."""

    train: TrainSettings = field(default_factory=TrainSettings)
    """The training loop."""


@dataclass(frozen=True, kw_only=True)
class CopyRecipe:
    """Everything that decides how the copy problem is learned."""

    task: Literal["copy"] = "copy"
    """The task."""

    name: str = "copy"
    """Name of the recipe."""

    data: CopyData = field(default_factory=CopyData)
    """Delay and batches."""

    model: LayerSettings = field(default_factory=LayerSettings)
    """The recurrent layer."""

    sparse: SparseSettings = field(default_factory=SparseSettings)
    """How weights become zero."""

    train: TrainSettings = field(default_factory=TrainSettings)
    """The training loop."""


SequenceRecipe = PixelRecipe | MusicRecipe | AddingRecipe | CopyRecipe
