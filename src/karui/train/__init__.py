"""The training loop: settings, the loop itself, checkpoints, metrics. A task is known by its Protocol only.

Names are found on first use: `karui.train.settings` alone must not import torch, recipes are read without it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karui.train.checkpoint import load_weights
    from karui.train.loop import FitResult, fit
    from karui.train.protocol import Task
    from karui.train.settings import TrainSettings

__all__ = ["FitResult", "Task", "TrainSettings", "fit", "load_weights"]

_HOMES = {
    "FitResult": "karui.train.loop",
    "Task": "karui.train.protocol",
    "TrainSettings": "karui.train.settings",
    "fit": "karui.train.loop",
    "load_weights": "karui.train.checkpoint",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'karui.train' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
