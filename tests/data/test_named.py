"""The named sets: formats on tiny stand-ins, counts on the real files where they are (marker `data`)."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karui.data import load_splits, load_test
from karui.data.catalogue import SETS
from karui.errors import UserError
from tests.support.data_sets import place, replace_entry, tar_xz, xz


def test_imdb_from_the_archive(tmp_path, monkeypatch):
    files = {}
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            files |= {
                f"aclImdb/{split}/{label}/{n}_7.txt": f"{split} {label} {n} é".encode() for n in (10, 9, 0, 2)
            }
    files |= {"aclImdb/train/unsup/0_0.txt": b"no label", "aclImdb/README": b"read me"}
    place(monkeypatch, tmp_path, "imdb", {"all": ("aclImdb_labelled.tar.xz", tar_xz(files))})
    replace_entry(monkeypatch, replace(SETS["imdb"], counts={"train": 8, "test": 8}))
    splits = load_splits("imdb", valid_fraction=0.25)
    assert (len(splits.train), len(splits.valid)) == (6, 2)
    assert all(text.startswith("train ") for text in splits.train.texts + splits.valid.texts)
    assert splits.test is not None
    assert splits.test.texts == [f"test {label} {n} é" for label in ("neg", "pos") for n in (0, 2, 9, 10)]
    assert splits.test.labels.tolist() == [0] * 4 + [1] * 4
    assert splits.label_names == ["negative", "positive"]
    replace_entry(monkeypatch, replace(SETS["imdb"], counts={"train": 9, "test": 8}))
    with pytest.raises(UserError, match="8 train reviews, 9 expected"):
        load_splits("imdb")


AG_TEST = '"1","Title one","A ""word""\\new line"\n"4","Title two","Text"\n'


def test_ag_news_subset_never_reads_the_origin_of_a_row(tmp_path, monkeypatch):
    train = "".join(
        f'"{label}","Title {label} the text\\here","pq+dd"\n' for label in (1, 2, 3, 4, 1, 2, 3, 4)
    )
    contents = {"train": ("train_subset_32750.csv.xz", xz(train)), "test": ("test.csv.xz", xz(AG_TEST))}
    place(monkeypatch, tmp_path, "ag_news", contents)
    entry = SETS["ag_news"]
    part = replace(entry.parts[0], files=(replace(entry.parts[0].files[0], subset=True),))
    replace_entry(monkeypatch, replace(entry, parts=(part, entry.parts[1])))
    splits = load_splits("ag_news", valid_fraction=0.5)
    assert splits.subset
    assert splits.train.subset
    assert splits.notes[0] == "train is a SUBSET: 8 of the 120,000 published documents"
    assert splits.train.texts == [f"Title {label} the text here" for label in splits.train.labels + 1]
    assert splits.test is not None
    assert splits.test.texts == ['Title one A "word" new line', "Title two Text"]
    assert splits.test.labels.tolist() == [0, 3]
    assert splits.label_names == ["World", "Sports", "Business", "Sci/Tech"]


def test_ag_news_complete_has_title_and_description(tmp_path, monkeypatch):
    contents = {"train": ("train.csv", AG_TEST.encode() * 2), "test": ("test.csv", AG_TEST.encode())}
    place(monkeypatch, tmp_path, "ag_news", contents)
    splits = load_splits("ag_news", valid_fraction=0.5)
    assert not splits.subset
    assert splits.train.texts == ['Title one A "word" new line', "Title two Text"]


def test_sentences_in_mixed_encodings(tmp_path, monkeypatch):
    trec = {
        "train": ("TREC.train.all.xz", xz("3 who is é ?\n1 what\x85is this ?\n" * 2, "latin-1")),
        "test": ("TREC.test.all", "5 how many é ?\n0 \n".encode()),
    }
    place(monkeypatch, tmp_path, "trec", trec)
    splits = load_splits("trec", valid_fraction=0.5)
    assert splits.train.texts == ["who is é ?", "what\x85is this ?"]  # U+0085 does not end a line
    assert splits.test is not None
    assert splits.test.texts == ["how many é ?", ""]
    assert [splits.label_names[label] for label in splits.test.labels] == ["number", "description"]


def test_folds(tmp_path, monkeypatch):
    content = "".join(f"{n % 2} sentence {n}\n" for n in range(200))
    place(monkeypatch, tmp_path, "cr", {"all": ("custrev.all", content.encode())})
    tests = []
    for fold in range(10):
        splits = load_splits("cr", fold=fold, seed=fold)
        parts = (splits.train, splits.valid, splits.test)
        assert [len(part) for part in parts if part is not None] == [162, 18, 20]
        assert len({text for part in parts if part is not None for text in part.texts}) == 200
        assert splits.notes[0] == f"test: fold {fold} of 10 (cross-validation, shuffle seed 1234)"
        tests.append(splits.test)
    assert len({text for test in tests for text in test.texts}) == 200
    assert load_splits("cr").test.texts == tests[0].texts  # whatever the seed
    assert load_test("cr", ["negative", "positive"], fold=3).texts == tests[3].texts


def sst(monkeypatch, root: Path) -> None:
    sentences = {"train": b"1 a good film\n0 a bad film\n", "valid": b"1 good\n", "test": b"0 bad\n"}
    contents = {role: (f"stsa.binary.{role}", content) for role, content in sentences.items()}
    place(monkeypatch, root, "sst2", contents)
    trees = xz("(4 (2 a) (4 (3 good) (2 film)))\n(1 (2 a) (1 (0 bad) (2 film)))\n")
    place(monkeypatch, root, "sst_trees", {"train": ("train.txt.xz", trees)})


def test_sst_trains_on_phrases_and_is_tested_on_sentences(tmp_path, monkeypatch):
    sst(monkeypatch, tmp_path)
    splits = load_splits("sst2")
    assert splits.train.texts == ["a good film", "good film", "good", "a bad film", "bad film", "bad"]
    assert splits.train.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert (splits.valid.texts, splits.test.texts) == (["good"], ["bad"])
    assert splits.notes[0] == "train: 6 distinct phrases of the 2 training sentences' trees"
    sentences = load_splits("sst2", phrases=False)
    assert sentences.train.texts == ["a good film", "a bad film"]
    (tmp_path / "sst_trees" / "train.txt.xz").unlink()
    assert load_test("sst2", ["negative", "positive"]).texts == ["bad"]  # needs no trees


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("trec", {"fold": 1}, "trec has its own test part: fold is for mr, subj, cr, mpqa"),
        ("cr", {"fold": 10}, "fold must be 0 to 9, got 10"),
        ("cr", {"phrases": True}, "cr has no parse trees: phrases is for sst1, sst2"),
        ("stdlib-docs", {"fold": 1}, "stdlib-docs: fold is for some of the named sets only"),
    ],
)
def test_options_that_do_not_fit(tmp_path, monkeypatch, name, options, message):
    lines = b"0 a\n1 b\n" * 20
    if name == "trec":
        place(monkeypatch, tmp_path, name, {"train": ("a", lines), "test": ("b", lines)})
    elif name == "cr":
        place(monkeypatch, tmp_path, name, {"all": ("a", lines)})
    with pytest.raises(UserError, match=message):
        load_splits(name, **options)


def test_altered_bytes_are_refused(tmp_path, monkeypatch):
    place(monkeypatch, tmp_path, "cr", {"all": ("custrev.all", b"0 a\n1 b\n" * 20)})
    path = tmp_path / "sent_cls" / "custrev.all"
    path.write_bytes(b"1 a\n1 b\n" * 20)
    with pytest.raises(
        UserError, match=r"custrev\.all: not the published file \(sha256 .* expected\); move it away"
    ):
        load_splits("cr")
    path.write_bytes(b"1 a\n")
    with pytest.raises(UserError, match=r"not the published file \(4 bytes, 160 expected\)"):
        load_splits("cr")


# --- the real files -----------------------------------------------------------------------------------------------


@pytest.fixture
def real_data():
    if not os.environ.get("KARUI_DATA"):
        pytest.skip("KARUI_DATA is not set: the published sets are not here")


PUBLISHED = {
    "imdb": (25_000, None, 25_000),
    "trec": (5_452, None, 500),
    "mr": (10_662, None, None),
    "subj": (10_000, None, None),
    "cr": (3_775, None, None),
    "mpqa": (10_606, None, None),
    "sst1": (8_544, 1_101, 2_210),
    "sst2": (6_920, 872, 1_821),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(real_data, name):
    train, valid, test = PUBLISHED[name]
    options = {"phrases": False} if name.startswith("sst") else {}
    splits = load_splits(name, **options)
    assert splits.test is not None
    assert not splits.subset
    if test is None:
        assert len(splits.train) + len(splits.valid) + len(splits.test) == train
    elif valid is None:
        assert (len(splits.train) + len(splits.valid), len(splits.test)) == (train, test)
    else:
        assert (len(splits.train), len(splits.valid), len(splits.test)) == (train, valid, test)
    assert np.bincount(splits.train.labels, minlength=len(splits.label_names)).min() > 0


@pytest.mark.data
def test_ag_news_counts(real_data):
    splits = load_splits("ag_news")
    assert len(splits.test) == 7_600
    assert list(splits.test.class_counts().values()) == [1_900] * 4
    expected = 32_750 if splits.subset else 120_000
    assert len(splits.train) + len(splits.valid) == expected
    assert not any(text.endswith((" pq", " dd", " linc")) for text in splits.train.texts)


@pytest.mark.data
@pytest.mark.parametrize(("name", "count"), [("sst1", 157_401), ("sst2", 77_201)])
def test_phrases_of_the_treebank(real_data, name, count):
    splits = load_splits(name)
    assert len(splits.train) == count
    assert len(set(zip(splits.train.texts, splits.train.labels.tolist(), strict=True))) == count


@pytest.mark.data
def test_imdb_has_both_ends_right(real_data):
    splits = load_splits("imdb")
    assert splits.test.class_counts() == {"negative": 12_500, "positive": 12_500}
    assert splits.valid.class_counts() == {"negative": 1_250, "positive": 1_250}
    assert splits.test.texts[0].startswith("Once again Mr. Costner has dragged out a movie")
    assert splits.train.texts[0].startswith("Story of a man who has unnatural feelings for a pig")
    assert (len(splits.train), len(splits.valid)) == (22_500, 2_500)
