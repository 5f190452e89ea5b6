"""Huffman trees: prefix codes, the least mean length, and one numbering for equal counts."""

import heapq
import itertools
import math

import pytest
import torch

from karui.output.huffman import HuffmanTree


def least_total(counts: list[int]) -> int:
    """Sum of count x code length of a Huffman code, by a heap: the sum of the masses of all merges."""
    heap, total = [max(c, 1) for c in counts], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


def codes_of(tree: HuffmanTree) -> list[str]:
    V = len(tree.depth)
    _, codes, offsets = tree(torch.arange(V))
    text = "".join(map(str, codes.tolist()))
    return [text[a:b] for a, b in zip(offsets.tolist(), offsets.tolist()[1:], strict=False)]


def some_counts(name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return {
        "equal": torch.ones(37, dtype=torch.int64),
        "zipf": (1e6 / torch.arange(1, 501)).long()[torch.randperm(500, generator=generator)],
        "zeros": torch.tensor([0, 7, 0, 0, 2, 1, 0]),
        "all zero": torch.zeros(5, dtype=torch.int64),
        "fibonacci": torch.tensor([1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]),
        "powers": torch.tensor([2**i for i in range(61)]),
        "random": torch.randint(0, 40, (200,), generator=generator),
        "two": torch.tensor([3, 9]),
        "three": torch.tensor([3, 9, 3]),
    }[name]


NAMES = ["equal", "zipf", "zeros", "all zero", "fibonacci", "powers", "random", "two", "three"]


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_prefix_free_and_complete(name) -> None:
    codes = codes_of(HuffmanTree(some_counts(name)))
    assert len(set(codes)) == len(codes)
    ordered = sorted(codes)
    assert not any(b.startswith(a) for a, b in itertools.pairwise(ordered))
    assert math.isclose(sum(2.0 ** -len(code) for code in codes), 1.0)  # Kraft: nothing is left over


@pytest.mark.parametrize("name", NAMES)
def test_mean_length_is_the_least_and_near_the_entropy(name) -> None:
    counts = some_counts(name)
    tree = HuffmanTree(counts)
    masses = counts.clamp_min(1)
    assert int((masses * tree.depth).sum()) == least_total(counts.tolist())
    p = masses.double() / masses.sum()
    entropy = -(p * p.log2()).sum()
    assert entropy - 1e-9 <= (p * tree.depth).sum() < entropy + 1
    assert tree.depth.tolist() == [len(code) for code in codes_of(tree)]


@pytest.mark.parametrize("name", NAMES)
def test_links_agree_and_nodes_are_numbered_by_level(name) -> None:
    counts = some_counts(name)
    tree, V = HuffmanTree(counts), len(counts)
    masses = counts.clamp_min(1).double()
    below = torch.zeros(V - 1, dtype=torch.float64)
    level = torch.zeros(V - 1, dtype=torch.int64)
    for node in reversed(range(V - 1)):
        sides = [masses[~c] if c < 0 else below[c] for c in tree.branches[node].tolist()]
        below[node] = sum(sides)
        assert sides[0] >= sides[1]
        assert abs(tree.log_odds[node] - math.log(sides[0] / sides[1])) < 1e-12
        for code, child in enumerate(tree.branches[node].tolist()):
            assert child < 0 or child > node
            assert tree.parent[child if child >= 0 else V - 1 + ~child] == 2 * node + code
    assert below[0] == masses.sum()
    assert tree.parent[0] == -1
    for node in range(1, V - 1):
        level[node] = level[tree.parent[node] >> 1] + 1
    assert torch.equal(level, level.sort().values)
    assert tree.levels == [int((level < d).sum()) for d in range(int(level.max()) + 1)]


def test_equal_counts_give_the_lower_id_the_shorter_code_and_ties_the_flatter_tree() -> None:
    tree = HuffmanTree(torch.ones(6, dtype=torch.int64))
    assert tree.depth.tolist() == [2, 2, 3, 3, 3, 3]
    assert HuffmanTree(torch.tensor([2, 1, 1, 1, 1])).depth.max() == 3
    again = HuffmanTree(torch.ones(6, dtype=torch.int64))
    assert torch.equal(tree.parent, again.parent)


def test_one_class_needs_no_code() -> None:
    tree = HuffmanTree(torch.tensor([4]))
    nodes, codes, offsets = tree(torch.zeros(3, dtype=torch.int64))
    assert len(nodes) == len(codes) == 0
    assert offsets.tolist() == [0, 0, 0, 0]
    assert tree.branches.shape == (0, 2)
