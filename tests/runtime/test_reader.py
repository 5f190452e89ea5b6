"""Cut, altered and hostile files: refused in one line that names the file, or read and answered with finite numbers."""

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from karui.errors import ArtifactError
from karui.runtime.format import MAGIC, encode, varint
from karui.runtime.reader import read, read_artifact
from tests.support.fuzz_reader import mutations, verdict

GOLDEN = sorted((Path(__file__).resolve().parent.parent / "golden").glob("*.karui"))
TEXT = b"\x01n"


def sealed(plain: bytes, coded: bytes = b"", version: int = 1) -> bytes:
    """A file whose frame is right."""
    return checked(MAGIC + varint(version) + varint(len(plain)) + plain + coded)


def checked(data: bytes) -> bytes:
    """Data with its checksum."""
    return data + zlib.crc32(data).to_bytes(4, "little")


def header(**changes: object) -> bytes:
    """The plain part of a model of 2 words, E = 1, no layers, up to the word list; values are numbers or bytes."""
    parts: dict[str, object] = {
        "normalisation": 0, "max_tokens": 0, "n_labels": 2, "labels": TEXT + b"\x01p", "provenance": 0, "words": 2,
        "width": 1, "pooling": 1, "layers": 0, "word_list": b"\0" + b"\0\1a" + b"\0\1b",
    }  # fmt: skip
    parts.update(changes)
    return b"".join(value if isinstance(value, bytes) else varint(value) for value in parts.values())  # pyright: ignore[reportArgumentType]


ONE = b"\x08" + np.float32(1).tobytes()  # a dense fp32 record of one cell
RECORDS = b"\x08" + np.ones(2, np.float32).tobytes() + ONE + ONE


def test_the_hand_made_file_is_right() -> None:
    spec = read(sealed(header() + RECORDS))
    assert spec.words == ["a", "b"]
    assert spec.labels == ["n", "p"]
    assert spec.embedding.tolist() == [[0], [1], [1]]


def statistical(hidden: int, stats: int, recur: int, alphas: list[float] | None = None) -> bytes:
    """Up to the word list, with one layer of a Statistical Recurrent Unit in one direction."""
    scales = np.asarray([0.5] if alphas is None else alphas, "<f4")
    sizes = b"".join(varint(size) for size in (hidden, stats, recur, len(scales)))
    return header(layers=b"\1\x20" + sizes + scales.tobytes())


def test_the_hand_made_statistics_are_right() -> None:
    ones = [b"\x08" + np.ones(cells, np.float32).tobytes() for cells in (2, 1, 1, 1, 1, 3, 1, 1)]
    spec = read(sealed(statistical(1, 1, 1) + b"".join(ones)))
    [direction] = spec.layers[0].directions
    assert (spec.layers[0].kind, spec.layers[0].activation) == ("statistical", "identity")
    assert direction.alphas is not None
    assert direction.alphas.tolist() == [0.5]
    assert direction.bias.tolist() == [1, 1, 1]


INFINITE = np.float32(np.inf).tobytes()
CASES = {
    "empty": (b"", "no karui artifact"),
    "text": (b"hello, this is no artifact", "no karui artifact"),
    "magic only": (MAGIC, "format_version needs 1 bytes"),
    "newer version": (
        sealed(b"", version=3),
        "its format_version is 3, this karui reads versions 1 to 2; install a newer karui",
    ),
    "checksum": (sealed(header() + RECORDS)[:-1] + b"\0", "checksum does not match"),
    "plain part too long": (
        checked(MAGIC + b"\1\xff\xff\x03" + bytes(9)),
        "plain part is longer than the file",
    ),
    "nothing": (sealed(b""), "normalisation needs 1 bytes where 0 are left"),
    "normalisation": (sealed(header(normalisation=1) + RECORDS), "normalisation is 1, at most 0"),
    "one label": (sealed(header(n_labels=1, labels=TEXT) + RECORDS), "1 labels, 2 to"),
    "labels not UTF-8": (sealed(header(labels=b"\1\xff\1p") + RECORDS), "a label is not UTF-8"),
    "label too long": (
        sealed(header(labels=varint(5000) + bytes(5000)) + RECORDS),
        "length of a label is 5000, at most 1024",
    ),
    "label beyond the end": (sealed(header(labels=b"\xff\x07") + RECORDS), "a label needs 1023 bytes"),
    "not the shortest form": (
        sealed(header(max_tokens=b"\x80\0") + RECORDS),
        "max_tokens is not in its shortest form",
    ),
    "endless number": (
        sealed(header(max_tokens=b"\xff" * 9) + RECORDS),
        "max_tokens is|max_tokens has too many bytes",
    ),
    "too many words": (sealed(header(words=2**20 + 1) + RECORDS), "number of words is 1048577"),
    "words beyond the end": (sealed(header(words=1000, width=0) + RECORDS), "shared prefix is 8, at most 1"),
    "too many cells": (
        sealed(header(words=2**20, width=17) + RECORDS),
        "embedding of 1048576 x 17; 16777216 cells a matrix",
    ),
    "too many cells in all": (
        sealed(header(words=2**20, width=16, pooling=5, n_labels=33, labels=TEXT * 33) + RECORDS),
        "word_scores of 1048576 x 33",
    ),
    "width": (sealed(header(width=16384) + RECORDS), "embedding width is 16384"),
    "layers": (sealed(header(layers=17) + RECORDS), "number of layers is 17"),
    "kind": (sealed(header(layers=b"\1\3\1") + RECORDS), "unknown kind"),
    "last kind": (sealed(header(layers=b"\1\x23\1") + RECORDS), "unknown kind"),
    "code": (sealed(header(layers=b"\1\x40\1") + RECORDS), "kind of a layer is 64, at most 63"),
    "third activation": (
        sealed(header(layers=b"\1\x14\1") + RECORDS),
        "kind sru has the unknown activation 3",
    ),
    "relu lstm": (sealed(header(layers=b"\1\x11\1") + RECORDS), "kind lstm has the unknown activation 2"),
    "tanh qrnn": (sealed(header(layers=b"\1\x25\1\2") + RECORDS), "kind qrnn has the unknown activation 1"),
    "tanh mingru": (sealed(header(layers=b"\1\x26\1") + RECORDS), "kind mingru has the unknown activation 1"),
    "window": (sealed(header(layers=b"\1\x21\1\4") + RECORDS), "window and gate is 4, at most 3"),
    "statistics": (sealed(statistical(1, 16384, 1)), "number of statistics is 16384, at most 16383"),
    "recurrent size": (sealed(statistical(1, 1, 16384)), "recurrent size is 16384, at most 16383"),
    "scales": (sealed(statistical(1, 1, 1, [0.5] * 65)), "number of scales is 65, at most 64"),
    "cut scales": (
        sealed(header(layers=b"\1\x20\1\1\1\x40", word_list=bytes(7))),
        "a scale needs 256 bytes where 7 are left",
    ),
    "scale above 1": (sealed(statistical(1, 1, 1, [0.5, 1.5])), "a scale outside of 0 to 1: .0.5, 1.5."),
    "scale below 0": (sealed(statistical(1, 1, 1, [-0.5])), "a scale outside of 0 to 1"),
    "scale minus 0": (sealed(statistical(1, 1, 1, [-0.0])), "a scale outside of 0 to 1"),
    "scale of NaN": (sealed(statistical(1, 1, 1, [np.nan])), "a scale outside of 0 to 1"),
    "infinite scale": (sealed(statistical(1, 1, 1, [np.inf])), "a scale outside of 0 to 1"),
    "many statistics": (sealed(statistical(0, 16383, 0, [0.5] * 5)), "81915 statistics, at most 65535"),
    "weight_o": (sealed(statistical(1000, 16383, 0, [0.5] * 4)), "weight_o of 1000 x 65532"),
    "weight_phi": (sealed(statistical(1, 16383, 16383, [])), "weight_phi of 16383 x 16383"),
    "cut weight_r": (
        sealed(statistical(1, 1, 1, [0.5]) + RECORDS[:9] + b"\x08\0\0\x80\x3f"),
        "layers.0.forward.weight_r needs 1 bytes where 0 are left",
    ),
    "hidden size": (sealed(header(layers=b"\1\0" + varint(16384)) + RECORDS), "hidden size is 16384"),
    "hidden product": (sealed(header(layers=b"\1\1" + varint(4096)) + RECORDS), "weight_hh of 16384 x 4096"),
    "unsorted words": (sealed(header(word_list=b"\0\0\1b\0\1a") + RECORDS), "not sorted"),
    "double words": (sealed(header(word_list=b"\0\0\1b\1\0") + RECORDS), "not sorted"),
    "empty word": (sealed(header(word_list=b"\0\0\0\0\1a") + RECORDS), "not sorted"),
    "word with NUL": (sealed(header(word_list=b"\0\0\1a\0\2b\0") + RECORDS), "not sorted"),
    "word not UTF-8": (sealed(header(word_list=b"\0\0\1a\0\1\xff") + RECORDS), "a word is not UTF-8"),
    "word too long": (
        sealed(header(word_list=b"\0\0" + varint(1025) + b"a" * 1025 + b"\0\1b") + RECORDS),
        "length of a word is 1025",
    ),
    "prefix too long": (sealed(header(word_list=b"\0\0\1a\2\1b") + RECORDS), "shared prefix is 2, at most 1"),
    "word list form": (sealed(header(word_list=b"\2") + RECORDS), "form of the word list is 2"),
    "record form": (sealed(header() + b"\x0c"), "embedding has the unknown form 12"),
    "layout": (sealed(header() + b"\x0b"), "unknown form 11"),
    "cut record": (sealed(header() + RECORDS[:5]), "embedding needs 8 bytes where 4 are left"),
    "bytes left over": (sealed(header() + RECORDS + b"\0"), "1 bytes are left over"),
    "coded bytes left over": (sealed(header() + RECORDS, bytes(5)), "coded stream has bytes left over"),
    "infinite": (sealed(header() + RECORDS[:-4] + INFINITE), "output_bias has values that are not finite"),
    "scale": (sealed(header() + b"\0\0\0\1\1"), "scale that is not a positive number"),
    "scale NaN": (sealed(header() + b"\0\xff\xff\1\1"), "scale that is not a positive number"),
    "-128": (sealed(header() + b"\0\x80\x3f\1\x80"), "the value -128"),
    "overflow": (sealed(header() + b"\0\x7f\x7f\1\x7f"), "embedding has values that are not finite"),
    "kept zero": (sealed(header() + b"\x09\3" + bytes(8)), "kept value that is zero"),
    "padding bits": (sealed(header() + b"\x09\4"), "bits set behind its last cell"),
    "column": (sealed(header() + b"\x0a\1\1\0" + bytes(9)), "value outside its row"),
    "row count": (sealed(header() + b"\x0a\2\0\0" + bytes(9)), "embedding is 2, at most 1"),
    "largest": (sealed(header() + b"\x10\x80\x3f\0"), "largest value of 0"),
    "huge coded matrix": (
        sealed(header(words=b"\x80\x80\x04", width=100, word_list=b"\1")),
        "ends too early|too large",
    ),
    "short coded stream": (sealed(header() + b"\x10\x80\x3f\x7f"), "coded stream ends too early|cut|needs"),
}


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, message = CASES[name]
    path = tmp_path / "hostile.karui"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_header_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        for name in (
            "too many words",
            "too many cells",
            "width",
            "hidden product",
            "huge coded matrix",
            "words beyond the end",
        ):
            with pytest.raises(ArtifactError):
                read(CASES[name][0])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_coded_matrix_too_large_for_its_file_is_refused() -> None:
    data = sealed(header(words=0, word_list=b"\0", layers=b"\1\0" + varint(4000)) + b"\x08" + b"\x19")
    with pytest.raises(ArtifactError, match="weight_ih of 16000 x 1 is too large|ends too early|needs"):
        read(data)
    wide = sealed(
        header(words=0, word_list=b"\0", width=16000, layers=b"\1\0" + varint(200)) + b"\x08" + b"\x19"
    )
    with pytest.raises(ArtifactError, match=r"weight_ih of 800 x 16000 is too large for a file of \d+ bytes"):
        read(wide)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere.karui: there is no such file; check the path"):
        read(tmp_path / "nowhere.karui")
    with pytest.raises(
        ArtifactError, match=r"this is a folder, not a .karui file; `karui compact` makes one"
    ):
        read(tmp_path)
    with pytest.raises(ArtifactError, match=r"cannot be read \(File name too long\)"):
        read(tmp_path / ("x" * 300))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_cut_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in range(len(data)):
        with pytest.raises(ArtifactError):
            read(data[:length])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_mutations(path: Path) -> None:
    """500 a file; `tests.support.fuzz_reader` as a program runs any number of them."""
    data, verdicts = path.read_bytes(), {"refused": 0, "loaded": 0}
    for mutated, checksum_fixed in mutations(data, np.random.default_rng(0), 500):
        result = verdict(mutated)
        verdicts[result] += 1
        assert checksum_fixed or result == "refused"
    assert verdicts["refused"] > 250
    assert verdicts["loaded"] >= 10


def test_encode_then_read_is_stable(make_spec) -> None:
    data = encode(make_spec())
    assert encode(read_artifact(data).spec) == data
