"""Each rule and each trap of shrinking on hand-made matrices; equality in fp64 without torch or the runtime."""

import numpy as np
import pytest

from karui.compact.shrink import shrink
from karui.errors import UserError
from tests.compact.build import describe, drawn, layer, rows, sizes, texts, zeros
from tests.compact.forward import logits


def shrunk(spec):
    """Shrink, and hold what every case must hold: same answers, nothing grows, a second time changes nothing."""
    before = logits(spec, texts(spec.words))
    small = shrink(spec)
    np.testing.assert_allclose(logits(small, texts(spec.words)), before, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(
        logits(spec, texts(spec.words)), before
    )  # the description given is not changed
    again = shrink(small)
    assert sizes(again) == sizes(small)
    np.testing.assert_array_equal(again.embedding, small.embedding)
    np.testing.assert_array_equal(again.output_weight, small.output_weight)
    return small


KINDS = ("sru", "lstm", "gru")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_goes_where_everything_is_used(kind):
    small = shrunk(describe([layer(kind, drawn(kind, 2, 3), drawn(kind, 2, 3, seed=1))], pooling="mean+max"))
    assert sizes(small) == (3, 2, [[3, 3]])
    assert small.pooling == "mean+max"


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_words_leave_the_list_and_share_row_zero(kind):
    spec = describe([layer(kind, drawn(kind, 2, 2))], words=4)
    spec.embedding[[2, 4]] = 0.0
    small = shrunk(spec)
    assert small.words == ["w0", "w2"]
    np.testing.assert_array_equal(small.embedding, spec.embedding[[0, 1, 3]])


def test_a_pruned_word_advances_the_state():
    """The test can fail: skipping the pruned word's token instead of reading x = 0 gives another answer."""
    spec = describe([layer("lstm", drawn("lstm", 2, 2))], pooling="last")
    spec.embedding[2] = 0.0
    small = shrunk(spec)
    kept, skipped = logits(small, [["w0", "w1", "w1"], ["w0"]])
    assert abs(kept - skipped).max() > 1e-2


def test_a_word_with_a_score_alone_stays():
    spec = describe([layer("sru", drawn("sru", 2, 2))], scores=True)
    spec.embedding[1] = 0.0
    spec.word_scores[2:] = 0.0
    assert shrunk(spec).words == ["w0", "w1", "w2"]
    spec.embedding[3] = 0.0
    assert shrunk(spec).words == ["w0", "w1"]


def test_scores_that_are_all_zero_go():
    spec = describe([layer("gru", drawn("gru", 2, 2))], scores=True)
    spec.word_scores[:] = 0.0
    assert shrunk(spec).word_scores is None


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_columns_that_nobody_reads_or_nobody_fills_go(kind):
    spec = describe([layer(kind, drawn(kind, 4, 2), drawn(kind, 4, 2, seed=1))], width=4)
    spec.embedding[:, 1] = 0.0
    for direction in spec.layers[0].directions:
        direction.weight_ih[:, 3] = 0.0
    small = shrunk(spec)
    assert sizes(small) == (3, 2, [[2, 2]])
    np.testing.assert_array_equal(small.embedding, spec.embedding[:, [0, 2]])


def test_a_column_that_one_direction_reads_stays():
    spec = describe([layer("sru", drawn("sru", 2, 2), drawn("sru", 2, 2, seed=1))])
    spec.layers[0].directions[0].weight_ih[:, 1] = 0.0
    assert sizes(shrunk(spec))[1] == 2


def test_a_word_whose_entries_are_in_dead_columns_alone_goes():
    spec = describe([layer("lstm", drawn("lstm", 2, 2))])
    spec.layers[0].directions[0].weight_ih[:, 1] = 0.0
    spec.embedding[3, 0] = 0.0
    small = shrunk(spec)
    assert small.words == ["w0", "w1"]
    assert small.embedding.shape == (3, 1)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_unread_units_that_feed_each_other_are_dead(kind):
    spec = describe([layer(kind, drawn(kind, 2, 4))])
    spec.output_weight[:, [1, 2]] = 0.0
    hidden = spec.layers[0].directions[0].weight_hh
    for gate in range(len(hidden) // 4):
        for live in (0, 3):
            hidden[4 * gate + live, [1, 2]] = 0.0  # units 1 and 2 read each other, nobody else reads them
    assert sizes(shrunk(spec)) == (3, 2, [[2]])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_unit_read_by_a_live_unit_stays(kind):
    spec = describe([layer(kind, drawn(kind, 2, 3))])
    spec.output_weight[:, [1, 2]] = 0.0
    hidden = spec.layers[0].directions[0].weight_hh
    hidden[:, 1:] = 0.0
    hidden[0, 1] = 0.5  # unit 0 reads unit 1 in its first gate; nobody reads unit 2
    assert sizes(shrunk(spec))[2] == [[2]]


def test_the_leak_of_a_gru_into_itself_keeps_nothing_alive():
    spec = describe([layer("gru", drawn("gru", 2, 2))])
    spec.output_weight[:, 1] = 0.0
    hidden = spec.layers[0].directions[0].weight_hh
    hidden[[0, 2, 4], 1] = 0.0  # unit 0 reads itself alone, unit 1 reads both
    assert sizes(shrunk(spec))[2] == [[1]]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_unit_driven_by_its_bias_stays(kind):
    direction = drawn(kind, 2, 2)
    direction.weight_ih[1::2] = 0.0
    direction.weight_hh[1::2] = 0.0  # unit 1 reads nothing
    spec = describe([layer(kind, direction)], pooling="last")
    small = shrunk(spec)
    assert sizes(small)[2] == [[2]]
    long, short = logits(small, [["unknown"] * 9, ["unknown"]])
    assert abs(long - short).max() > 1e-3  # its output moves with time: no constant could replace it


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_units_without_any_drive_are_zero_for_ever(kind):
    """Units 1 and 2 feed each other and are read, but start at zero and have no candidate bias."""
    direction = drawn(kind, 2, 3)
    candidate = 2
    for unit, other in ((1, 2), (2, 1)):
        rows(kind, direction.weight_ih, candidate, unit)[:] = 0.0
        rows(kind, direction.weight_hh, candidate, unit)[[0, unit]] = 0.0
        assert rows(kind, direction.weight_hh, candidate, unit)[other] != 0.0
        for block in (2, 3) if kind == "gru" else (2,):
            direction.bias[block * 3 + unit] = 0.0
    spec = describe([layer(kind, direction)], pooling="mean+max")
    assert sizes(shrunk(spec))[2] == [[1]]
    direction.bias[2 * 3 + 1] = 0.1  # now unit 1 is driven, and through it unit 2
    assert sizes(shrunk(spec))[2] == [[3]]


def test_a_hidden_bias_alone_drives_a_gru():
    direction = zeros("gru", 2, 2)
    direction.bias[6] = 0.8  # n of the hidden product, unit 0
    small = shrunk(describe([layer("gru", direction)], pooling="last"))
    assert sizes(small) == (0, 0, [[1]])


def test_a_gru_without_hidden_candidate_needs_no_reset_gate():
    direction = drawn("gru", 2, 2)
    direction.weight_hh[4:] = 0.0
    direction.bias[6:] = 0.0
    small = shrunk(describe([layer("gru", direction)]))
    [kept] = small.layers[0].directions
    assert not kept.weight_ih[:2].any()
    assert not kept.weight_hh[:2].any()
    assert not kept.bias[:2].any()
    assert kept.weight_ih[2:].all()


def test_a_hidden_bias_alone_keeps_the_reset_gate_of_a_gru():
    direction = drawn("gru", 2, 2)
    direction.weight_hh[4:] = 0.0
    [kept] = shrunk(describe([layer("gru", direction)])).layers[0].directions
    assert kept.weight_ih.all()


def test_the_highway_keeps_a_unit_whose_cell_is_dead():
    direction = drawn("sru", 2, 2)
    direction.weight_ih[1] = 0.0  # candidate of unit 1
    small = shrunk(describe([layer("sru", direction)]))
    [kept] = small.layers[0].directions
    assert sizes(small)[2] == [[2]]
    assert not kept.weight_ih[3].any()  # its forget gate acts on a cell that stays at zero
    assert kept.weight_ih[5].all()  # its reset gate still weighs the skip
    assert kept.weight_ih[7].all()
    np.testing.assert_array_equal(kept.weight_c[[1, 3]], 0.0)
    assert kept.bias[1] == 0.0
    assert kept.bias[3] != 0.0


def test_a_unit_with_neither_candidate_nor_skip_is_dead_though_read():
    direction = drawn("sru", 2, 2)
    direction.weight_ih[[1, 7]] = 0.0
    assert sizes(shrunk(describe([layer("sru", direction)], pooling="max")))[2] == [[1]]


@pytest.mark.parametrize("pooling", ["last", "mean", "mean+max"])
def test_directions_may_keep_different_numbers_of_units(pooling):
    spec = describe([layer("gru", drawn("gru", 2, 3), drawn("gru", 2, 3, seed=1))], pooling=pooling)
    spec.layers[0].directions[0].weight_hh[:] = 0.0
    spec.layers[0].directions[1].weight_hh[:] = 0.0
    spec.output_weight[:, 1::6] = 0.0  # forward unit 1, in every pooled copy
    spec.output_weight[:, 3::6] = 0.0
    spec.output_weight[:, 5::6] = 0.0
    assert sizes(shrunk(spec))[2] == [[2, 1]]


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean+max"])
@pytest.mark.parametrize("idle", [0, 1])
def test_an_idle_direction(pooling, idle):
    spec = describe([layer("sru", drawn("sru", 2, 2), drawn("sru", 2, 2, seed=1))], pooling=pooling)
    copies = spec.output_weight.reshape(1, -1, 2, 2)
    copies[:, :, idle] = 0.0
    small = shrunk(spec)
    assert sizes(small)[2] == ([[2]] if idle == 1 else [[0, 2]])


def test_two_layers_drop_what_the_upper_one_ignores():
    lower = layer("lstm", drawn("lstm", 2, 3), drawn("lstm", 2, 3, seed=1))
    upper = layer("lstm", drawn("lstm", 6, 2, seed=2))
    spec = describe([lower, upper])
    for direction in lower.directions:
        direction.weight_hh[:] = 0.0
    upper.directions[0].weight_ih[:, [0, 4, 5]] = 0.0
    assert sizes(shrunk(spec)) == (3, 2, [[2, 1], [2]])


def test_the_skip_of_an_upper_layer_reads_the_lower_one():
    lower, upper = layer("sru", drawn("sru", 2, 2)), layer("sru", drawn("sru", 2, 2, seed=1))
    upper.directions[0].weight_ih[:6] = 0.0
    upper.directions[0].weight_ih[6:] = np.diag([1.7, 1.7])  # scale * x
    spec = describe([lower, upper])
    assert sizes(shrunk(spec))[2] == [[2], [2]]
    spec.output_weight[:, 1] = 0.0
    assert sizes(shrunk(spec))[2] == [[1], [1]]


def test_an_upper_layer_on_its_biases_outlives_the_lower_one():
    lower, upper = layer("gru", drawn("gru", 2, 2)), layer("gru", drawn("gru", 2, 2, seed=1))
    upper.directions[0].weight_ih[:] = 0.0
    small = shrunk(describe([lower, upper], pooling="last"))
    assert sizes(small) == (0, 0, [[2]])
    assert small.layers[0].directions[0].weight_ih.shape == (6, 0)


@pytest.mark.parametrize(("half", "left"), [(0, "max"), (1, "mean")])
def test_one_copy_of_the_pooling_is_enough_to_keep_a_unit(half, left):
    spec = describe([layer("sru", drawn("sru", 2, 2))], pooling="mean+max", outputs=3)
    spec.output_weight[:, 2 * half] = 0.0
    small = shrunk(spec)
    assert (small.pooling, sizes(small)[2], small.output_weight.shape) == ("mean+max", [[2]], (3, 4))
    spec.output_weight[:, 2 * half + 1] = 0.0
    small = shrunk(spec)
    assert (small.pooling, sizes(small)[2], small.output_weight.shape) == (left, [[2]], (3, 2))


@pytest.mark.parametrize("scores", [True, False])
def test_a_dead_recurrence_leaves_scores_and_bias(scores):
    spec = describe([layer("sru", zeros("sru", 2, 2), zeros("sru", 2, 2))], scores=scores, outputs=3)
    small = shrunk(spec)
    assert sizes(small) == (3 if scores else 0, 0, [])
    assert small.output_weight.shape == (3, 0)
    np.testing.assert_array_equal(small.output_bias, spec.output_bias)


def test_no_recurrence_at_all():
    spec = describe([], width=0, scores=True)
    spec.word_scores[2] = 0.0
    small = shrunk(spec)
    assert small.words == ["w0", "w2"]
    assert small.embedding.shape == (3, 0)


@pytest.mark.parametrize("pooling", ["last", "mean+max"])
def test_without_layers_the_embedding_itself_is_pooled(pooling):
    spec = describe([], width=3, pooling=pooling)
    spec.output_weight[:, 1::3] = 0.0
    spec.embedding[1, [0, 2]] = 0.0
    small = shrunk(spec)
    assert sizes(small) == (2, 2, [])
    assert small.output_weight.shape == (1, 2 if pooling == "last" else 4)


def test_zero_times_infinity_is_refused():
    spec = describe([layer("lstm", drawn("lstm", 2, 2))])
    spec.layers[0].directions[0].weight_hh[3, 1] = np.inf
    with pytest.raises(UserError, match=r"layers\.0\.forward\.weight_hh holds NaN or infinity"):
        shrink(spec)
