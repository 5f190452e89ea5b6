"""A finished run of `karui train lm`, opened."""

from pathlib import Path
from typing import Any


def open_language_run(run_dir: Path, *, masked: bool = True) -> tuple[Any, Any]:
    """Return the trained model of a run folder (`karui.tasks.language_run.TrainedLanguage`), and its recipe.

    masked: make a sparse model the plain one that it stands for. Raises UserError where the folder holds no finished
    run of a language model.
    """
    from karui.recipes import base
    from karui.recipes.language import LanguageRecipe
    from karui.tasks.language_run import TrainedLanguage
    from karui.train.checkpoint import FINAL, check_matches, load_weights

    recipe = base.load(LanguageRecipe, run_dir / "config.json")
    trained = TrainedLanguage(run_dir, recipe.model, recipe.sparse)
    weights = load_weights(run_dir)
    check_matches(weights, trained.model.state_dict(), run_dir / "checkpoints" / FINAL)
    trained.model.load_state_dict(weights)
    if masked:
        trained.mask()
    return trained, recipe
