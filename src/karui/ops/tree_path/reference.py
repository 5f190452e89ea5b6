"""Log-probability of paths through a binary tree, in plain torch.

Morin and Bengio, "Hierarchical Probabilistic Neural Network Language Model", AISTATS 2005; with the signs of Mikolov et
al., "Distributed Representations of Words and Phrases and their Compositionality", NIPS 2013, equation 3.
N rows, H hidden size, M inner nodes, L steps of all paths together.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def tree_path(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    nodes: Tensor,
    codes: Tensor,
    offsets: Tensor,
    sparse: bool = False,
) -> Tensor:
    """Sum over each row's steps of log sigmoid(d s), s = weight[node] . hidden + bias[node], d = 1 - 2 code: (N,)."""
    N, wide = hidden.shape[0], torch.float64 if hidden.dtype == torch.float64 else torch.float32
    rows = torch.arange(N, device=hidden.device).repeat_interleave(offsets.diff(), output_size=len(nodes))
    scores = (F.embedding(nodes, weight, sparse=sparse).to(wide) * hidden[rows]).sum(1)  # (L,)
    if bias is not None:
        scores = scores + bias.gather(0, nodes.long(), sparse_grad=sparse)
    steps = F.logsigmoid(torch.where(codes == 1, -scores, scores))
    return steps.new_zeros(N).index_add(0, rows, steps)


def leaf_paths(parent: Tensor, depth: Tensor, leaves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes (L,), codes (L,) and offsets (N + 1,) of the paths of leaves (N,), by the links parent = 2 node + code."""
    lengths = depth[leaves].long()
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    nodes = parent.new_empty(int(offsets[-1]))
    codes = depth.new_empty(len(nodes))
    up = parent[len(depth) - 1 + leaves]  # (N,)
    for step in range(1, int(lengths.max()) + 1 if len(leaves) else 1):  # from the leaf to the root
        walking = (lengths >= step).nonzero()[:, 0]
        at, link = offsets[1:][walking] - step, up[walking]
        nodes[at], codes[at] = link >> 1, (link & 1).to(codes.dtype)
        up = up.index_copy(0, walking, parent[(link >> 1).long()])
    return nodes, codes, offsets
