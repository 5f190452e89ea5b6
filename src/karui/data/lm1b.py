"""Unigram counts of the One Billion Word benchmark (Chelba et al. 2014), without its text: 793,471 words.

The counts that rdspring1/PyTorch_GBW_LM publishes, in the order of its word list, which is not that of frequency.
"""

import io
import lzma

import numpy as np

from karui.data.storage import data_root
from karui.errors import UserError

NAME = "lm1b_unigram"
CLASSES = 793_471
TOTAL = 829_250_940
_FILE = "word_freq_int32.npy"


def lm1b_counts() -> np.ndarray | None:
    """Return the counts, (793471,) int64, or None where the set is not below the data root.

    Raises:
        UserError: the file there is not the one expected.
    """
    folder = data_root() / NAME
    packed, plain = folder / f"{_FILE}.xz", folder / _FILE
    path = plain if plain.is_file() else packed
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        content = content if path is plain else lzma.decompress(content)
        counts = np.load(io.BytesIO(content), allow_pickle=False).astype(np.int64)
    except (ValueError, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again or take it away") from error
    if counts.shape != (CLASSES,) or counts.sum() != TOTAL:
        raise UserError(
            f"{path}: {counts.size} counts with the sum {counts.sum()}, {CLASSES} with {TOTAL} expected"
        )
    return counts
