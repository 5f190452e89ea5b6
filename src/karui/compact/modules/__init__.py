"""Any user's module, made smaller: `compact_module`, and its file."""

from typing import TYPE_CHECKING

from karui.lazy import lazy_names

if TYPE_CHECKING:
    from karui.compact.modules.compact import compact_module
    from karui.compact.modules.file import load_compacted, save_compacted
    from karui.compact.modules.report import Compaction

__all__ = ["Compaction", "compact_module", "load_compacted", "save_compacted"]

_HOMES = {
    "Compaction": "karui.compact.modules.report",
    "compact_module": "karui.compact.modules.compact",
    "load_compacted": "karui.compact.modules.file",
    "save_compacted": "karui.compact.modules.file",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
