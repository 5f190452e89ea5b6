"""What a sparse model shall come to: a density, a number of weights, a file size, or FLOPs. Imports no torch."""

import re
from dataclasses import dataclass

UNITS = {"": 1, "b": 1, "kb": 1000, "kib": 1024, "mb": 1000**2, "mib": 1024**2}
KINDS = ("density", "params", "size", "flops")


def parse_size(text: str | int) -> int:
    """Bytes of "50kB", "6000", "1.5 MB" or "4KiB"; at least 1. Raises ValueError saying what is read."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(text))
    if match is None or match[2].lower() not in UNITS:
        raise ValueError(f"cannot read the size {text!r}; write bytes, or a number with kB, KiB, MB or MiB")
    size = int(float(match[1]) * UNITS[match[2].lower()])
    if size < 1:
        raise ValueError(f"a size must be at least 1 byte, got {text!r}")
    return size


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a model shall come to: exactly one of the four. Raises ValueError otherwise, or out of range."""

    density: float | None = None
    """Kept weights / weights that can be pruned, in (0, 1]. Biases and norms are neither."""

    params: int | None = None
    """Numbers that the deployed model stores: kept weights, and all biases, norms and layers that stay dense."""

    size: int | str | None = None
    """Bytes of the file, as a number or such as "50kB" (k = 1000; KiB = 1024)."""

    flops: float | None = None
    """Floating-point operations of one forward pass (a multiply-add is two); what a pass is, the measure says."""

    def __post_init__(self) -> None:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"target must be one of {', '.join(KINDS)}, got {' and '.join(given) or 'none'}")
        if self.density is not None and not 0 < self.density <= 1:
            raise ValueError(f"density must be in (0, 1], got {self.density!r}")
        for name in ("params", "flops"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if self.size is not None:
            try:
                parse_size(self.size)
            except ValueError as error:
                raise ValueError(f"size: {error}") from error

    @property
    def kind(self) -> str:
        """Which of the four: "density", "params", "size" or "flops"."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        """The number asked for; a size in bytes."""
        return parse_size(self.size) if self.size is not None else float(getattr(self, self.kind))
