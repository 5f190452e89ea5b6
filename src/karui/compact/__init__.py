"""Trained model to exactly equivalent smaller model to artifact.

Names are found on first use: figures of an artifact need no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karui.compact.build import Compacted, compact
    from karui.compact.choose import Wish
    from karui.compact.convert import to_spec
    from karui.compact.prove import Proof, prove
    from karui.compact.shrink import shrink

__all__ = ["Compacted", "Proof", "Wish", "compact", "prove", "shrink", "to_spec"]

_HOMES = {
    "Compacted": "karui.compact.build",
    "Proof": "karui.compact.prove",
    "Wish": "karui.compact.choose",
    "compact": "karui.compact.build",
    "prove": "karui.compact.prove",
    "shrink": "karui.compact.shrink",
    "to_spec": "karui.compact.convert",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'karui.compact' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
