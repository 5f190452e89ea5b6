"""The counts of the One Billion Word benchmark: read where they are, refused where they are others."""

import lzma
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from karui.data import lm1b
from karui.errors import UserError


def packed(counts: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, counts)
    return lzma.compress(stream.getvalue(), preset=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KARUI_DATA", str(tmp_path))
    (tmp_path / lm1b.NAME).mkdir()
    return tmp_path / lm1b.NAME


def test_without_the_file_there_are_none(folder: Path) -> None:
    assert lm1b.lm1b_counts() is None


def test_counts_of_the_right_sum_are_read(folder: Path) -> None:
    counts = np.full(lm1b.CLASSES, 3, np.int32)
    counts[7] = lm1b.TOTAL - 3 * (lm1b.CLASSES - 1)
    (folder / "word_freq_int32.npy.xz").write_bytes(packed(counts))
    found = lm1b.lm1b_counts()
    assert found is not None
    assert found.dtype == np.int64
    assert found[7] == counts[7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(np.ones(5, np.int32)), "5 counts with the sum 5, 793471 with 829250940 expected"),
        (b"no archive", "is damaged"),
        (packed(np.ones(5, np.int32))[:-20], "is damaged"),
        (lzma.compress(b"no array"), "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_other_files_are_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "word_freq_int32.npy.xz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        lm1b.lm1b_counts()


@pytest.mark.data
def test_the_published_counts() -> None:
    counts = lm1b.lm1b_counts()
    if counts is None:
        pytest.skip("lm1b_unigram is not below KARUI_DATA")
    assert counts.min() == 3
