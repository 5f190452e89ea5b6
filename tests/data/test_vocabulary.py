"""Which words get which ids."""

import numpy as np
import pytest

from karui.data.vocabulary import Vocabulary


def test_order_is_by_count_then_alphabet():
    counts = {"b": 2, "zebra": 5, "a": 2, "é": 2, "rare": 1}
    assert Vocabulary.from_counts(counts, min_count=2).words == ["zebra", "a", "b", "é"]
    assert Vocabulary.from_counts(dict(reversed(counts.items())), max_size=3).words == ["zebra", "a", "b"]
    assert len(Vocabulary.from_counts(counts, max_size=0)) == 5


def test_ids_of_known_and_unknown_words():
    vocabulary = Vocabulary.from_texts(["Good film", "bad film", "film"], min_count=1)
    assert vocabulary.words == ["film", "bad", "good"]
    assert vocabulary.encode("A GOOD film!").tolist() == [0, 3, 1, 0]
    assert vocabulary.encode("A GOOD film!", max_tokens=2).tolist() == [0, 3]
    ids, offsets = vocabulary.encode_batch(["film", "", "bad bad"])
    assert ids.tolist() == [1, 0, 2, 2]  # a text without words is one token of id 0
    assert offsets.tolist() == [0, 1, 2, 4]
    assert ids.dtype == np.int32


@pytest.mark.parametrize(("max_size", "min_count"), [(-1, 1), (0, 0)])
def test_impossible_sizes(max_size, min_count):
    with pytest.raises(ValueError, match=f"got {max_size} and {min_count}"):
        Vocabulary.from_counts({"a": 1}, max_size, min_count)
