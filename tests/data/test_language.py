"""Running texts: parts, vocabulary, ids, and what is said about bad ones."""

import gzip
import io
import lzma
import tarfile

import numpy as np
import pytest

from karui.data import wikipedia
from karui.data.language import Interner, build_corpus
from karui.data.language_sets import blocks, load_language, read_lines_of
from karui.errors import UserError

LINES = ["the cat sat", "the dog sat", "a cat ran", "the end"] * 10


def written(path, text, opener=open):
    with opener(path, "wb") as stream:
        stream.write(text.encode() if isinstance(text, str) else text)
    return str(path)


def words_of(corpus, split):
    return [corpus.words[k] for k in corpus.split(split)]


def folder_of(path, **texts):
    for name, text in texts.items():
        written(path / f"{name}.txt", text)
    return str(path)


def test_folder_parts_become_ids_by_falling_count(tmp_path):
    name = folder_of(tmp_path, train="b a b\nb a c\n", valid="a c\n", test="b zebra\nc\n")
    corpus = load_language(name)
    assert corpus.words == ["b", "</s>", "a", "c", "<unk>"]
    assert corpus.counts.tolist() == [3, 2, 2, 1, 0]
    assert words_of(corpus, "train") == ["b", "a", "b", "</s>", "b", "a", "c", "</s>"]
    assert words_of(corpus, "valid") == ["a", "c", "</s>"]
    assert words_of(corpus, "test") == ["b", "<unk>", "</s>", "c", "</s>"]
    assert corpus.train.dtype == np.int32
    assert corpus.outside == {"train": 0, "valid": 0, "test": 1}
    assert any("1 tokens of the test part are <unk>" in note for note in corpus.notes)
    assert corpus.words[corpus.unk] == "<unk>"
    assert corpus.words[corpus.eos] == "</s>"


def test_rare_words_become_unknown_by_the_counts_of_the_training_part_alone(tmp_path):
    name = folder_of(tmp_path, train="b b a\n", valid="a a a\n", test="b\n")
    corpus = load_language(name, min_count=2)
    assert set(corpus.words) == {"b", "</s>", "<unk>"}
    assert words_of(corpus, "valid") == ["<unk>"] * 3 + ["</s>"]
    assert corpus.counts[corpus.unk] == 1


def test_max_words_keeps_the_most_frequent(tmp_path):
    name = folder_of(tmp_path, train="a a a b b c\n", valid="a\n", test="a\n")
    assert set(load_language(name, max_words=2).words) == {"a", "b", "</s>", "<unk>"}


def test_a_written_unknown_word_is_the_one_token(tmp_path):
    name = folder_of(tmp_path, train="a <unk> b\n", valid="zz\n", test="a\n")
    corpus = load_language(name, tokens="blank")
    assert corpus.counts[corpus.unk] == 1
    assert words_of(corpus, "valid") == ["<unk>", "</s>"]


def test_limit_cuts_the_training_part(tmp_path):
    name = folder_of(tmp_path, train="a b c d e f\n", valid="a\n", test="a\n")
    assert len(load_language(name, limit=4).train) == 4


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [("blank", ["Don't", "stop,", "now!", "</s>"]), ("text", ["Don't", "stop", ",", "now", "!", "</s>"])],
)
def test_tokens(tmp_path, tokens, expected):
    name = folder_of(tmp_path, train="Don't stop, now!\n", valid="x\n", test="x\n")
    assert words_of(load_language(name, tokens=tokens), "train") == expected


def test_characters_with_lines_ended_by_the_end_token(tmp_path):
    name = folder_of(tmp_path, train="ab a\r\nb", valid="a\n", test="é\n")
    corpus = load_language(name, level="char")
    assert words_of(corpus, "train") == ["a", "b", " ", "a", "</s>", "b", "</s>"]
    assert words_of(corpus, "test") == ["<unk>", "</s>"]
    assert load_language(name, level="char", lower=True).train.tolist() == corpus.train.tolist()


def test_lower_case_before_counting(tmp_path):
    name = folder_of(tmp_path, train="Ab aB\n", valid="AB\n", test="ab\n")
    corpus = load_language(name, lower=True)
    assert corpus.counts[corpus.words.index("ab")] == 2


@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".gz", gzip.open), (".xz", lzma.open)])
def test_one_file_is_cut_into_blocks_of_lines(tmp_path, suffix, opener):
    name = written(tmp_path / f"text.txt{suffix}", "\n".join(LINES), opener)
    corpus = load_language(name, valid_fraction=0.1)
    assert words_of(corpus, "test").count("</s>") == 4
    assert words_of(corpus, "train") == " </s> ".join([*LINES[:32], ""]).split()


def test_blocks_hold_every_line_once():
    parts, _ = blocks("\n".join(LINES), "x", 0.05)
    assert "".join(parts[split] for split in ("train", "valid", "test")).splitlines() == LINES


def test_missing_parts_of_a_folder_are_cut_off(tmp_path):
    name = folder_of(tmp_path, train="\n".join(LINES), test="the cat\n")
    corpus = load_language(name, valid_fraction=0.1)
    assert words_of(corpus, "test") == ["the", "cat", "</s>"]
    assert words_of(corpus, "valid").count("</s>") == 4
    assert words_of(corpus, "train").count("</s>") == 36


def test_names_with_the_split_inside(tmp_path):
    for split in ("train", "valid", "test"):
        written(tmp_path / f"my.{split}.tokens.gz", f"{split} a\n", gzip.open)
    assert words_of(load_language(str(tmp_path)), "valid") == ["<unk>", "a", "</s>"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no text"),
        (b" \n\n", "holds no text"),
        (b"fine\nb\xe4d\n", "line 2: not UTF-8 (byte 0xe4)"),
        (b"\xff\xfea\x00", "UTF-16"),
        (b"a\0b\n", "line 1: NUL byte"),
        (b"one line\n", "1 line, too few"),
    ],
)
def test_bad_files_are_one_line(tmp_path, content, message):
    name = written(tmp_path / "bad.txt", content)
    with pytest.raises(UserError) as caught:
        load_language(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_sources_are_one_line(tmp_path):
    cut = written(tmp_path / "cut.txt.xz", lzma.compress(b"a b\n" * 500)[:60])
    for name, message in [
        (cut, "damaged or cut"),
        (str(tmp_path / "none.txt"), "no such file"),
        ("ptbb", "did you mean 'ptb'?"),
        ("mnist", "holds images, not running text"),
        (str(tmp_path), "no train part"),
    ]:
        with pytest.raises(UserError, match=message):
            load_language(name)
    with pytest.raises(UserError, match="without columns"):
        load_language("ptb", text="sentence")


def test_two_files_of_one_part_are_refused(tmp_path):
    name = folder_of(tmp_path, train="a\n")
    written(tmp_path / "train.tokens", "a\n")
    with pytest.raises(UserError, match="both the train part"):
        load_language(name)


def test_no_word_frequent_enough(tmp_path):
    name = folder_of(tmp_path, train="a b c\n", valid="a\n", test="a\n")
    with pytest.raises(UserError, match="lower data.min_count"):
        load_language(name, min_count=5)


def test_a_part_without_text_is_refused():
    empty = np.zeros(0, np.int32)
    with pytest.raises(UserError, match="the valid part has no text"):
        build_corpus(
            Interner(),
            {"train": np.ones(3, np.int32), "valid": empty, "test": empty},
            name="x",
            level="word",
            tokens="blank-v1",
        )


def test_lines_to_measure(tmp_path):
    name = folder_of(tmp_path, train="a\n", valid="b\n", test="c\nd\n")
    assert read_lines_of(name, "test") == (["c", "d"], "test")
    assert read_lines_of(written(tmp_path / "other.txt", "e\nf"), "test") == (["e", "f"], "whole file")


class _Columns(dict):
    @property
    def column_names(self):
        return list(self)


def test_hub_rows_are_lines(monkeypatch):
    loaded = {"train": _Columns(id=[1], text=["a b"] * 40), "test": _Columns(id=[1], text=["b a\n"])}
    monkeypatch.setattr("karui.data.hub.load", lambda _: loaded)
    corpus = load_language("someone/text", valid_fraction=0.1)
    assert words_of(corpus, "test") == ["b", "a", "</s>"]
    assert len(corpus.valid) == 12
    with pytest.raises(UserError, match="cannot tell which column is the text"):
        load_language("someone/text", text="body")


def archive_of(path, articles):
    with tarfile.open(path, "w:xz") as archive:
        content = "".join(
            f'<doc id="{key}" url="u" title="t">\n{text}\n</doc>\n' for key, text in articles.items()
        ).encode()
        member = tarfile.TarInfo("text/AA/wiki_00")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path


def test_articles_are_split_by_their_ids_and_kept_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KARUI_CACHE", str(tmp_path / "cache"))
    articles = {str(key): f"Title {key}\n\nSome text." for key in range(400)}
    path = archive_of(tmp_path / "wiki.tar.xz", articles)
    interner, parts = wikipedia.encode_articles(path, "text-v1", lower=True)
    of = {split: [key for key in articles if wikipedia.split_of(key) == split] for split in parts}
    assert all(of.values())
    found = [interner.words[k] for k in parts["test"]]
    expected = [["title", key, "</s>", "some", "text", ".", "</s>"] for key in of["test"]]
    assert found == [word for line in expected for word in line]
    (cached,) = (tmp_path / "cache" / "language").iterdir()
    again, same = wikipedia.encode_articles(path, "text-v1", lower=True)
    assert again.words == interner.words
    assert all(np.array_equal(parts[split], same[split]) for split in parts)
    cached.write_bytes(cached.read_bytes()[:100])  # a cut cache is made anew
    _, same = wikipedia.encode_articles(path, "text-v1", lower=True)
    assert np.array_equal(parts["train"], same["train"])
    assert cached.stat().st_size > 1000


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "level", "sizes", "n_words"),
    [
        ("ptb", "word", (929_589, 73_760, 82_430), 10_000),
        ("ptb", "char", (5_017_482, 393_042, 442_423), 50 + 1),  # and <unk>
        ("wikitext2", "word", (2_088_628, 217_646, 245_569), 33_278),
    ],
)
def test_published_counts(name, level, sizes, n_words):
    corpus = load_language(name, level=level)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == sizes
    assert len(corpus.words) == n_words
    assert not any(corpus.outside.values())


@pytest.mark.data
def test_ptb_characters_are_those_of_the_published_files():
    from karui.data.storage import data_root

    corpus = load_language("ptb", level="char")
    for split in ("train", "valid", "test"):
        with lzma.open(data_root() / "ptb" / f"ptb.char.{split}.txt.xz", "rt", encoding="utf-8") as stream:
            published = stream.read().replace(" ", "").replace("_", " ")
        own = [corpus.words[k] for k in corpus.split(split)]
        assert "".join("\n" if symbol == "</s>" else symbol for symbol in own) == published
