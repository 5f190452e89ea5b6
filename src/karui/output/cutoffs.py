"""Where to cut a vocabulary for adaptive softmax: the cheapest borders by dynamic programming.

Grave, Joulin, Cisse, Grangier, Jegou, "Efficient softmax approximation for GPUs", ICML 2017, section 4.
V classes from the most to the least frequent, J tail clusters, k words in a part, p its share of the counts.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from torch import Tensor

FLAT_COLUMNS = 50  # a matrix product with fewer columns takes no less time (Grave et al., figure 2)
MAX_TAILS = 4
MIN_SHORTLIST = (
    2000  # of the published settings (PTB 2000; text8 2000, 10000; One Billion Word 4000, 40000, 200000)
)
GRID = 400  # borders tried at once: all of them up to this many classes


def step_cost(columns: np.ndarray | float) -> np.ndarray:
    """Time g(k) of a product with k columns for every position, in columns: flat up to FLAT_COLUMNS."""
    return np.maximum(columns, FLAT_COLUMNS)


def cost_of_cutoffs(counts: Sequence[int] | np.ndarray, cutoffs: Sequence[int]) -> float:
    """g(J + k_head) + sum_i p_i g(k_i), in columns a position, of sorted counts cut at `cutoffs`.

    counts (V,), largest first; zero weighs as one. A plain softmax costs g(V).
    """
    share = np.maximum(np.asarray(counts, np.float64), 1)
    share = share / share.sum()
    borders = [0, *cutoffs, len(share)]
    cost = float(step_cost(len(cutoffs) + borders[1]))
    for first, end in itertools.pairwise(borders[1:]):
        cost += float(share[first:end].sum() * step_cost(end - first))
    return cost


def _cheapest(grid: np.ndarray, mass: np.ndarray, max_tails: int, min_shortlist: int) -> list[int]:
    """Best cut-offs among `grid`, which ascends from 1 to V; mass[i] is the share of all words before grid[i]."""
    G = len(grid)
    tail = (mass[None, :] - mass[:, None]) * step_cost(
        grid[None, :] - grid[:, None]
    )  # (G, G): from border to border
    tail[np.tril_indices(G)] = np.inf
    best_cost, best_cutoffs = float(step_cost(grid[-1])), list[int]()
    rest, follow = np.full(G, np.inf), list[np.ndarray]()
    rest[-1] = 0.0  # cost of the words behind a border, in J clusters; none so far
    for J in range(1, max_tails + 1):
        total = tail + rest[None, :]
        follow.append(total.argmin(1))
        rest = total.min(1)
        whole = np.where(grid < min_shortlist, np.inf, step_cost(J + grid) + rest)
        start = int(whole.argmin())
        if whole[start] < best_cost:
            best_cost, best_cutoffs = float(whole[start]), []
            for step in reversed(range(J)):
                best_cutoffs.append(int(grid[start]))
                start = follow[step][start]
    return best_cutoffs


def choose_cutoffs(
    counts: Tensor, *, max_tails: int = MAX_TAILS, min_shortlist: int = MIN_SHORTLIST
) -> list[int]:
    """Ranks at which to cut: the first ends the shortlist, each further one a tail; empty where cutting does not pay.

    counts (V,) in any order; zero weighs as one. The cost knows nothing of quality and would give a narrow vector to
    frequent words of a small vocabulary, so the shortlist has at least `min_shortlist` words. Minimises
    `cost_of_cutoffs` over up to `max_tails` tails: exactly up to 400 classes, beyond them on a geometric grid of
    borders that is refined around the best ones until they stay.
    """
    share = np.sort(np.maximum(counts.cpu().numpy().astype(np.float64), 1))[::-1]
    V = len(share)
    mass = np.concatenate([[0.0], np.cumsum(share) / share.sum()])
    cutoffs: list[int] = []
    width = V / GRID
    grid = (
        np.unique(np.geomspace(1, V, min(GRID, V)).round().astype(np.int64))
        if V > GRID
        else np.arange(1, V + 1)
    )
    for _ in range(20):
        found = _cheapest(grid, mass[grid], max_tails, min_shortlist)
        if found == cutoffs and width < 1:
            break
        cutoffs, width = found, width / 4
        if V <= GRID or not cutoffs:
            break
        near = [c + np.round(np.linspace(-40, 40, 81) * max(width, 1)).astype(np.int64) for c in cutoffs]
        grid = np.unique(np.clip(np.concatenate([*near, [min_shortlist, V]]), 1, V))
    return cutoffs
