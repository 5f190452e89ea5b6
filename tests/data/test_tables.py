"""CSV, TSV and JSON Lines: what is read, and the one line that each defect gets."""

import csv
import gzip
import json
import lzma
from pathlib import Path

import pytest

from karui.data.rows import Rows
from karui.data.tables import read_delimited, read_json_lines
from karui.errors import UserError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pairs(rows: Rows) -> list[tuple[str, str]]:
    return list(zip(rows.texts, rows.labels, strict=True))


def test_csv_with_quotes_line_breaks_and_blank_lines(tmp_path):
    content = 'label,id,text\npos,1,"good, very\ngood"\n\nneg,2,"she said ""no"""\r\nneg,3,\n'
    rows = read_delimited(write(tmp_path / "a.csv", content))
    assert pairs(rows) == [("good, very\ngood", "pos"), ('she said "no"', "neg"), ("", "neg")]
    assert rows.places == ["line 2", "line 5", "line 6"]  # where a record starts, not where it ends


@pytest.mark.parametrize("encode", [gzip.compress, lzma.compress], ids=["gz", "xz"])
def test_compressed_tables(tmp_path, encode):
    suffix = {gzip.compress: ".gz", lzma.compress: ".xz"}[encode]
    path = write(tmp_path / f"a.csv{suffix}", encode(b"text,label\ngood,pos\n"))
    assert pairs(read_delimited(path)) == [("good", "pos")]


def test_byte_order_mark_and_old_line_ends(tmp_path):
    path = write(tmp_path / "a.csv", "\ufefftext,label\rgood,pos\rbad,neg\r")
    assert pairs(read_delimited(path)) == [("good", "pos"), ("bad", "neg")]


def test_text_of_a_megabyte_and_the_limit_of_the_csv_module(tmp_path):
    before = csv.field_size_limit()
    text = "word " * 210_000
    rows = read_delimited(write(tmp_path / "a.csv", f"text,label\n{text},pos\n"))
    assert rows.texts == [text]
    assert csv.field_size_limit() == before


def test_tsv_with_quotes_that_mean_nothing(tmp_path):
    rows = read_delimited(write(tmp_path / "a.tsv", 'text\tlabel\n"good" film\tpos\nso "\tneg\n'))
    assert pairs(rows) == [('"good" film', "pos"), ('so "', "neg")]
    assert rows.notes == ["quotes are read as ordinary characters"]


def test_tsv_with_quotes_that_follow_the_rules(tmp_path):
    rows = read_delimited(write(tmp_path / "a.tsv", 'text\tlabel\n"a\tb"\tpos\n'))
    assert pairs(rows) == [("a\tb", "pos")]


CSV_DEFECTS = {
    "missing column": (
        "text,label\na,b\n",
        {"label": "topic"},
        "line 1: no column 'topic'; columns found: 'text', 'label'",
    ),
    "unclear columns": (
        "id,foo,bar\n1,a,b\n",
        {},
        "line 1: cannot tell text from label; columns found: 'id', 'foo', 'bar'",
    ),
    "half clear columns": ("text,foo,bar\n1,a,b\n", {}, "line 1: cannot tell which column is the label"),
    "same column twice": (
        "text,b,c\n1,a,b\n",
        {"label": "text"},
        "line 1: cannot tell which column is the both",
    ),
    "ragged row": (
        "text,label\na,pos\nb,c,neg\n",
        {},
        "line 3: 3 columns, 2 expected; put a text that holds ','",
    ),
    "short row": ("text,label\n\na\n", {}, "line 3: 1 columns, 2 expected"),
    "open quote": ('text,label\na,pos\n"b,neg\nc,pos\n', {}, "line 3: a quote is opened and never closed"),
    "text after a quote": ('text,label\n"a"b,pos\n', {}, "line 2: .* double the quotes inside it"),
    "latin-1": (b"text,label\na,pos\n\n\xe9,neg\n", {}, r"line 4: not UTF-8 \(byte 0xe9\); convert .* iconv"),
    "UTF-16": ("text,label\n".encode("utf-16"), {}, "line 1: UTF-16, not UTF-8; convert"),
    "NUL": (b"text,label\na,pos\nb\0,neg\n", {}, "line 3: NUL byte; remove it"),
    "empty label": ("text,label\na,pos\nb, \n", {}, "line 3: empty label; fill it in"),
    "NaN label": ("text,label\na,NaN\n", {}, "line 2: empty label"),
    "one column": ("text\na\n", {}, "line 1: one column only"),
}


@pytest.mark.parametrize("defect", CSV_DEFECTS)
def test_defects_of_csv_are_named_by_file_and_line(tmp_path, defect):
    content, options, message = CSV_DEFECTS[defect]
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(UserError, match=message) as caught:
        read_delimited(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.xz"])
def test_damaged_compressed_files(tmp_path, name):
    whole = (gzip if name.endswith("gz") else lzma).compress(b"text,label\n" + bytes(range(97, 123)) * 5000)
    for content in (b"no such format", whole[: len(whole) // 2]):
        with pytest.raises(UserError, match="damaged or cut compressed file"):
            read_delimited(write(tmp_path / name, content))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv: no such file; check the path"):
        read_delimited(tmp_path / "a.csv")


def test_json_lines_with_numbers_null_and_blank_lines(tmp_path):
    records = [{"review": "a", "stars": 1}, {"review": None, "stars": 2.0}, {"stars": True, "review": 7}]
    content = "\n\n".join(json.dumps(record) for record in records)
    rows = read_json_lines(write(tmp_path / "a.jsonl", content))
    assert pairs(rows) == [("a", "1"), ("", "2"), ("7", "true")]
    assert rows.places == ["line 1", "line 3", "line 5"]


JSON_DEFECTS = {
    "cut line": ('{"text": "a", "label": "b"}\n{"text": "a", "la', {}, "line 2: not JSON"),
    "array": ('[{"text": "a", "label": "b"}]', {}, "line 1: a JSON array, not JSON Lines; .* jq"),
    "array over lines": ('[\n{"text": "a", "label": "b"}\n]', {}, "line 1: a JSON array, not JSON Lines"),
    "string": ('"text"', {}, "line 1: no JSON object"),
    "missing key": ('{"text": "a", "label": "b"}\n{"text": "a"}', {}, "line 2: no key 'label'; keys found: 'text'"),
    "wrong key": ('{"text": "a", "label": "b"}', {"text": "body"}, "line 1: no column 'body'; columns found: 'text'"),
    "NaN label": ('{"text": "a", "label": NaN}', {}, "line 1: empty label"),
    "null label": ('{"text": "a", "label": null}', {}, "line 1: empty label"),
    "list as label": ('{"text": "a", "label": [1]}', {}, "line 1: the label is a list, not one class"),
    "object as text": ('{"text": {"a": 1}, "label": 1}', {}, "line 1: the text is a dict, not a string"),
    "not UTF-8": (b'{"text": "\xff", "label": 1}', {}, "line 1: not UTF-8"),
    "deep": ("[" * 100_000, {}, "line 1: a JSON array"),
}  # fmt: skip


@pytest.mark.parametrize("defect", JSON_DEFECTS)
def test_defects_of_json_lines_are_named_by_file_and_line(tmp_path, defect):
    content, options, message = JSON_DEFECTS[defect]
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(UserError, match=message) as caught:
        read_json_lines(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
