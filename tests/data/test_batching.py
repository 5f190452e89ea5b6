"""Batches: every example once, within the caps, little padding, a pure function of (seed, epoch)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karui.data import LengthBuckets, TextDataset, Vocabulary, collate, encode_dataset, ordered_batches

LENGTHS = np.random.default_rng(5).integers(1, 200, size=1003)


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    batch_size=st.integers(0, 7),
    max_tokens=st.integers(0, 120),
    epoch=st.integers(0, 3),
)
def test_every_example_once_within_the_caps(lengths, batch_size, max_tokens, epoch):
    if batch_size + max_tokens == 0:
        batch_size = 1
    sizes = {"batch_size": batch_size, "max_tokens": max_tokens}
    for batches in (
        LengthBuckets(lengths, **sizes, seed=1).batches(epoch),
        ordered_batches(lengths, **sizes),
    ):
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) > 0
            assert not batch_size or len(batch) <= batch_size
            longest = max(lengths[index] for index in batch)
            assert not max_tokens or len(batch) * longest <= max_tokens or len(batch) == 1


def test_a_pure_function_of_seed_and_epoch():
    def flat(seed, epoch, buckets=None):
        return [
            b.tolist() for b in (buckets or LengthBuckets(LENGTHS, batch_size=32, seed=seed)).batches(epoch)
        ]

    buckets = LengthBuckets(LENGTHS, batch_size=32, seed=1)
    later_first = [flat(1, epoch, buckets) for epoch in (2, 0, 2)]
    assert later_first == [flat(1, 2), flat(1, 0), flat(1, 2)]
    assert flat(1, 0) != flat(1, 1)
    assert flat(1, 0) != flat(2, 0)


def test_fixed_batch_size_gives_the_same_number_of_steps_each_epoch():
    buckets = LengthBuckets(LENGTHS, batch_size=32)
    assert {len(buckets.batches(epoch)) for epoch in range(5)} == {32}


def test_little_padding_but_not_sorted():
    batches = LengthBuckets(LENGTHS, batch_size=16).batches(0)
    padded = sum(len(batch) * LENGTHS[batch].max() for batch in batches)
    assert padded / LENGTHS.sum() < 1.1
    means = [LENGTHS[batch].mean() for batch in batches]
    assert means != sorted(means)
    assert [LENGTHS[batch[0]] for batch in ordered_batches(LENGTHS, batch_size=16)] == sorted(LENGTHS)[::16]


def test_pools_are_shuffled_between_epochs():
    lengths = np.ones(4000, dtype=int)
    first, second = (set(LengthBuckets(lengths, batch_size=4).batches(epoch)[0]) for epoch in (0, 1))
    assert first != second


@pytest.mark.parametrize("make", [LengthBuckets, ordered_batches])
def test_a_cap_is_needed(make):
    with pytest.raises(ValueError, match="batch_size or max_tokens must be positive, got 0 and 0"):
        make([1, 2])


def test_collate_pads_on_the_right():
    ids, lengths = collate([np.array([4, 5], np.int32), np.array([6], np.int32)])
    assert ids.tolist() == [[4, 5], [6, 0]]
    assert lengths.tolist() == [2, 1]
    assert ids.dtype == lengths.dtype == np.int64
    assert collate([])[0].shape == (0, 0)


def test_encode_dataset():
    dataset = TextDataset(["good film", "", "bad bad film"], np.array([1, 0, 0]), ["neg", "pos"])
    encoded = encode_dataset(dataset, Vocabulary(["film", "bad", "good"]), max_tokens=2)
    assert len(encoded) == 3
    assert encoded.lengths.tolist() == [2, 1, 2]
    ids, lengths, labels = encoded.batch([2, 1])
    assert ids.tolist() == [[2, 2], [0, 0]]
    assert lengths.tolist() == [2, 1]
    assert labels.tolist() == [0, 0]
    assert encoded.document(0).tolist() == [3, 1]
