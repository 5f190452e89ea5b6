"""Two-level softmax: the class of a word, then the word in its class.

Goodman, "Classes for fast maximum entropy training", ICASSP 2001.
N positions, H hidden size, V words (classes of the output layer), C clusters of them; ranks number the words from the
most to the least frequent, a cluster is a range of ranks.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.output.base import exact_dtype, gumbel_argmax, matmul_dtype
from karui.output.factorised import INIT_RANGE, FactorisedOutput
from karui.output.grouped_nll import Group, grouped_nll
from karui.output.linear_nll import linear_nll
from karui.output.table import use_sparse

TOPK_WORDS, TOPK_POSITIONS = 4096, 2048  # scored at once by `topk`
NLL_POSITIONS = 4096  # at once by default: those of one cluster may meet a few thousand words


def cluster_borders(masses: Tensor, n_clusters: int) -> list[int]:
    """First ranks of the clusters, and V: each holds about the same share of the square roots of the counts.

    masses (V,), largest first. Binning by sqrt(count) is the best by frequency (Grave et al., ICML 2017, section 5).
    Fewer than n_clusters where a word fills several shares.
    """
    roots = masses.double().sqrt()
    middles = roots.cumsum(0) - roots / 2
    bins = (middles / roots.sum() * n_clusters).floor().clamp_max(n_clusters - 1)
    first = torch.cat([torch.zeros(1, dtype=torch.int64), bins.diff().nonzero()[:, 0] + 1])
    return [*first.tolist(), len(masses)]


class ClassSoftmax(FactorisedOutput):
    """p(w|h) = p(c|h) p(w|c, h): O(H sqrt(V)) a position, exact, another model than the softmax.

    counts: (V,) in any order, or V for equal ones. n_clusters: about how many, "auto" is sqrt(V) rounded up; what came
    out is `len(borders) - 1`. bias: of words and clusters, at first the log counts, so that the first model is the
    unigram. Rows of `weight` (V, H) and `bias` (V,) are words from the most to the least frequent (`order`). sparse:
    their gradients hold the rows of the targets' clusters only; "auto" from 50,000 words. `cluster.weight` (C, H) is
    small and dense.
    """

    rank: Tensor
    order: Tensor
    cluster_of: Tensor

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        bias: bool = True,
        sparse: bool | str = "auto",
        n_clusters: int | str = "auto",
    ) -> None:
        super().__init__(hidden_size, counts)
        V = self.n_classes
        if n_clusters != "auto" and (not isinstance(n_clusters, int) or not 1 <= n_clusters <= V):
            raise ValueError(f"n_clusters must be 'auto' or in [1, {V}], got {n_clusters!r}")
        self.n_clusters = n_clusters
        self.sparse = use_sparse(sparse, V)
        order = torch.argsort(self.counts, descending=True, stable=True)
        wanted = math.ceil(math.sqrt(V)) if isinstance(n_clusters, str) else n_clusters
        self.borders = cluster_borders(self.counts.clamp_min(1)[order], wanted)
        sizes = torch.tensor(self.borders).diff()
        self.register_buffer("order", order, persistent=False)  # (V,): word of a rank
        self.register_buffer("rank", torch.empty_like(order), persistent=False)  # (V,): rank of a word
        self.rank[order] = torch.arange(V)
        self.register_buffer(
            "cluster_of", torch.arange(len(sizes)).repeat_interleave(sizes), persistent=False
        )
        self.weight = nn.Parameter(torch.empty(V, hidden_size))
        self.bias = nn.Parameter(torch.empty(V)) if bias else None
        self.cluster = nn.Linear(hidden_size, len(sizes), bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small uniform weights; biases at the log masses of clusters and of words in their cluster."""
        masses = self.counts.clamp_min(1).double()[self.order]
        of_clusters = masses.new_zeros(len(self.borders) - 1).index_add(0, self.cluster_of, masses)
        with torch.no_grad():
            self.weight.uniform_(-INIT_RANGE, INIT_RANGE)
            self.cluster.weight.uniform_(-INIT_RANGE, INIT_RANGE)
            if self.bias is not None:
                self.bias.copy_((masses / of_clusters[self.cluster_of]).log())
                self.cluster.bias.copy_((of_clusters / of_clusters.sum()).log())

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Weight and bias of the words, where their gradients are sparse."""
        return [p for p in (self.weight, self.bias) if p is not None] if self.sparse else []

    def _groups(self, cluster: Tensor) -> tuple[Tensor, list[Group]]:
        """Positions sorted by cluster, and the ranges of positions and words of each cluster met."""
        place = cluster.argsort(stable=True)
        met, sizes = torch.unique_consecutive(cluster[place], return_counts=True)
        ends, groups = sizes.cumsum(0).tolist(), []
        for c, end, size in zip(met.tolist(), ends, sizes.tolist(), strict=True):
            groups.append(Group(end - size, end, self.borders[c], self.borders[c + 1]))
        return place, groups

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        rank = self.rank[target]
        cluster = self.cluster_of[rank]
        losses = linear_nll(hidden, self.cluster.weight, self.cluster.bias, cluster)
        if len(target) == 0:
            return losses
        place, groups = self._groups(cluster)
        inside = grouped_nll(hidden[place], self.weight, self.bias, rank[place], groups, sparse=self.sparse)
        return losses.index_add(0, place, inside)

    def _nll(self, hidden: Tensor, target: Tensor, reduction: str, chunk: int | None) -> Tensor:
        return super()._nll(hidden, target, reduction, chunk or NLL_POSITIONS)

    def _cluster_log_prob(self, hidden: Tensor) -> Tensor:
        return torch.log_softmax(self.cluster(hidden), 1, dtype=exact_dtype(matmul_dtype(hidden)))

    def _words_log_prob(self, hidden: Tensor, cluster: int) -> Tensor:
        """Log-probabilities (N, words of the cluster) given the cluster."""
        first, end = self.borders[cluster : cluster + 2]
        logits = F.linear(hidden, self.weight[first:end], None if self.bias is None else self.bias[first:end])
        return torch.log_softmax(logits, 1, dtype=exact_dtype(matmul_dtype(hidden)))

    def _log_prob(self, hidden: Tensor) -> Tensor:
        logits = F.linear(hidden, self.weight, self.bias).to(exact_dtype(matmul_dtype(hidden)))
        sizes = torch.tensor(self.borders).diff().tolist()
        inside = torch.cat([torch.log_softmax(part, 1) for part in logits.split(sizes, 1)], 1)
        return (inside + self._cluster_log_prob(hidden)[:, self.cluster_of])[:, self.rank]

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Clusters are opened from the likeliest on, by the positions whose k-th word they can beat."""
        of_clusters = self._cluster_log_prob(hidden)
        best = of_clusters.new_full((len(hidden), k), -torch.inf)
        ranks = torch.full((len(hidden), k), -1, dtype=torch.int64, device=hidden.device)
        if len(hidden) == 0:
            return best, ranks
        highest, order = of_clusters.amax(0).sort(descending=True)
        sizes = torch.tensor(self.borders).diff()[order.cpu()]
        turns = (sizes.cumsum(0) - sizes).div(
            TOPK_WORDS, rounding_mode="floor"
        )  # several small clusters at a time
        for first, end in itertools.pairwise([0, *(turns.diff().nonzero()[:, 0] + 1).tolist(), len(sizes)]):
            lacking = ranks[:, -1] < 0
            if bool(highest[first] <= best[:, -1].min()) and not bool(lacking.any()):
                break  # nor can any cluster behind it
            clusters = order[first:end]
            opened = ~(of_clusters[:, clusters].amax(1) <= best[:, -1]) | lacking  # NaN opens
            for rows in opened.nonzero()[:, 0].split(TOPK_POSITIONS):
                words, log_prob = self._clusters_log_prob(hidden[rows], of_clusters[rows], clusters)
                both = torch.cat([best[rows], log_prob], 1)
                best[rows], chosen = both.topk(k)
                every = torch.cat([ranks[rows], words.expand(len(rows), -1)], 1)
                ranks[rows] = every.gather(1, chosen)
        return best, self.order[ranks]

    def _clusters_log_prob(
        self, hidden: Tensor, of_clusters: Tensor, clusters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ranks (W,) of the words of some clusters, and their log-probabilities (N, W)."""
        words = torch.cat(
            [torch.arange(*self.borders[c : c + 2], device=hidden.device) for c in clusters.tolist()]
        )
        logits = F.linear(hidden, self.weight[words], None if self.bias is None else self.bias[words])
        logits = logits.to(of_clusters.dtype)
        sizes = [self.borders[c + 1] - self.borders[c] for c in clusters.tolist()]
        norms = torch.stack([part.logsumexp(1) for part in logits.split(sizes, 1)], 1)  # (N, clusters)
        place = torch.arange(len(sizes), device=hidden.device).repeat_interleave(
            torch.tensor(sizes, device=hidden.device)
        )
        return words, logits + (of_clusters[:, clusters] - norms)[:, place]

    def _draw(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        cluster = gumbel_argmax(self._cluster_log_prob(hidden), generator)
        ranks = torch.empty_like(cluster)
        place, groups = self._groups(cluster)
        for group in groups:
            rows = place[group.first : group.end]
            inside = self._words_log_prob(hidden[rows], int(self.cluster_of[group.first_word]))
            ranks[rows] = group.first_word + gumbel_argmax(inside, generator)
        return self.order[ranks]

    def extra_repr(self) -> str:
        """Sizes and the number of clusters."""
        return f"{super().extra_repr()}, clusters={len(self.borders) - 1}"
