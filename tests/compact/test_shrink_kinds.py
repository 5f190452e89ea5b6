"""Rules of shrinking for the Statistical Recurrent Unit, QRNN, minGRU and relu, on hand-made matrices in fp64."""

import numpy as np
import pytest

from karui.compact.shrink import shrink
from tests.compact.build import describe, drawn, layer, rows, sizes, texts, zeros
from tests.compact.forward import logits
from tests.compact.test_shrink import shrunk

KINDS = ("statistical", "qrnn", "mingru")


def folded(spec):
    """As `shrunk`, where constants moved into float32 weights: equal up to their rounding."""
    before = logits(spec, texts(spec.words))
    small = shrink(spec)
    np.testing.assert_array_less(np.abs(logits(small, texts(spec.words)) - before), 1e-5)
    np.testing.assert_array_equal(logits(spec, texts(spec.words)), before)
    assert sizes(shrink(small)) == sizes(small)
    return small


def statistics_of(direction):
    """P, R, A."""
    return len(direction.weight_ih), len(direction.weight_r), len(direction.alphas)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["identity", "tanh", "relu"])
def test_nothing_goes_where_everything_is_used(kind, activation):
    two = layer(kind, drawn(kind, 2, 3), drawn(kind, 2, 3, seed=1), activation=activation)
    small = shrunk(describe([two], pooling="mean+max"))
    assert sizes(small) == (3, 2, [[3, 3]])
    if kind == "statistical":
        assert statistics_of(small.layers[0].directions[0]) == (3, 2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_words_and_columns_go(kind):
    spec = describe([layer(kind, drawn(kind, 4, 2), drawn(kind, 4, 2, seed=1))], words=4, width=4)
    spec.embedding[[2, 4]] = 0.0
    spec.embedding[:, 1] = 0.0
    for direction in spec.layers[0].directions:
        direction.weight_ih[:, 3] = 0.0
    small = shrunk(spec)
    assert small.words == ["w0", "w2"]
    np.testing.assert_array_equal(small.embedding, spec.embedding[[0, 1, 3]][:, [0, 2]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean+max"])
def test_unread_units_go_and_directions_may_differ(kind, pooling):
    spec = describe([layer(kind, drawn(kind, 2, 3), drawn(kind, 2, 3, seed=1))], pooling=pooling)
    for unit in (1, 3, 5):
        spec.output_weight[:, unit::6] = 0.0
    assert sizes(shrunk(spec))[2] == [[2, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_under_another_loses_what_the_upper_one_ignores(kind):
    upper = layer(kind, drawn(kind, 6, 2, seed=2))
    spec = describe([layer(kind, drawn(kind, 2, 3), drawn(kind, 2, 3, seed=1)), upper])
    upper.directions[0].weight_ih[:, [0, 4, 5]] = 0.0
    assert sizes(shrunk(spec)) == (3, 2, [[2, 1], [2]])


@pytest.mark.parametrize("kind", ["statistical", "qrnn"])
def test_units_without_any_drive_are_zero_for_ever(kind):
    spec = describe([layer(kind, zeros(kind, 2, 3), zeros(kind, 2, 3))], scores=True)
    assert sizes(shrunk(spec)) == (3, 0, [])


def test_a_mingru_without_any_weight_is_not_zero():
    """g(0) is 1/2: the unit climbs towards it."""
    small = shrunk(describe([layer("mingru", zeros("mingru", 2, 2))], pooling="last"))
    assert sizes(small) == (0, 0, [[2]])
    assert np.ptp(logits(small, [["a"], ["a"] * 9])) > 0.1


def test_a_qrnn_is_driven_by_the_bias_of_its_candidate():
    direction = drawn("qrnn", 2, 2)
    direction.weight_ih[1] = 0.0
    spec = describe([layer("qrnn", direction)], pooling="last")
    assert sizes(shrunk(spec))[2] == [[2]]
    direction.bias[1] = 0.0
    assert sizes(shrunk(spec))[2] == [[1]]


@pytest.mark.parametrize("half", [0, 1])
def test_both_windows_of_a_qrnn_count_as_reading(half):
    spec = describe([layer("qrnn", drawn("qrnn", 4, 2, window=2), window=2)], width=4)
    weight = spec.layers[0].directions[0].weight_ih
    weight[:, [1, 5]] = 0.0
    weight[:, 2 + 4 * half] = 0.0
    small = shrunk(spec)
    assert (small.layers[0].window, small.embedding.shape[1]) == (2, 3)
    np.testing.assert_array_equal(small.layers[0].directions[0].weight_ih, weight[:, [0, 2, 3, 4, 6, 7]])


def test_a_window_that_nobody_reads_is_closed():
    two = [drawn("qrnn", 2, 2, window=2), drawn("qrnn", 2, 2, window=2, seed=1)]
    spec = describe([layer("qrnn", *two, window=2), layer("qrnn", drawn("qrnn", 4, 2, window=2), window=2)])
    two[0].weight_ih[:, 2:] = 0.0
    assert [each.window for each in shrunk(spec).layers] == [2, 2]
    two[1].weight_ih[:, 2:] = 0.0
    small = shrunk(spec)
    assert [each.window for each in small.layers] == [1, 2]
    assert small.layers[0].directions[0].weight_ih.shape == (6, 2)


@pytest.mark.parametrize("pooling", ["last", "max", "mean+max"])
@pytest.mark.parametrize("stacked", [True, False])
def test_an_output_gate_that_reads_nothing_moves_into_its_readers(pooling, stacked):
    two = [drawn("qrnn", 2, 2), drawn("qrnn", 2, 3, seed=1)]
    layers = [layer("qrnn", *two)]
    if stacked:
        layers.append(layer("qrnn", drawn("qrnn", 5, 2, window=2), window=2))
    spec = describe(layers, pooling=pooling)
    two[0].weight_ih[4:] = 0.0
    assert shrunk(spec).layers[0].output_gate
    two[1].weight_ih[6:] = 0.0
    small = folded(spec)
    assert not small.layers[0].output_gate
    assert small.layers[0].directions[1].weight_ih.shape == (6, 2)
    assert len(small.layers[0].directions[1].bias) == 6
    assert shrink(spec, fold=False).layers[0].output_gate


def test_unread_statistics_scales_and_recurrent_units_go():
    direction = drawn("statistical", 2, 2, stats=4, recur=3)
    grid_o = direction.weight_o.reshape(2, 3, 4)
    grid_r = direction.weight_r.reshape(3, 3, 4)
    grid_o[:, 1] = grid_r[:, 1] = 0.0  # nobody reads the second scale
    grid_o[:, :, 3] = grid_r[:2, :, 3] = 0.0  # the last statistic feeds only the last r
    direction.weight_phi[:3, 2] = 0.0  # which feeds only the last statistic
    small = shrunk(describe([layer("statistical", direction)]))
    [kept] = small.layers[0].directions
    assert statistics_of(kept) == (3, 2, 2)
    np.testing.assert_array_equal(kept.alphas, direction.alphas[[0, 2]])
    np.testing.assert_array_equal(kept.weight_o, grid_o[:, [0, 2], :3].reshape(2, 6))
    np.testing.assert_array_equal(kept.weight_r, grid_r[:2, [0, 2], :3].reshape(2, 6))
    np.testing.assert_array_equal(kept.weight_phi, direction.weight_phi[:3, :2])
    np.testing.assert_array_equal(kept.bias, direction.bias[[0, 1, 2, 4, 5, 7, 8]])


def test_a_statistic_that_only_feeds_back_stays():
    direction = drawn("statistical", 2, 1, stats=2, recur=1)
    direction.weight_o.reshape(3, 2)[:, 1] = 0.0
    small = shrunk(describe([layer("statistical", direction)]))
    assert statistics_of(small.layers[0].directions[0]) == (2, 1, 3)


def test_statistics_that_stay_zero_are_forgotten():
    """With relu a negative bias without input is silence; with tanh it drives."""
    direction = drawn("statistical", 2, 2, stats=3, recur=2)
    direction.weight_ih[1] = 0.0
    direction.weight_phi[1] = [0.0, 0.4]
    direction.weight_r[1] = 0.0
    direction.weight_r.reshape(2, 3, 3)[1, :, 1] = 0.1  # statistic 1 and r 1 feed each other alone
    direction.bias[[1, 4]] = -0.3
    spec = describe([layer("statistical", direction, activation="relu")])
    assert statistics_of(shrunk(spec).layers[0].directions[0]) == (2, 1, 3)
    spec.layers[0].activation = "tanh"
    assert statistics_of(shrunk(spec).layers[0].directions[0]) == (3, 2, 3)


def test_a_scale_of_one_never_takes_anything_in():
    direction = drawn("statistical", 2, 2)
    direction.alphas[1] = 1.0
    small = shrunk(describe([layer("statistical", direction)]))
    np.testing.assert_array_equal(small.layers[0].directions[0].alphas, direction.alphas[[0, 2]])


@pytest.mark.parametrize("activation", ["identity", "tanh", "relu", "elu"])
def test_a_constant_recurrent_unit_moves_into_the_bias(activation):
    direction = drawn("statistical", 2, 2)
    direction.weight_r[1] = 0.0
    direction.bias[4] = 0.6
    spec = describe([layer("statistical", direction, activation=activation)])
    small = folded(spec)
    assert statistics_of(small.layers[0].directions[0]) == (3, 1, 3)
    assert statistics_of(shrink(spec, fold=False).layers[0].directions[0]) == (3, 2, 3)


def test_without_feedback_no_recurrent_units_are_left():
    direction = drawn("statistical", 2, 2)
    direction.weight_phi[:] = 0.0
    small = shrunk(describe([layer("statistical", direction)]))
    assert statistics_of(small.layers[0].directions[0]) == (3, 0, 3)


@pytest.mark.parametrize("pooling", ["last", "mean+max"])
def test_a_constant_output_moves_into_the_biases_of_who_reads_it(pooling):
    lower, upper = drawn("statistical", 2, 2), drawn("statistical", 2, 2, seed=1)
    for direction in (lower, upper):
        direction.weight_o[1] = 0.0
        direction.bias[-1] = 0.7
    small = folded(describe([layer("statistical", lower), layer("statistical", upper)], pooling=pooling))
    assert sizes(small)[2] == [[1], [1]]


def test_relu_of_a_cell_without_candidate_is_zero():
    direction = drawn("sru", 2, 2)
    direction.weight_ih[[1, 7]] = 0.0
    assert sizes(shrunk(describe([layer("sru", direction, activation="relu")], pooling="max")))[2] == [[1]]


def test_blocks_of_rows():
    direction = drawn("qrnn", 2, 3)
    np.testing.assert_array_equal(rows("qrnn", direction.weight_ih, 2, 1), direction.weight_ih[7])
