"""A row of a table that is searched for: a recipe, and how its settings are chosen on validation."""

from dataclasses import dataclass, field

from karui.recipes.sequences import SequenceRecipe


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Short trials that choose settings; the same for every row of a table but for the gate a layer may lack."""

    trials: int = 8
    """Trials, each a run of its own."""

    epochs: int = 1
    """Passes of a trial over its examples."""

    examples: int = 0
    """Training images or sequences of a trial; 0 = all."""

    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Dotted setting -> lowest and highest value; drawn on a logarithmic scale where the lowest is above 0."""

    seed: int = 0
    """Seed of the draws and of every trial."""

    def __post_init__(self) -> None:
        for name in ("trials", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name, (low, high) in self.ranges.items():
            if not low < high:
                raise ValueError(f"ranges.{name} must rise, got {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: the recipe it begins with, the search, and the seeds of its final runs."""

    recipe: SequenceRecipe
    """What the trials and the final runs have in common."""

    search: SearchSettings
    """How the searched settings are chosen."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of the final runs."""
