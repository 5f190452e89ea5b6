import pytest

from karui.report.units import format_bytes, format_percent, format_points, format_times, format_us


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (950, "950 B"), (1000, "1.00 kB"), (5321, "5.32 kB"), (9996, "10.0 kB"), (14_230, "14.2 kB"),
     (99_960, "100 kB"), (142_682, "143 kB"), (2_610_000, "2.61 MB"), (3.2e9, "3.20 GB")],
)  # fmt: skip
def test_bytes(count, said):
    assert format_bytes(count) == said


def test_percent_and_points():
    assert [format_percent(value) for value in (0.88314, 1.0, None)] == ["88.3 %", "100.0 %", "–"]
    assert [format_points(value) for value in (0.0123, -0.0049, -0.0001)] == ["+1.2", "−0.5", "+0.0"]


def test_times_and_microseconds():
    assert [format_times(value) for value in (1.04, 9.94, 9.96, 1234)] == ["1.0×", "9.9×", "10×", "1,234×"]
    assert [format_us(value) for value in (9.44, 131.6, 12_300, None)] == ["9.4", "132", "12,300", "–"]
