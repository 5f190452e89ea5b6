"""The choice of columns: by name, by habit, by the look of the values."""

import pytest

from karui.data.columns import from_header, from_rows
from karui.errors import UserError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["text", "label"], (0, 1)),
        (["id", "Sentiment", "Review"], (2, 1)),
        (["whatever", "class"], (0, 1)),
        (["sentence", "whatever"], (0, 1)),
        (["title", "text", "category"], (1, 2)),  # "text" is more telling than "title"
    ],
)
def test_usual_names(names, expected):
    columns = from_header(names, text=None, label=None, place="f: line 1")
    assert (columns.text, columns.label) == expected


def test_asked_names_win_in_any_case():
    columns = from_header(["text", "label", "Body", "kind"], text="body", label="kind", place="f: line 1")
    assert (columns.text, columns.label, columns.text_name) == (2, 3, "Body")


@pytest.mark.parametrize(
    ("rows", "text_at", "has_header"),
    [
        ([["a good film", "pos"], ["a bad one", "neg"], ["so so", "pos"], ["dull", "neg"]], 0, False),
        ([["1", "a good film"], ["0", "a bad one"], ["1", "so so"], ["0", "dull"]], 1, False),
        ([["film", "kind"], ["good one", "a"], ["bad one", "b"], ["so so", "a"], ["dull", "b"]], 0, True),
        ([["nice", "y"], ["awful", "n"], ["fine", "y"], ["dull", "n"]], 0, False),  # y is a usual name, too
    ],
)
def test_two_columns_are_told_apart_by_their_values(rows, text_at, has_header):
    columns, note = from_rows(rows, text=None, label=None, place="f: line 1")
    assert (columns.text, columns.label, columns.has_header) == (text_at, 1 - text_at, has_header)
    assert note is not None
    assert ("line 1 is taken as a header" in note) == has_header


def test_column_numbers_without_a_header():
    rows = [["3", "Title", "Some text"], ["4", "Other", "More text"]]
    columns, _ = from_rows(rows, text="3", label="1", place="f: line 1")
    assert (columns.text, columns.label, columns.has_header) == (2, 0, False)
    named, _ = from_rows(
        [["label", "title", "text"], ["a", "b", "c"]], text="2", label="1", place="f: line 1"
    )
    assert (named.text, named.label, named.has_header) == (1, 0, True)
    two, _ = from_rows([["a", "x y"], ["b", "z"]], text=None, label="1", place="f: line 1")
    assert (two.text, two.label) == (1, 0)


@pytest.mark.parametrize("number", ["0", "4", "-1", "three", "9999999999"])
def test_column_numbers_out_of_range(number):
    with pytest.raises(UserError, match=f"f: line 1: no column '{number}'; columns found: '3', 'Title'"):
        from_rows([["3", "Title", "Some text"]], text=number, label="1", place="f: line 1")


def test_long_and_many_names_stay_on_one_short_line():
    names = [f"column {number} {'x' * 50}" for number in range(200)]
    with pytest.raises(
        UserError, match="and 180 more; name them with --text NAME and --label NAME"
    ) as caught:
        from_header(names, text=None, label=None, place="f: line 1")
    assert len(str(caught.value)) < 1000
