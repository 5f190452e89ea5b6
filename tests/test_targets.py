"""What a model shall come to: sizes as people write them, and exactly one target."""

import pytest

from karui.targets import Target, parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [("50kB", 50_000), ("200 kB", 200_000), ("1.5MB", 1_500_000), ("4KiB", 4096), (6000, 6000)],
)
def test_sizes_are_read(text, count):
    assert parse_size(text) == count
    assert Target(size=text).value == count


@pytest.mark.parametrize("text", ["", "kB", "-3", "1e3", "3 parsecs"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="cannot read the size .*write bytes, or a number with kB"):
        parse_size(text)
    with pytest.raises(ValueError, match="^size: cannot read the size"):
        Target(size=text)


def test_a_size_of_nothing():
    with pytest.raises(ValueError, match="at least 1 byte"):
        parse_size("0.4b")


def test_a_target_is_exactly_one():
    with pytest.raises(ValueError, match="one of density, params, size, flops, got density and size"):
        Target(density=0.1, size=100)
    with pytest.raises(ValueError, match="got none"):
        Target()
    assert (Target(flops=12).kind, Target(flops=12).value) == ("flops", 12.0)
    assert (Target(params=7).kind, Target(density=0.5).kind) == ("params", "density")


@pytest.mark.parametrize(
    "values", [{"density": 0.0}, {"density": 1.01}, {"params": 0}, {"flops": float("inf")}]
)
def test_targets_out_of_range(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))} must be"):
        Target(**values)
