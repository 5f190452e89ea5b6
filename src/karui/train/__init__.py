"""The training loop: settings, the loop itself, checkpoints, metrics. A task is known by its Protocol only.

Names are found on first use: `karui.train.settings` alone must not import torch, recipes are read without it.
"""

from typing import TYPE_CHECKING

from karui.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
