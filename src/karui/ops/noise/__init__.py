"""Random numbers as a function of a seed and a position, so that any thread can draw any part. Law in README.md."""

import threading

import torch


class _Room(threading.local):
    """Where a thread's next seed is drawn: a fresh tensor would cost twice the draw."""

    def __init__(self) -> None:
        with torch.inference_mode(False):  # else a first draw in it would leave no other
            self.seed = torch.empty((), dtype=torch.int64, device="cpu")


_room = _Room()


def draw_seed() -> int:
    """The seed of one draw, out of torch's generator for CPUs: `torch.manual_seed` and a resumed run decide it."""
    return int(_room.seed.random_())
