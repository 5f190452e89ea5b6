import pytest

from karui.train.differences import first_difference


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ({"a": {"b": 1, "c": [2]}}, {"a": {"b": 1, "c": [2]}}, None),
        ({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}}, "train.lr was 0.1 and is 0.2 now"),
        ({"a": 1}, {"a": 1, "b": None}, "b was not set and is None now"),
        ({"a": 1, "b": 2}, {"a": 1}, "b was 2 and is not set now"),
        ({"a": {"b": 1}}, {"a": 1}, "a was {'b': 1} and is 1 now"),
    ],
)
def test_first_difference_names_the_field(old, new, wanted):
    assert first_difference(old, new) == wanted
