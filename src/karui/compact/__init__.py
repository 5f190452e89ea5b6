"""Trained model to exactly equivalent smaller model to artifact.

Names are found on first use: figures of an artifact need no torch.
"""

from typing import TYPE_CHECKING

from karui.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
