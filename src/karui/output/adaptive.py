"""Adaptive softmax: frequent classes in full width, the others in narrower tails.

Grave, Joulin, Cisse, Grangier, Jegou, "Efficient softmax approximation for GPUs", ICML 2017.
N positions, H hidden size, V classes, J tails; ranks number the classes from the most to the least frequent.
"""

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from karui.output.adaptive_parts import by_part, draw, log_prob_parts, topk_parts
from karui.output.base import exact_dtype, matmul_dtype
from karui.output.cutoffs import choose_cutoffs
from karui.output.factorised import INIT_RANGE, FactorisedOutput
from karui.output.linear_nll import linear_nll
from karui.output.table import use_sparse


class AdaptiveSoftmax(FactorisedOutput):
    """p(w) = p_head(w) in the shortlist, else p_head(tail) p_tail(w given tail): exact, less capacity in the tails.

    The head maps H to the shortlist and one logit a tail; tail i maps H to H / div_value^(i+1), but to no fewer than
    min_dim (torch has no such floor: at H = 256 its third tail has 4), and that to its words.
    counts: (V,) in any order, or V for equal ones. cutoffs: ascending ranks at which to cut, as torch has them; "auto"
    takes the cheapest for these counts (`choose_cutoffs`); what was taken is the attribute `cutoffs`. bias: of head and
    tails, at first the log counts, so that the first model is the unigram; head_bias: of the head alone, None as `bias`
    (torch: bias=False, head_bias=...). sparse: gradients of a tail's words are sparse tensors, of all its rows, for
    row-wise optimizers; "auto" from 50,000 words in the tail. A tail without a target in a batch gets no gradient.
    The state dict names `head` and `tail` as torch's module does.
    """

    rank: Tensor
    order: Tensor

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        bias: bool = True,
        sparse: bool | str = "auto",
        cutoffs: Sequence[int] | str = "auto",
        div_value: float = 4.0,
        min_dim: int = 32,
        head_bias: bool | None = None,
    ) -> None:
        super().__init__(hidden_size, counts)
        V = self.n_classes
        if not div_value > 0:
            raise ValueError(f"div_value must be > 0, got {div_value}")
        if min_dim < 1:
            raise ValueError(f"min_dim must be >= 1, got {min_dim}")
        self.cutoffs = _checked(cutoffs, V) if cutoffs != "auto" else choose_cutoffs(self.counts)
        self.div_value, self.min_dim, self.bias = div_value, min_dim, bias
        self.head_bias = bias if head_bias is None else head_bias
        order = torch.argsort(self.counts, descending=True, stable=True)
        self.register_buffer("order", order, persistent=False)  # (V,): class of a rank
        self.register_buffer("rank", torch.empty_like(order), persistent=False)  # (V,): rank of a class
        self.rank[order] = torch.arange(V)
        borders = [*self.cutoffs, V]
        self.shortlist = borders[0]
        self.head = nn.Linear(hidden_size, self.shortlist + len(self.cutoffs), bias=self.head_bias)
        self.tail = nn.ModuleList()
        for i, (first, end) in enumerate(itertools.pairwise(borders)):
            width = min(hidden_size, max(min_dim, int(hidden_size // div_value ** (i + 1))))
            words = nn.Linear(width, end - first, bias=bias)
            self.tail.append(nn.Sequential(nn.Linear(hidden_size, width, bias=False), words))
        self.sparse = sparse
        self._sparse_tails = [use_sparse(sparse, b - a) for a, b in itertools.pairwise(borders)]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small uniform weights of words, torch's for the projections; biases at the log counts."""
        masses = self.counts.clamp_min(1).double()[self.order]
        borders = [*self.cutoffs, self.n_classes]
        tails = [masses[first:end] for first, end in itertools.pairwise(borders)]
        of_tails = torch.stack([tail.sum() for tail in tails]) if tails else masses[:0]
        with torch.no_grad():
            for linear, mass in [
                (self.head, torch.cat([masses[: self.shortlist], of_tails])),
                *((self._words(i), tail) for i, tail in enumerate(tails)),
            ]:
                linear.weight.uniform_(-INIT_RANGE, INIT_RANGE)
                if linear.bias is not None:
                    linear.bias.copy_((mass / mass.sum()).log())
            for tail in self.tail:
                tail[0].reset_parameters()  # type: ignore[index, operator]

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Weights and biases of the words of the tails whose gradients are sparse."""
        large = [self._words(i) for i, sparse in enumerate(self._sparse_tails) if sparse]
        return [p for words in large for p in words.parameters()]

    def _words(self, i: int) -> nn.Linear:
        return self.tail[i][1]  # type: ignore[index, return-value]

    def _project(self, i: int, hidden: Tensor) -> Tensor:
        return self.tail[i][0](hidden)  # type: ignore[index, operator]

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        rank = self.rank[target]
        part, places = by_part(rank, self.cutoffs)
        in_head = torch.where(rank < self.shortlist, rank, self.shortlist + part - 1)
        losses = linear_nll(hidden, self.head.weight, self.head.bias, in_head)
        for i, at in enumerate(places):
            if len(at) == 0:
                continue
            words = self._words(i)
            narrow, inside = self._project(i, hidden[at]), rank[at] - self.cutoffs[i]
            tail = linear_nll(narrow, words.weight, words.bias, inside, sparse=self._sparse_tails[i])
            losses = losses.index_add(0, at, tail)
        return losses

    def _log_prob(self, hidden: Tensor) -> Tensor:
        return log_prob_parts(self, hidden)[:, self.rank]

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        log_prob, ranks = topk_parts(self, hidden, k)
        return log_prob, self.order[ranks]

    def _draw(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.order[draw(self, hidden, generator)]

    def head_log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (N, shortlist + J) of the shortlist's words and of the tails."""
        return torch.log_softmax(self.head(hidden), 1, dtype=exact_dtype(matmul_dtype(hidden)))

    def tail_log_prob(self, i: int, hidden: Tensor) -> Tensor:
        """Log-probabilities (N, size of tail i) of its words given the tail."""
        logits = self._words(i)(self._project(i, hidden))
        return torch.log_softmax(logits, 1, dtype=exact_dtype(matmul_dtype(hidden)))

    @classmethod
    def from_torch(cls, module: nn.AdaptiveLogSoftmaxWithLoss) -> "AdaptiveSoftmax":
        """The same distribution as torch's module, whose ids are ranks already: equal weights, equal losses."""
        layer = cls(
            module.in_features,
            module.n_classes,
            bias=False,
            sparse=False,
            cutoffs=module.cutoffs[:-1],
            div_value=module.div_value,
            min_dim=1,
            head_bias=module.head_bias,
        ).to(module.head.weight)
        layer.load_state_dict(module.state_dict() | {"counts": layer.counts})
        return layer

    def to_torch(self) -> nn.AdaptiveLogSoftmaxWithLoss:
        """torch's module with copied weights; its class i is the one of rank i here, `order[i]`.

        Raises ValueError where torch has no word for this layer: biases of tails, or no tails at all.
        """
        if self.bias and self.tail:
            raise ValueError(
                "torch's adaptive softmax has no bias in its tails; build the layer with bias=False"
            )
        if not self.tail:
            raise ValueError("torch's adaptive softmax needs at least one cut-off, this layer has none")
        module = nn.AdaptiveLogSoftmaxWithLoss(
            self.hidden_size, self.n_classes, self.cutoffs, self.div_value, self.head_bias
        )
        module.head, module.tail = copy.deepcopy(self.head), copy.deepcopy(self.tail)  # widths by min_dim
        return module

    def extra_repr(self) -> str:
        """Sizes, cut-offs and what shapes the tails."""
        return f"{super().extra_repr()}, cutoffs={self.cutoffs}, div_value={self.div_value}, min_dim={self.min_dim}"


def _checked(cutoffs: Sequence[int] | str, n_classes: int) -> list[int]:
    good = not isinstance(cutoffs, str) and all(isinstance(c, int) for c in cutoffs)
    steps = [0, *cutoffs, n_classes] if good else []
    if not good or any(a >= b for a, b in itertools.pairwise(steps)):  # type: ignore[operator]
        raise ValueError(
            f"cutoffs must be 'auto' or ascending integers between 1 and {n_classes - 1}, got {cutoffs!r}"
        )
    return [int(c) for c in cutoffs]
