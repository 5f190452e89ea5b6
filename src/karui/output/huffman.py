"""Huffman trees over classes: short paths for frequent classes, kept as links to parents.

V classes, V - 1 inner nodes numbered level by level from the root, L steps of all paths asked for together.
"""

import torch
from torch import Tensor, nn

from karui.ops.tree_path import build_huffman, leaf_paths


class HuffmanTree(nn.Module):
    """The tree of least mean code length for class counts, built in O(V) after sorting; equal counts, equal tree.

    counts (V,) int64 >= 0 in any order; zero has the mass of one. Code 0 is the heavier branch of a node.
    Two links a class instead of V paths: `parent` (2V - 1,) int32 holds 2 * node + code of the inner nodes, then of
    the classes, -1 for the root; `branches` (V - 1, 2) int32 an inner node or ~class; `depth` (V,) uint8 the length of
    each code. `levels` are the first nodes of each level. Follows from the counts, so it is not saved.
    """

    parent: Tensor
    branches: Tensor
    depth: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        parent, depth, self.log_odds, self.levels = build_huffman(counts.cpu())
        V = len(depth)
        branches = torch.empty(2 * (V - 1), dtype=torch.int32)
        if V > 1:
            order = torch.arange(V, dtype=torch.int32)
            branches[parent[1:].long()] = torch.cat(
                [order[1:-1], -1 - order]
            )  # inner nodes but the root, classes
        for name, table in (("parent", parent), ("branches", branches.view(-1, 2)), ("depth", depth)):
            self.register_buffer(name, table, persistent=False)

    def forward(self, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Paths of classes (N,) from the root: nodes (L,) int32, codes (L,) uint8, offsets (N + 1,) int64."""
        return leaf_paths(self.parent, self.depth, classes)
