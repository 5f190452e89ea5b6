"""How the parts of an adaptive softmax make one answer; all in ranks, the most frequent class being 0.

N positions, H hidden size, V classes, J tails, S words in the shortlist.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from karui.output.base import gumbel_argmax

if TYPE_CHECKING:
    from karui.output.adaptive import AdaptiveSoftmax

CHUNK_NUMBERS = 2**24  # log-probabilities of a tail held at once


def by_part(rank: Tensor, cutoffs: list[int]) -> tuple[Tensor, list[Tensor]]:
    """The part (N,) of each rank, 0 being the shortlist, and the positions in each of the J tails."""
    part = torch.bucketize(rank, torch.tensor(cutoffs, device=rank.device), right=True)
    sizes = torch.bincount(part, minlength=len(cutoffs) + 1).tolist()  # the one wait for a GPU
    return part, list(part.argsort(stable=True).split(sizes))[1:]


def log_prob_parts(layer: "AdaptiveSoftmax", hidden: Tensor) -> Tensor:
    """Log-probability of every rank (N, V)."""
    head = layer.head_log_prob(hidden)
    S = layer.shortlist
    parts = [head[:, :S]]
    for i in range(len(layer.tail)):
        parts.append(layer.tail_log_prob(i, hidden) + head[:, S + i, None])
    return torch.cat(parts, 1)


def topk_parts(layer: "AdaptiveSoftmax", hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k likeliest ranks (N, k), exact: a tail is computed where its own log-probability beats the k-th so far."""
    head = layer.head_log_prob(hidden)
    S = layer.shortlist
    best, ranks = head[:, :S].topk(min(k, S))
    if k > S:
        missing = (len(head), k - S)
        best = torch.cat([best, best.new_full(missing, -torch.inf)], 1)
        ranks = torch.cat([ranks, ranks.new_full(missing, -1)], 1)
    for i in head[:, S:].mean(0).argsort(descending=True).tolist():
        of_tail = head[:, S + i]
        opened = (~(of_tail <= best[:, -1]) | (ranks[:, -1] < 0)).nonzero()[:, 0]  # NaN opens too
        size = layer.tail[i][1].out_features  # type: ignore[index]
        for rows in opened.split(max(1, CHUNK_NUMBERS // size)) if len(opened) else ():
            inside, at = layer.tail_log_prob(i, hidden[rows]).topk(min(k, size))
            both = torch.cat([best[rows], inside + of_tail[rows, None]], 1)
            best[rows], chosen = both.topk(k)
            ranks[rows] = torch.cat([ranks[rows], at + layer.cutoffs[i]], 1).gather(1, chosen)
    return best, ranks


def draw(layer: "AdaptiveSoftmax", hidden: Tensor, generator: torch.Generator | None) -> Tensor:
    """Ranks (N,) drawn part by part."""
    in_head = gumbel_argmax(layer.head_log_prob(hidden), generator)
    ranks = in_head.clone()
    for i, first in enumerate(layer.cutoffs):
        at = (in_head == layer.shortlist + i).nonzero()[:, 0]
        if len(at):
            ranks[at] = first + gumbel_argmax(layer.tail_log_prob(i, hidden[at]), generator)
    return ranks
