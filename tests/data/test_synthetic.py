import numpy as np
import pytest

from karui.data.synthetic import ASK, BLANK, adding_batch, copy_batch


@pytest.mark.parametrize("steps", [2, 3, 50])
def test_the_sum_is_of_the_two_marked_numbers(steps):
    inputs, sums = adding_batch(np.random.default_rng(1), 500, steps)
    assert inputs.shape == (500, steps, 2)
    marked = inputs[..., 1] == 1
    assert (marked[:, : steps // 2].sum(1) == 1).all()
    assert (marked[:, steps // 2 :].sum(1) == 1).all()
    assert np.allclose((inputs[..., 0] * marked).sum(1), sums)
    assert 0 <= inputs[..., 0].min() < inputs[..., 0].max() < 1


def test_answering_one_has_an_error_of_a_sixth():
    sums = adding_batch(np.random.default_rng(0), 20_000, 10)[1]
    assert abs(((sums - 1) ** 2).mean() - 1 / 6) < 0.005


def test_the_symbols_come_back_after_the_delay():
    inputs, targets = copy_batch(np.random.default_rng(0), 200, 7)
    assert inputs.shape == targets.shape == (200, 27)
    assert (inputs[:, :10] == targets[:, 17:]).all()
    assert set(np.unique(inputs[:, :10])) == set(range(8))
    assert (inputs[:, 16] == ASK).all()
    assert (inputs[:, 10:16] == BLANK).all()
    assert (inputs[:, 17:] == BLANK).all()
    assert (targets[:, :17] == BLANK).all()


def test_the_same_seed_draws_the_same():
    one, two = (adding_batch(np.random.default_rng([3, 1]), 5, 9) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("draw", "size"), [(adding_batch, 1), (copy_batch, 0)])
def test_sizes_that_make_no_problem(draw, size):
    with pytest.raises(ValueError, match=f"must be at least .*, got {size}"):
        draw(np.random.default_rng(0), 2, size)
