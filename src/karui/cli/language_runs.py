"""A finished run of `karui train lm`, opened, and described for its file."""

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


def spec_of(trained: Any, model: Any) -> Any:
    """Describe a model with the words of an opened run for a .karui file (`LanguageModelSpec`).

    model: the one of `trained`, or a copy of it without sparse layers.
    """
    from karui.compact.language import to_language_spec

    return to_language_spec(
        model,
        trained.words,
        eos=trained.eos,
        unk=trained.unk,
        tokenisation=trained.tokenisation,
        lower=trained.lower,
    )
