"""Parquet files and the Hub, with data sets made here: nothing is downloaded."""

import math

import pytest

from karui.data import load_splits
from karui.data.hub import read_parquet
from karui.errors import UserError

datasets = pytest.importorskip("datasets", reason="needs karui[train]")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs karui[train]")

FEATURES = datasets.Features(
    {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
)


def made(labels: list[int]):
    texts = [f"text {number}" for number in range(len(labels))]
    return datasets.Dataset.from_dict({"sentence": texts, "label": labels}, features=FEATURES)


@pytest.fixture
def parquet_file(tmp_path):
    """Return a function that writes a table of columns and gives its path."""

    def write(columns: dict[str, list], features=None):
        path = tmp_path / "a.parquet"
        parquet.write_table(datasets.Dataset.from_dict(columns, features=features).data.table, path)
        return path

    return write


def test_parquet_with_strings_numbers_and_null(parquet_file):
    path = parquet_file({"id": [1, 2, 3], "review": ["a", None, "c"], "stars": [1.0, 2.0, 1.0]})
    rows = read_parquet(path)
    assert rows.texts == ["a", "", "c"]
    assert rows.labels == ["1", "2", "1"]
    assert rows.places == ["row 1", "row 2", "row 3"]


def test_parquet_with_class_names(parquet_file):
    path = parquet_file({"sentence": ["a", "b", "c", "d"], "label": [0, 1, 1, 0]}, FEATURES)
    splits = load_splits(path, valid_fraction=0.5)
    assert splits.label_names == ["neg", "pos"]
    assert sorted(splits.train.texts + splits.valid.texts) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "label": [math.nan]}, "row 1: empty label"),
        (
            {"foo": ["a"], "bar": ["b"], "baz": [1]},
            "cannot tell which column is the text; columns found: 'foo', 'bar'",
        ),
    ],
)
def test_defects_of_parquet(parquet_file, columns, message):
    with pytest.raises(UserError, match=message):
        read_parquet(parquet_file(columns))


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(
        UserError, match=r"a\.parquet: not a readable Parquet file \(.*\); write it again"
    ) as caught:
        load_splits(tmp_path / "a.parquet")
    assert "\n" not in str(caught.value)


def test_hub_splits_and_a_test_part_without_labels(monkeypatch):
    asked = []

    def load_dataset(*address):
        asked.append(address)
        return datasets.DatasetDict(train=made([0, 1, 1]), validation=made([1, 0]), test=made([-1, -1]))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    splits = load_splits("hub:glue:sst2")
    assert asked == [("glue", "sst2")]
    assert (len(splits.train), len(splits.valid), splits.test) == (3, 2, None)
    assert splits.label_names == ["neg", "pos"]
    assert splits.notes == ["test is left out: it has no labels"]
    load_splits("owner/name")
    assert asked[1] == ("owner/name", None)


def test_hub_data_without_a_train_part(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict(all=made([0, 1])))
    with pytest.raises(UserError, match="o/n: no split named train; splits found: all"):
        load_splits("o/n")


@pytest.mark.parametrize(
    "error", [ConnectionError("no route\nto host"), FileNotFoundError("x"), ValueError("bad")]
)
def test_an_unreachable_hub_is_one_line(monkeypatch, error):
    def load_dataset(*_):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    expected = (
        r"owner/name: no such file or folder here, and not to be had from the Hub \(.*\); check the name"
    )
    with pytest.raises(UserError, match=expected) as caught:
        load_splits("owner/name")
    assert "\n" not in str(caught.value)


def test_a_local_folder_through_the_real_loader(tmp_path, monkeypatch):
    """The one test that goes through `datasets.load_dataset` itself: the Hub's code path on a local folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "made").mkdir()
    parquet.write_table(made([0, 1, 0, 1]).data.table, tmp_path / "made" / "train.parquet")
    datasets.disable_progress_bars()
    try:
        splits = load_splits("hub:made", valid_fraction=0.5)
    finally:
        datasets.enable_progress_bars()
    assert splits.label_names == ["neg", "pos"]
    assert sorted(splits.train.texts + splits.valid.texts) == [f"text {number}" for number in range(4)]
