"""Texts and labels: readers, named sets, vocabulary and batches.

Needs numpy and the native core; `datasets` only where a reader of Parquet or the Hub is called.
"""

from karui.data.batching import EncodedDataset, LengthBuckets, collate, encode_dataset, ordered_batches
from karui.data.dataset import Splits, TextDataset
from karui.data.load import load_splits, load_test
from karui.data.vocabulary import Vocabulary

__all__ = [
    "EncodedDataset",
    "LengthBuckets",
    "Splits",
    "TextDataset",
    "Vocabulary",
    "collate",
    "encode_dataset",
    "load_splits",
    "load_test",
    "ordered_batches",
]
