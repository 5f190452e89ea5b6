"""Proof of the random words: published vectors, moments, independence of neighbours and seeds."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from karui.ops.noise import draw_seed, reference

# Random123's known answers for threefry2x32: (rounds, key, counter, words).
KNOWN = [
    (20, (0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    (20, (0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    (20, (0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    (13, (0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
]


@pytest.mark.parametrize(("rounds", "key", "counter", "words"), KNOWN)
def test_known_answers(
    rounds: int, key: tuple[int, int], counter: tuple[int, int], words: tuple[int, int]
) -> None:
    found = reference.threefry(key, *(torch.tensor(c) for c in counter), rounds=rounds)
    assert tuple(int(word) for word in found) == words


def test_a_position_does_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(reference.words(5, 1000)[:77], reference.words(5, 77))


def test_halves_are_those_of_the_words() -> None:
    halves = reference.halves(5, 78)
    assert torch.equal(halves.view(39, 2) @ torch.tensor([1, 65536]), reference.words(5, 39))
    assert torch.equal(reference.halves(5, 77), halves[:77])


def test_uniform_and_normal_have_their_moments() -> None:
    n = 200_000
    z = reference.normal(9, n)
    for u in (reference.uniform(9, n), reference.uniform_of_halves(9, n)):
        assert abs(u.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
        assert abs(u.var() * 12 - 1) < 0.01
        for lag in (1, 2, 32, 64):
            assert abs(((u[lag:] - 0.5) * (u[:-lag] - 0.5)).mean()) < 4 / 12 / n**0.5
    assert abs(z.mean()) < 4 / n**0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((z**4).mean() - 3) < 4 * (96 / n) ** 0.5
    for lag in (1, 16, 32):
        assert abs((z[lag:] * z[:-lag]).mean()) < 4 / n**0.5


def test_seeds_that_differ_in_one_bit_share_nothing() -> None:
    n = 100_000
    first = reference.normal(1, n)
    for bit in (1, 20, 32, 61):
        assert abs((first * reference.normal(1 ^ (1 << bit), n)).mean()) < 4 / n**0.5


def test_the_generator_of_torch_decides_the_seed() -> None:
    torch.manual_seed(7)
    first = draw_seed(), draw_seed()
    state = torch.get_rng_state()
    third = draw_seed()
    torch.manual_seed(7)
    assert (draw_seed(), draw_seed()) == first
    torch.set_rng_state(state)
    assert draw_seed() == third
    assert len({*first, third}) == 3


def test_a_thread_that_first_draws_in_inference_draws_on() -> None:
    def run() -> list[int]:
        with torch.inference_mode():
            first = draw_seed()
        return [first, draw_seed()]

    with ThreadPoolExecutor(1) as pool:
        assert len(set(pool.submit(run).result())) == 2
