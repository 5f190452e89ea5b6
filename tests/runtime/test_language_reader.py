"""Hostile artifacts of language models are refused with one clear line, before they take memory or time."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from karui.errors import ArtifactError
from karui.runtime.format import encode, varint
from karui.runtime.language_format import LanguageModelSpec, encode_language_model
from karui.runtime.language_output import ClassOutput, TreeOutput, in_preorder, preorder, tree_from
from karui.runtime.language_reader import LanguageArtifact
from karui.runtime.language_spec import arrays_of
from karui.runtime.model import load, load_classifier, load_language_model
from karui.runtime.reader import read, read_any
from tests.runtime.language_specs import OUTPUTS, random_model
from tests.runtime.test_reader import sealed as sealed_one

ONE = b"\x08" + np.float32(1).tobytes()  # a dense fp32 record of one cell
TWO = b"\x08" + np.ones(2, np.float32).tobytes()


def sealed(plain: bytes, coded: bytes = b"") -> bytes:
    """A file of version 2 whose frame is right."""
    return sealed_one(plain, coded, 2)


def header(**changes: object) -> bytes:
    """The plain part of a model of 2 words, E = 1, no layers, up to the records; values are numbers or bytes."""
    parts: dict[str, object] = {
        "kind": 1, "provenance": 0, "tokens": 0, "words": 2, "eos": 0, "unk": 2, "width": 1, "form": 0,
        "projection": b"", "layers": 0, "output": 0, "sizes": b"",
        "word_list": b"\0" + b"\0\1a" + b"\0\1b", "table": b"",
    }  # fmt: skip
    parts.update(changes)
    return b"".join(value if isinstance(value, bytes) else varint(value) for value in parts.values())  # pyright: ignore[reportArgumentType]


RECORDS = TWO * 3  # embedding, output_weight, output_bias
CLASSES = {"output": 1, "sizes": b"\2", "table": b"\0\1"}
ADAPTIVE = {"output": 2, "sizes": b"\1\1", "table": b"\0\1"}
TREE = {"output": 3, "table": b"\1\0\1"}


def spec_of(data: bytes) -> LanguageModelSpec:
    found = read_any(data)
    assert isinstance(found, LanguageArtifact)
    return found.spec


def test_the_hand_made_files_are_right() -> None:
    spec = spec_of(sealed(header() + RECORDS))
    assert (spec.words, spec.eos, spec.unk, spec.tokenisation, spec.lower) == (
        ["a", "b"],
        0,
        1,
        "blank-v1",
        False,
    )
    spec_of(sealed(header(**CLASSES) + TWO * 5))
    spec_of(sealed(header(**ADAPTIVE) + TWO * 3 + ONE * 3))
    spec_of(sealed(header(**TREE) + TWO + ONE * 2))
    tied = spec_of(sealed(header(form=3, projection=1, tokens=5) + TWO + ONE * 2 + TWO))
    assert (tied.tokenisation, tied.lower) == ("text-v1", True)
    rows = spec_of(sealed(header() + b"\x0c\x80\x3f\0\x40\1\1" + TWO * 2))
    assert rows.embedding.tolist() == [[1.0], [2.0]]


CASES = {
    "nothing": (sealed(b""), "kind needs 1 bytes where 0 are left"),
    "kind": (sealed(header(kind=2)), "it is of the unknown kind 2; install a newer karui"),
    "tokenisation": (sealed(header(tokens=3)), "it has an unknown tokenisation"),
    "tokens": (sealed(header(tokens=8)), "tokenisation is 8, at most 7"),
    "no words": (sealed(header(words=0, unk=0)), "0 words, 1 to 1048576 are allowed"),
    "words": (sealed(header(words=2**20 + 1)), "number of words is 1048577"),
    "words beyond the end": (sealed(header(words=1000)), "shared prefix needs 1 bytes where 0 are left"),
    "eos": (sealed(header(eos=2)), "end of a line is 2, at most 1"),
    "unk": (sealed(header(unk=3)), "unknown word is 3, at most 2"),
    "width": (sealed(header(width=16384)), "embedding width is 16384"),
    "form": (sealed(header(form=4)), "form is 4, at most 3"),
    "projection": (sealed(header(form=2, projection=16384)), "width of the projection is 16384"),
    "tied sizes": (sealed(header(form=3, projection=2)), "one table for embeddings of 1 and outputs of 2"),
    "tied tree": (sealed(header(form=1, **TREE)), "a table shared with an output of kind tree"),
    "two directions": (sealed(header(layers=b"\1\x08\1\1")), "a language model reads forward only"),
    "layer": (sealed(header(layers=b"\1\3\1")), "unknown kind"),
    "layers": (sealed(header(layers=17)), "number of layers is 17"),
    "output": (sealed(header(output=4)), "output is 4, at most 3"),
    "classes": (sealed(header(output=1, sizes=b"\3")), "number of classes is 3, at most 2"),
    "no classes": (sealed(header(output=1, sizes=b"\0")), "0 classes, 1 to 2"),
    "class": (sealed(header(**CLASSES | {"table": b"\0\2"})), "class of a word is 2, at most 1"),
    "empty class": (sealed(header(**CLASSES | {"table": b"\0\0"})), "word table: number 1 has no word"),
    "tails": (sealed(header(output=2, sizes=b"\x41")), "number of tails is 65, at most 64"),
    "tail width": (sealed(header(output=2, sizes=b"\1\x80\x80\1")), "width of a tail is 16384"),
    "empty tail": (sealed(header(**ADAPTIVE | {"table": b"\0\0"})), "word table: number 1 has no word"),
    "tail": (sealed(header(**ADAPTIVE | {"table": b"\0\2"})), "class of a word is 2, at most 1"),
    "cut table": (
        sealed(header(**CLASSES | {"table": b"\0"})),
        "class of a word needs 1 bytes where 0 are left",
    ),
    "tree bits": (sealed(header(**TREE | {"table": b"\x09\0\1"})), "bits set behind its last node"),
    "tree of words": (
        sealed(header(**TREE | {"table": b"\0\0\1"})),
        "its tree is wrong: a tree has one inner node less",
    ),
    "tree too early": (
        sealed(header(**TREE | {"table": b"\2\0\1"})),
        "its tree is wrong: its shape ends too early",
    ),
    "tree twice": (sealed(header(**TREE | {"table": b"\1\1\1"})), "a word is missing or there twice"),
    "tree word": (sealed(header(**TREE | {"table": b"\1\0\2"})), "word of the tree is 2, at most 1"),
    "cut record": (sealed(header() + RECORDS[:5]), "embedding needs 8 bytes where 4 are left"),
    "bytes left over": (sealed(header() + RECORDS + b"\0"), "1 bytes are left over"),
    "coded bytes left over": (sealed(header() + RECORDS, bytes(5)), "coded stream has bytes left over"),
    "infinite": (
        sealed(header() + RECORDS[:-4] + np.float32(np.inf).tobytes()),
        "values that are not finite",
    ),
    "scale of a row": (sealed(header() + b"\x0c\x80\x3f\0\0\1\1"), "scale that is not a positive number"),
    "scale NaN of a row": (
        sealed(header() + b"\x0c\x80\x3f\xc0\x7f\1\1"),
        "scale that is not a positive number",
    ),
    "-128 in a row": (sealed(header() + b"\x0c\x80\x3f\x80\x3f\1\x80"), "the value -128"),
    "cut scales": (sealed(header() + b"\x0c\x80\x3f"), "embedding needs 4 bytes where 2 are left"),
    "overflow in a row": (sealed(header() + b"\x0c\x80\x3f\x7f\x7f\1\x7f"), "values that are not finite"),
    "cells": (
        sealed(header(words=2**20, width=16383)),
        "embedding of 1048576 x 16383; 268435456 cells in all",
    ),
    "memory": (sealed(header(words=2**20, width=100)), r"\d+ cells are too many for a file of \d+ bytes"),
    "classes of memory": (
        sealed(header(words=2**20, width=30, output=1, sizes=varint(2**20 - 1))),
        r"\d+ cells are too many for a file of \d+ bytes",
    ),
    "huge coded matrix": (
        sealed(header(words=2**18, width=50, word_list=b"\1")),
        "ends too early|too large",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, message = CASES[name]
    path = tmp_path / "hostile.karui"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_header_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        for name in (
            "words",
            "words beyond the end",
            "cells",
            "memory",
            "classes of memory",
            "huge coded matrix",
        ):
            with pytest.raises(ArtifactError):
                read_any(CASES[name][0])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_rows_of_their_own_scale_are_of_version_2() -> None:
    one = sealed_one(b"\0\0\2\1n\1p\0\1\1\1\0\0\0\1a" + b"\x0c\x80\x3f\1" + ONE + ONE)
    with pytest.raises(ArtifactError, match="embedding has the unknown form 12"):
        read(one)


def test_kinds_are_told_apart(make_spec) -> None:
    language, classifier = encode_language_model(random_model()), encode(make_spec())
    for wrong, data, message in (
        (read, language, "this is a language model, not a text classifier"),
        (load_classifier, language, "this is a language model, not a text classifier"),
        (load_language_model, classifier, "this is a text classifier, not a language model"),
    ):
        with pytest.raises(ArtifactError, match=message):
            wrong(data)


@pytest.mark.parametrize("values", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_what_is_written_is_read(output: str, values: str) -> None:
    wide = random_model("qrnn", output, projection=6, layers=2, seed=1, tokenisation="text-v1", lower=True)
    for coding, layout in ((True, None), (False, "dense"), (False, "bitmap"), (False, "row-sparse")):
        data = encode_language_model(wide, values=values, coding=coding, layout=layout)
        found = read_any(data)
        assert isinstance(found, LanguageArtifact)
        assert sum(found.sizes.values()) == len(data)
        spec = found.spec
        assert (spec.tokenisation, spec.lower) == ("text-v1", True)
        assert [spec.words[spec.eos], spec.words[spec.unk or 0]] == ["</s>", "<unk>"]
        assert spec.words == sorted(wide.words, key=str.encode)
        if values != "int8":
            assert encode_language_model(spec, values=values, coding=coding, layout=layout) == data
        order = [wide.words.index(word) for word in spec.words]
        largest = np.abs(wide.embedding).max(axis=1)[order]
        allowed = {"fp32": 0.0, "fp16": 1e-3, "int8": 1 / 127}[values] * largest[:, None]
        assert (np.abs(spec.embedding - wide.embedding[order]) <= allowed).all()
        for (name, array), (_, original) in zip(arrays_of(spec), arrays_of(wide), strict=True):
            assert array.shape == original.shape, name


def test_a_class_for_each_word() -> None:
    spec = random_model("sru", n_words=60)
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    spec.output = ClassOutput(np.arange(60), array(60, 6), array(60), array(60, 6), array(60))
    found = spec_of(encode_language_model(spec))
    assert isinstance(found.output, ClassOutput)
    assert sorted(found.output.classes.tolist()) == list(range(60))


def test_trees() -> None:
    children = np.asarray([[-1, 1], [2, -3], [-2, -4]])
    shape, leaves = preorder(children)
    assert shape.tolist() == [1, 0, 1, 1, 0, 0, 0]
    assert leaves.tolist() == [0, 1, 3, 2]
    assert tree_from(shape, leaves).tolist() == children.tolist()
    moved, old = in_preorder(np.asarray([[-1, 2], [-2, -4], [1, -3]]))
    assert moved.tolist() == children.tolist()
    assert old.tolist() == [0, 2, 1]
    deep = np.asarray([[k + 1, -1 - k] for k in range(128)] + [[-129, -130]])
    assert "more than 128 inner nodes" in str(
        TreeOutput(deep, np.zeros((129, 1)), np.zeros(129)).form_problem(130)
    )
    looped = TreeOutput(np.asarray([[0, -1]]), np.zeros((1, 1)), np.zeros(1))
    assert "children are no tree of 2 words" in str(looped.form_problem(2))


WRONG = {
    "eos": ({"eos": 40}, r"eos must be in \[0, 40\), got 40"),
    "unk": ({"unk": -1}, r"unk must be in \[0, 40\), got -1"),
    "tokenisation": ({"tokenisation": "bpe"}, "tokenisation must be one of"),
    "projection": ({"projection_bias": np.zeros(3, np.float32)}, "belong together"),
    "embedding": (
        {"embedding": np.zeros((39, 6), np.float32)},
        r"embedding must have shape \(40, 6\), got \(39, 6\)",
    ),
    "vector": ({"embedding": np.zeros(40, np.float32)}, "embedding must be a matrix"),
    "nan": ({"embedding": np.full((40, 6), np.nan, np.float32)}, "embedding has values that are not finite"),
    "double word": ({"words": ["a"] * 40}, "words must differ"),
    "empty word": ({"words": ["", *map(str, range(39))]}, "a word must have 1 to 1024 bytes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_descriptions_are_refused(name: str) -> None:
    changes, message = WRONG[name]
    spec = random_model()
    for key, value in changes.items():
        setattr(spec, key, value)
    with pytest.raises(ValueError, match=message):
        encode_language_model(spec)


def test_wrong_orders_are_refused() -> None:
    with pytest.raises(ValueError, match="values must be one of"):
        encode_language_model(random_model(), values="int4")
    with pytest.raises(ValueError, match=r"levels must be in \[1, 127\], got 0"):
        encode_language_model(random_model(), levels=0)
