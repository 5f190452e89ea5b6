"""Random numbers as a function of a seed and a position, so that any thread can draw any part. Law in README.md."""

import torch


def draw_seed() -> int:
    """The seed of one draw, out of torch's generator for CPUs: `torch.manual_seed` and a resumed run decide it."""
    return int(torch.empty((), dtype=torch.int64).random_())
