"""Threefry-2x32 in plain torch (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)."""

import math

import torch
from torch import Tensor

ROUNDS = 13  # from here on it passes the authors' tests; 20 is their cautious number
GROUP = 32
TURNS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
WORD = 0xFFFFFFFF


def threefry(key: tuple[int, int], x0: Tensor, x1: Tensor, *, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Encrypt counters x0, x1 (int64, below 2^32, any shape) with a key of two such words."""
    keys = (*key, PARITY ^ key[0] ^ key[1])
    x0, x1 = (x0 + keys[0]) & WORD, (x1 + keys[1]) & WORD
    for r in range(rounds):
        turn = TURNS[r % 8]
        x0 = (x0 + x1) & WORD
        x1 = (((x1 << turn) & WORD) | (x1 >> (32 - turn))) ^ x0
        if r % 4 == 3:
            k = r // 4 + 1
            x0, x1 = (x0 + keys[k % 3]) & WORD, (x1 + keys[(k + 1) % 3] + k) & WORD
    return x0, x1


def words(seed: int, count: int) -> Tensor:
    """The words of 32 bits of positions 0 to count - 1: (count,) int64.

    Positions come in groups of 32: pair l of group g is the counter 16 g + l, its words are positions l and 16 + l.
    """
    groups = -(-count // GROUP)
    counter = torch.arange(groups * GROUP // 2)
    pair = threefry((seed & WORD, (seed >> 32) & WORD), counter & WORD, counter >> 32)
    return torch.stack([word.view(groups, GROUP // 2) for word in pair], 1).flatten()[:count]


def halves(seed: int, count: int) -> Tensor:
    """Numbers of 16 bits, two of each word and the lower half first: (count,) int64."""
    word = words(seed, -(-count // 2))
    return torch.stack([word & 0xFFFF, word >> 16], 1).flatten()[:count]


def uniform(seed: int, count: int) -> Tensor:
    """(word + 1/2) / 2^32: (count,) float64, in (0, 1)."""
    return (words(seed, count).double() + 0.5) / 2.0**32


def uniform_of_halves(seed: int, count: int) -> Tensor:
    """(half + 1/2) / 2^16: (count,) float64, in (0, 1)."""
    return (halves(seed, count).double() + 0.5) / 2.0**16


def normal(seed: int, count: int) -> Tensor:
    """N(0, 1) by Box and Muller, positions l and 16 + l of a group from its pair l: (count,) float64."""
    groups = -(-count // GROUP)
    u, v = uniform(seed, groups * GROUP).view(groups, 2, GROUP // 2).unbind(1)
    # The compiled form takes the angle from the word itself, not from its middle.
    turn = 2.0 * math.pi * (v - 0.5 / 2.0**32)
    radius = torch.sqrt(-2.0 * torch.log(u))
    return torch.stack([radius * torch.cos(turn), radius * torch.sin(turn)], 1).flatten()[:count]
