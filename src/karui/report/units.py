"""Numbers as people read them."""


def format_bytes(count: float) -> str:
    """Return bytes with three digits and a decimal unit: 950 B, 5.32 kB, 14.2 kB, 2.61 MB."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            value = count / size
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{count:.0f} B"


def format_percent(fraction: float | None) -> str:
    """Return a fraction in percent with one decimal, or an en dash where there is none."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def format_points(difference: float) -> str:
    """Return a difference of two fractions in percentage points, always with its sign."""
    points = round(100 * difference, 1) + 0.0  # no "-0.0"
    return f"{points:+.1f}".replace("-", "−")


def format_us(microseconds: float | None) -> str:
    """Return microseconds: 9.4, 132, 12,300; an en dash where not measured."""
    if microseconds is None:
        return "–"
    return f"{microseconds:.1f}" if microseconds < 10 else f"{microseconds:,.0f}"


def format_times(ratio: float) -> str:
    """Return a ratio: 3.4×, 120×."""
    return f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:,.0f}×"
