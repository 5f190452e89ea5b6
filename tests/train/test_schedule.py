import pytest

from karui.train.schedule import Schedule
from karui.train.settings import TrainSettings


def factors(total_steps, **settings):
    schedule = Schedule(TrainSettings(**settings), total_steps)
    return [schedule.lr_factor(step, step * 10 // total_steps) for step in range(total_steps + 1)]


def test_linear_is_full_until_decay_start_and_zero_after_the_last_step():
    values = factors(100, schedule="linear", decay_start=0.5)
    assert values[:51] == [1.0] * 51
    assert values[75] == pytest.approx(0.5)
    assert values[99] == pytest.approx(0.02)
    assert values[100] == 0.0


def test_cosine_is_half_in_the_middle_of_its_fall():
    values = factors(100, schedule="cosine", decay_start=0.2)
    assert values[20] == 1.0
    assert values[60] == pytest.approx(0.5)
    assert values[100] == pytest.approx(0.0, abs=1e-15)


def test_step_multiplies_at_the_start_of_each_milestone():
    values = factors(100, schedule="step", milestones=(5, 8), step_factor=0.1)
    assert values[49] == 1.0
    assert values[50] == values[79] == pytest.approx(0.1)
    assert values[80] == pytest.approx(0.01)


def test_constant_stays():
    assert set(factors(10, schedule="constant")) == {1.0}


@pytest.mark.parametrize("warmup", [{"warmup_fraction": 0.1}, {"warmup_steps": 10}])
def test_warmup_rises_to_one_and_never_starts_at_zero(warmup):
    values = factors(100, schedule="linear", decay_start=0.0, **warmup)
    assert values[0] == pytest.approx(0.1)
    assert values[9] == values[10] == 1.0
    assert values[55] == pytest.approx(0.5)
    assert values[100] == 0.0


def test_fall_that_starts_at_the_end_never_falls():
    assert factors(10, schedule="linear", decay_start=1.0) == [1.0] * 11


def test_penalty_weight_rises_from_zero_and_is_held():
    schedule = Schedule(TrainSettings(penalty_weight=4.0, penalty_ramp=0.5), 100)
    assert [schedule.penalty_weight(step) for step in (0, 25, 50, 99)] == [0.0, 2.0, 4.0, 4.0]
    assert not schedule.is_past_ramp(49)
    assert schedule.is_past_ramp(50)


def test_penalty_weight_without_ramp_is_full_from_the_first_step():
    schedule = Schedule(TrainSettings(penalty_weight=0.5, penalty_ramp=0.0), 100)
    assert schedule.penalty_weight(0) == 0.5
    assert schedule.is_past_ramp(0)
