"""Trained model to exactly equivalent smaller model to artifact.

Names are found on first use: figures of an artifact need no torch.
"""

from typing import TYPE_CHECKING

from karui.lazy import lazy_names

if TYPE_CHECKING:
    from karui.compact.build import Compacted, compact
    from karui.compact.choose import Wish
    from karui.compact.convert import to_spec
    from karui.compact.modules.compact import compact_module
    from karui.compact.modules.file import load_compacted, save_compacted
    from karui.compact.modules.report import Compaction
    from karui.compact.prove import Proof, prove
    from karui.compact.shrink import shrink

__all__ = [
    "Compacted",
    "Compaction",
    "Proof",
    "Wish",
    "compact",
    "compact_module",
    "load_compacted",
    "prove",
    "save_compacted",
    "shrink",
    "to_spec",
]

_HOMES = {
    "Compacted": "karui.compact.build",
    "Compaction": "karui.compact.modules.report",
    "Proof": "karui.compact.prove",
    "Wish": "karui.compact.choose",
    "compact": "karui.compact.build",
    "compact_module": "karui.compact.modules.compact",
    "load_compacted": "karui.compact.modules.file",
    "prove": "karui.compact.prove",
    "save_compacted": "karui.compact.modules.file",
    "shrink": "karui.compact.shrink",
    "to_spec": "karui.compact.convert",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
