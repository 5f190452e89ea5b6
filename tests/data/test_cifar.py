import io

import numpy as np
import pytest
from PIL import Image

from karui.data.catalogue import SETS
from karui.data.cifar import load_cifar
from karui.data.storage import data_root
from karui.errors import UserError
from tests.support.data_sets import place
from tests.support.image_sets import (
    cifar_archive,
    place_cifar,
    place_subset,
    records,
    replace_sheet,
    sheet,
    tar_gz,
)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_binary_archives(tmp_path, monkeypatch, name, classes):
    place_cifar(monkeypatch, tmp_path, name, train=120, test=30)
    images, labels = load_cifar(name, "train")
    assert (images.shape, images.dtype, labels.dtype) == ((120, 3, 32, 32), np.uint8, np.int64)
    assert labels.tolist() == [
        number % classes for number in range(120)
    ]  # the fine label, in the published order
    assert (images[:, 0, 0, 0] == labels).all()
    assert load_cifar(name, "test")[1].tolist() == [number % classes for number in range(30)]


def test_planes_and_rows_keep_their_places(tmp_path, monkeypatch):
    place_cifar(monkeypatch, tmp_path)
    content = bytes([3]) + bytes(range(256)) * 12
    files = {f"cifar-10-batches-bin/data_batch_{n}.bin": content * 8 for n in range(1, 6)}
    place(monkeypatch, tmp_path, "cifar10", {"all": ("cifar-10-binary.tar.gz", tar_gz(files))})
    images, labels = load_cifar("cifar10", "train")
    assert set(labels.tolist()) == {3}
    assert images[0, 1, 2, 5] == (1024 + 2 * 32 + 5) % 256


ARCHIVE = cifar_archive("cifar10")
TRAIN = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)]
EIGHT = records(np.arange(8), classes=10)
BAD_ARCHIVES = {
    "no archive": (b"plain bytes", "not a whole archive"),
    "cut": (ARCHIVE[: len(ARCHIVE) // 2], "not a whole archive"),
    "a file is missing": (tar_gz(dict.fromkeys(TRAIN[:4], EIGHT)), "holds no .*data_batch_5.bin"),
    "half a record": (tar_gz(dict.fromkeys(TRAIN, EIGHT[:-1])), "no whole number of records of 3,073"),
    "a label too large": (
        tar_gz(dict.fromkeys(TRAIN, bytes([10]) + EIGHT[1:])),
        "holds the label 10, 0 to 9 expected",
    ),
    "too few": (tar_gz(dict.fromkeys(TRAIN, EIGHT[:3073])), "5 train images, 40 expected"),
}


@pytest.mark.parametrize(("content", "message"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES.keys())
def test_odd_archives_are_one_line(tmp_path, monkeypatch, content, message):
    place_cifar(monkeypatch, tmp_path)
    place(monkeypatch, tmp_path, "cifar10", {"all": ("cifar-10-binary.tar.gz", content)})
    with pytest.raises(UserError, match=message) as raised:
        load_cifar("cifar10", "train")
    assert "\n" not in str(raised.value)


def test_the_sheets_of_the_subset(tmp_path, monkeypatch):
    place_subset(monkeypatch, tmp_path, classes=3, each=4)
    images, labels = load_cifar("cifar10_subset", "train")
    assert labels.tolist() == [0, 1, 2] * 4  # any stretch holds all classes
    assert (images[:, 0, 0, 0] == labels).all()
    assert images[:, 1, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len(load_cifar("cifar10_subset", "test")[1]) == 12


def test_a_position_counts_along_the_row(tmp_path, monkeypatch):
    line = "sheet\tposition\tlabel\n"
    line += "".join(f"{s}_{c}_kind_0.png\t51\t{c}\n" for s in ("train", "test") for c in (0, 1))
    place_subset(monkeypatch, tmp_path, table=line)
    cells = np.zeros((100, 3, 32, 32), np.uint8)
    cells[51, 2, 7, 9] = 201
    replace_sheet(monkeypatch, tmp_path, "train_0_kind_0", sheet(cells))
    monkeypatch.setitem(SETS["cifar10_subset"].counts, "train", 2)
    images, _ = load_cifar("cifar10_subset", "train")
    assert images[0, 2, 7, 9] == 201
    assert images[0].sum() == 201


def test_a_subset_that_nobody_serves_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("KARUI_DATA", str(tmp_path))
    with pytest.raises(UserError, match="cifar10_subset: no address serves index.tsv.xz"):
        load_cifar("cifar10_subset", "train")


BAD_TABLES = {
    "not compressed well": ("", "names no image of the train sheets"),
    "no such columns": ("a\tb\n1\t2\n", "no table of sheet, position and label"),
    "no number": ("sheet\tposition\tlabel\nx.png\tone\t2\n", "no table of sheet, position and label"),
    "far position": (
        "sheet\tposition\tlabel\ntrain_0_kind_0.png\t1000\t0\n",
        "line 2 names position 1000 and label 0",
    ),
    "odd label": ("sheet\tposition\tlabel\ntrain_0_kind_0.png\t0\t10\n", "label 10; 0 to 999 and 0 to 9"),
    "too few": ("sheet\tposition\tlabel\ntrain_0_kind_0.png\t0\t0\n", "1 train images, 12 expected"),
}


@pytest.mark.parametrize(("table", "message"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_odd_tables_are_one_line(tmp_path, monkeypatch, table, message):
    place_subset(monkeypatch, tmp_path, table=table)
    with pytest.raises(UserError, match=message):
        load_cifar("cifar10_subset", "train")


def png(mode: str, size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "PNG")
    return stream.getvalue()


WHOLE = png("RGB", (1600, 640))
BAD_SHEETS = {
    "no picture": (b"words", "not a whole PNG"),
    "cut": (WHOLE[: len(WHOLE) // 2], "not a whole PNG"),
    "grey": (png("L", (1600, 640)), "L of 1600 by 640 pixels, RGB of 1600 by 640 expected"),
    "another size": (png("RGB", (32, 32)), "RGB of 32 by 32 pixels"),
}


@pytest.mark.parametrize(("content", "message"), BAD_SHEETS.values(), ids=BAD_SHEETS.keys())
def test_odd_sheets_are_one_line(tmp_path, monkeypatch, content, message):
    place_subset(monkeypatch, tmp_path)
    replace_sheet(monkeypatch, tmp_path, "train_1_kind_0", content)
    with pytest.raises(UserError, match=message):
        load_cifar("cifar10_subset", "train")


def test_an_unknown_name():
    with pytest.raises(UserError, match="no CIFAR set 'cifar'"):
        load_cifar("cifar", "train")


@pytest.mark.data
def test_the_real_subset():
    if not (data_root() / "cifar10_subset").is_dir():
        pytest.skip("no cifar10_subset below the data root")
    images, labels = load_cifar("cifar10_subset", "test")
    assert np.bincount(labels).tolist() == [1000] * 10
    # channel means of the published test split
    assert images.mean((0, 2, 3)) / 255 == pytest.approx([0.4942, 0.4851, 0.4504], abs=1e-4)
