import gzip
import struct

import numpy as np
import pytest

from karui.data import load_splits
from karui.data.mnist import load_mnist, pooled, read_idx
from karui.data.storage import data_root
from karui.errors import UserError
from tests.support.data_sets import place
from tests.support.sequence_sets import idx, place_mnist


def test_images_and_labels(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path)
    images, labels = load_mnist("train")
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == (
        (40, 28, 28),
        np.uint8,
        (40,),
        np.int64,
    )
    assert ((images[:, :, :14].mean((1, 2)) == 200) == (labels == 1)).all()
    assert len(load_mnist("test")[1]) == 10


HEADER = bytes([0, 0, 8, 1])
BAD = {
    "empty": (b"", "begins with nothing"),
    "no gzip": (b"plain bytes", "not a whole gzip file"),
    "cut gzip": (idx(np.zeros(5000, np.uint8))[:-9], "not a whole gzip file"),
    "short header": (gzip.compress(HEADER), "begins with 00 00 08 01"),
    "other type": (
        gzip.compress(bytes([0, 0, 13, 1]) + struct.pack(">I", 1) + b"abcd"),
        "begins with 00 00 0d 01",
    ),
    "more axes": (idx(np.zeros((2, 2), np.uint8)), "no idx file of bytes with 1 axes"),
    "too few": (
        gzip.compress(HEADER + struct.pack(">I", 9) + b"12345678"),
        "promises 9 values of shape (9,), holds 8",
    ),
    "too many": (
        gzip.compress(HEADER + struct.pack(">I", 2) + b"123"),
        "promises 2 values of shape (2,), holds more",
    ),
    "a bomb": (gzip.compress(HEADER + struct.pack(">I", 2**32 - 1) + b"1"), "more than 268,435,456"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_odd_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="labels.gz") as raised:
        read_idx(path, num_axes=1)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_set_has_no_values(tmp_path):
    (tmp_path / "none.gz").write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))
    assert read_idx(tmp_path / "none.gz", num_axes=3).shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((40, 28, 28)), np.zeros(39), "40 images and 39 labels, 40 of both expected"),
        (np.zeros((40, 28, 27)), np.zeros(40), "28 by 27 pixels are not square"),
        (np.zeros((40, 28, 28)), np.full(40, 10), "holds the label 10, 0 to 9 expected"),
    ],
)
def test_files_that_do_not_fit_each_other(tmp_path, monkeypatch, images, labels, message):
    place_mnist(monkeypatch, tmp_path)
    contents = {
        "train-images": ("i.gz", idx(images.astype(np.uint8))),
        "train-labels": ("l.gz", idx(labels.astype(np.uint8))),
    }
    place(monkeypatch, tmp_path, "mnist", contents)
    with pytest.raises(UserError, match=message):
        load_mnist("train")


def test_pooling_is_the_mean_of_four():
    images = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    assert pooled(images).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


def test_images_are_no_texts():
    with pytest.raises(UserError, match="mnist holds images, not labelled texts"):
        load_splits("mnist")


@pytest.mark.data
def test_the_published_files():
    if not (data_root() / "mnist").is_dir():
        pytest.skip("no mnist below the data root")
    images, labels = load_mnist("train")
    assert images.shape == (60000, 28, 28)
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(load_mnist("test")[1]).sum() == 10000
