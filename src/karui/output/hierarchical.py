"""Hierarchical softmax over a Huffman tree.

Morin and Bengio, AISTATS 2005; Huffman codes as in Mikolov et al., NIPS 2013, section 2.1.
N positions, H hidden size, V classes, V - 1 inner nodes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.ops.tree_path import search_tree, tree_path
from karui.output.base import exact_dtype
from karui.output.factorised import INIT_RANGE, FactorisedOutput
from karui.output.huffman import HuffmanTree
from karui.output.table import use_sparse


class HierarchicalSoftmax(FactorisedOutput):
    """p(w|h) = product over the nodes n on the path of w of sigmoid(d (weight[n] . h + bias[n])), d = 1 - 2 code.

    A training step costs O(H log V) a position and touches only the nodes on the targets' paths. Exact, but another
    model than the softmax: its quality depends on the tree.
    counts: (V,) in any order, or V for equal ones. bias: one number a node, at first the log odds of the counts of its
    two branches, so that the first model is the unigram. sparse: gradients of `weight` (V - 1, H) and `bias` hold the
    nodes met only; "auto" from 50,000 classes.
    """

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        bias: bool = True,
        sparse: bool | str = "auto",
    ) -> None:
        super().__init__(hidden_size, counts)
        self.sparse = use_sparse(sparse, self.n_classes)
        self.tree = HuffmanTree(self.counts)
        nodes = self.n_classes - 1
        self.weight = nn.Parameter(torch.empty(nodes, hidden_size))
        self.bias = nn.Parameter(torch.empty(nodes)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small uniform weights; biases at the log odds of the counts."""
        with torch.no_grad():
            self.weight.uniform_(-INIT_RANGE, INIT_RANGE)
            if self.bias is not None:
                self.bias.copy_(self.tree.log_odds)

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Weight and bias of the nodes, where their gradients are sparse."""
        return [p for p in (self.weight, self.bias) if p is not None] if self.sparse else []

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        nodes, codes, offsets = self.tree(target)
        hidden = self._matmul_ready(hidden)
        return -tree_path(
            hidden, self.weight, self.bias, nodes=nodes, codes=codes, offsets=offsets, sparse=self.sparse
        )

    def _log_prob(self, hidden: Tensor) -> Tensor:
        if self.n_classes == 1:
            return hidden.sum(1, keepdim=True) * 0  # NaN stays NaN
        scores = F.linear(self._matmul_ready(hidden), self.weight, self.bias).to(exact_dtype(hidden.dtype))
        edges = torch.stack([F.logsigmoid(scores), F.logsigmoid(-scores)], 2)  # (N, V - 1, 2): one code each
        parent, firsts = self.tree.parent.long(), self.tree.levels
        levels = [edges[:, :1]]
        for above, first, end in zip(firsts, firsts[1:], [*firsts[2:], self.n_classes - 1], strict=False):
            reached = levels[-1].flatten(1)[:, parent[first:end] - 2 * above]
            levels.append(edges[:, first:end] + reached.unsqueeze(2))
        return torch.cat(levels, 1).flatten(1)[:, parent[self.n_classes - 1 :]]

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        hidden = self._matmul_ready(hidden)
        searched = hidden.device.type == "cpu" and hidden.dtype in (torch.float32, torch.float64)
        if searched and self.n_classes > 1:
            return search_tree(hidden, self.weight, self.bias, self.tree.branches, k)
        log_prob, ids = self.log_prob(hidden).topk(k)
        return log_prob, ids

    def _draw(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        hidden = self._matmul_ready(hidden)
        drawn = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
        walking = torch.arange(len(hidden), device=hidden.device)
        node = torch.zeros_like(walking)
        while self.n_classes > 1 and len(walking):
            scores = (self.weight[node] * hidden[walking]).sum(1)
            if self.bias is not None:
                scores = scores + self.bias[node]
            waits = torch.empty_like(scores).uniform_(generator=generator)
            child = self.tree.branches[node, (waits >= scores.sigmoid()).long()].long()
            at_leaf = child < 0
            drawn[walking[at_leaf]] = -1 - child[at_leaf]
            walking, node = walking[~at_leaf], child[~at_leaf]
        return drawn
