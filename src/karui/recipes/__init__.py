"""Recipes: frozen, named settings. Each module of `_MODULES` holds `RECIPES` by name."""

import difflib
import importlib
from typing import Any

from karui.errors import UserError

# The modules that hold recipes; none of them may import torch.
_MODULES = ("classification", "imdb_sparse", "pixels", "images", "music", "synthetic", "language")


def names() -> list[str]:
    """Return the names of all recipes."""
    return list(_all())


def get(name: str) -> Any:
    """Return a recipe by name.

    Raises:
        UserError: there is no such recipe; the message proposes the nearest one.
    """
    recipes = _all()
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the recipes are {', '.join(recipes)}"
        raise UserError(f"no recipe {name!r}; {hint}")
    return recipes[name]


def _all() -> dict[str, Any]:
    recipes: dict[str, Any] = {}
    for module in _MODULES:
        recipes |= importlib.import_module(f"karui.recipes.{module}").RECIPES
    return recipes
