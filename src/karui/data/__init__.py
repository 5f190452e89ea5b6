"""Texts and labels: readers, named sets, vocabulary and batches. numpy only; `datasets` where a reader needs it."""

from karui.data.dataset import Splits, TextDataset
from karui.data.load import load_splits

__all__ = ["Splits", "TextDataset", "load_splits"]
