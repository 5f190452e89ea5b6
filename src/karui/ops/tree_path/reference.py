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
        scores = scores + F.embedding(nodes, bias[:, None], sparse=sparse)[:, 0]
    steps = F.logsigmoid(torch.where(codes == 1, -scores, scores))
    return steps.new_zeros(N).index_add(0, rows, steps)
