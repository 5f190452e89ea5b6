"""`load_splits` and `load_test` on files and folders of the user's own."""

from pathlib import Path

import numpy as np
import pytest

from karui.data import load_splits, load_test
from karui.errors import UserError


def write_table(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]), encoding="utf-8")
    return path


ROWS = [(f"text number {number}", "pos" if number % 3 else "neg") for number in range(60)]


def test_a_file_is_cut_into_train_and_valid(tmp_path):
    path = write_table(tmp_path / "a.csv", ROWS)
    splits = load_splits(path, valid_fraction=0.25, seed=7)
    assert splits.label_names == ["neg", "pos"]
    assert splits.train.class_counts() == {"neg": 15, "pos": 30}
    assert splits.valid.class_counts() == {"neg": 5, "pos": 10}
    assert splits.test is None
    assert sorted(splits.train.texts + splits.valid.texts) == sorted(text for text, _ in ROWS)
    assert splits.notes == ["valid: 15 of 60 training documents, stratified, seed 7"]
    assert not splits.subset
    expected = dict(ROWS)
    for part in (splits.train, splits.valid):
        assert [splits.label_names[label] for label in part.labels] == [expected[text] for text in part.texts]
    again = load_splits(str(path), valid_fraction=0.25, seed=7)
    assert again.valid.texts == splits.valid.texts
    assert load_splits(path, valid_fraction=0.25, seed=8).valid.texts != splits.valid.texts


def test_integer_labels_are_sorted_by_value(tmp_path):
    path = write_table(tmp_path / "a.csv", [(f"t{number}", str(number % 3 * 5)) for number in range(60)])
    assert load_splits(path).label_names == ["0", "5", "10"]


def test_empty_texts_are_kept_and_counted(tmp_path):
    path = write_table(tmp_path / "a.csv", [("", "a"), ("  ", "b"), ("x", "a"), ("y", "b")])
    splits = load_splits(path, valid_fraction=0.5)
    assert len(splits.train) + len(splits.valid) == 4
    assert splits.notes[0] == "2 of 4 texts are empty (kept)"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "a.csv: empty, no rows; give a file with texts and labels"),
        ([("x", "a"), ("y", "a")], r"a.csv: only one class \('a'\) in 2 rows; at least two are needed"),
        ([("x", "a"), ("y", "b")], "a.csv: 2 rows are too few to cut a validation part off"),
        (
            [(f"t{n}", f"id{n}") for n in range(30)],
            "a.csv: 30 distinct labels in 30 rows; .* choose it with --label",
        ),
    ],
)
def test_tables_that_are_no_classification_task(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        load_splits(write_table(tmp_path / "a.csv", rows))


def test_an_empty_file(tmp_path):
    path = tmp_path / "a.csv"
    path.touch()
    with pytest.raises(UserError, match="empty, no rows"):
        load_splits(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "nothing: no such file or folder, and no named set; the named sets are imdb, ag_news"),
        ("imbd", "no named set; did you mean 'imdb'?"),
        ("nothing.csv", "nothing.csv: no such file; check the path"),
        ("nothing.parquet", "nothing.parquet: no such file; check the path"),
        ("./no/such", "no/such: no such file or folder, and no named set"),
        ("sst_trees", "sst_trees: no such file or folder, and no named set"),
    ],
)
def test_names_of_nothing(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_splits(name)
    assert "\n" not in str(caught.value)


def test_unknown_format(tmp_path):
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(UserError, match=r"a\.xlsx: unknown format '\.xlsx'; known are \.csv, \.tsv"):
        load_splits(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 1}, "a.csv: fold is for some of the named sets only"),
        ({"phrases": True}, "a.csv: phrases is for some of the named sets only"),
        ({"valid_fraction": 1.5}, r"valid_fraction must be in \[0, 1\), got 1.5"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        load_splits(write_table(tmp_path / "a.csv", ROWS), **options)


@pytest.mark.parametrize("name", ["imdb", "stdlib-docs"])
def test_columns_are_not_for_named_sets(name):
    with pytest.raises(UserError, match=f"{name} is a named set: text and label are for files of your own"):
        load_splits(name, label="stars")


def test_evaluation_takes_a_whole_file_with_the_trained_labels(tmp_path):
    path = write_table(tmp_path / "a.csv", [("x", "pos"), ("y", "pos")])  # one class is fine here
    test = load_test(path, ["neg", "neutral", "pos"])
    assert test.labels.tolist() == [2, 2]
    assert test.labels.dtype == np.int64
    assert test.label_names == ["neg", "neutral", "pos"]


def test_evaluation_names_an_unknown_label_by_its_line(tmp_path):
    path = write_table(tmp_path / "a.csv", [("x", "pos"), ("y", "positive")])
    expected = r"a\.csv: line 3: unknown label 'positive'; the trained labels are neg, pos; correct the label"
    with pytest.raises(UserError, match=expected):
        load_test(path, ["neg", "pos"])


def make_folder(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_folder_of_label_folders(tmp_path):
    files = {
        f"{label}/{number}.txt": f"{label} {number}\nsecond line" for label in "ab" for number in range(4)
    }
    splits = load_splits(make_folder(tmp_path, {**files, "a/.hidden": "no", ".git/x": "no", "readme": "no"}))
    assert splits.label_names == ["a", "b"]
    assert (len(splits.train), len(splits.valid), splits.test) == (6, 2, None)
    assert "a 3\nsecond line" in splits.train.texts + splits.valid.texts


def test_folder_with_train_test_and_unlabelled_texts(tmp_path):
    files = {
        f"train/{label}/{number}": f"{label}{number}"
        for label in ("neg", "pos", "unsup")
        for number in range(2)
    }
    splits = load_splits(
        make_folder(tmp_path, {**files, "test/pos/0": "p", "test/neg/0": "n"}), valid_fraction=0.5
    )
    assert splits.label_names == ["neg", "pos"]
    assert splits.test is not None
    assert list(zip(splits.test.texts, splits.test.labels, strict=True)) == [("n", 0), ("p", 1)]
    assert splits.notes[0] == "unsup is passed over: texts without a label"
    assert load_test(tmp_path, ["pos", "neg"]).labels.tolist() == [1, 0]


def test_folder_of_tables_with_its_own_valid_part(tmp_path):
    write_table(tmp_path / "train.csv", ROWS)
    (tmp_path / "dev.jsonl").write_text('{"text": "d", "label": "pos"}', encoding="utf-8")
    splits = load_splits(tmp_path)
    assert (len(splits.train), splits.valid.texts, splits.test) == (60, ["d"], None)


def test_a_label_of_the_test_part_that_training_lacks(tmp_path):
    write_table(tmp_path / "train.csv", ROWS)
    write_table(tmp_path / "test.csv", [("x", "pos"), ("y", "other")])
    with pytest.raises(UserError, match=r"test\.csv: line 3: unknown label 'other'"):
        load_splits(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "x"}, "no sub-folders; put the texts of each label into a folder named after it"),
        ({"test/a/1": "x"}, "has test but no train part; add a folder or file named train"),
        ({"a/1": "x", "a/2": "x"}, r"only one class \('a'\) in 2 rows"),
    ],
)
def test_folders_that_hold_no_task(tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        load_splits(make_folder(tmp_path, files))


def test_a_text_file_that_is_not_utf8_is_named(tmp_path):
    make_folder(tmp_path, {"a/1.txt": "x", "b/1.txt": "y"})
    (tmp_path / "b" / "2.txt").write_bytes(b"fine\nnot \xe9\n")
    with pytest.raises(UserError, match=r"b/2\.txt: line 2: not UTF-8 \(byte 0xe9\)"):
        load_splits(tmp_path)
