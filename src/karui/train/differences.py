"""Where two recipes differ, in words."""

from collections.abc import Mapping
from typing import Any


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return "train.lr was 0.004 and is 0.01 now" for the first field that differs, None if none does."""
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inner = first_difference(before, after)
            if inner is not None:
                return f"{name}.{inner}"
        elif before != after or (name in old) != (name in new):
            return f"{name} was {_word(old, name)} and is {_word(new, name)} now"
    return None


def _word(recipe: Mapping[str, Any], name: str) -> str:
    return repr(recipe[name]) if name in recipe else "not set"
