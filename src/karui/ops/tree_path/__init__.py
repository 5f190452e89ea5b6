"""Products of branch probabilities along paths of a binary tree, and the trees themselves. Derivation in README.md."""

from typing import Any

import torch
from torch import Tensor

from karui.ops.choice import FULL_DTYPES, choose_implementation, is_traced
from karui.ops.tree_path import reference

IMPLEMENTATIONS = ("reference", "cpp", "triton")
MAX_LEAVES, MAX_TOTAL = 2**30, 2**62


def tree_path(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    nodes: Tensor,
    codes: Tensor,
    offsets: Tensor,
    sparse: bool = False,
    implementation: str | None = None,
) -> Tensor:
    """Log-probability of N paths (Morin and Bengio, AISTATS 2005; Mikolov et al., NIPS 2013, equation 3): (N,).

    hidden (N, H), weight (M, H), bias (M,) or None, of one dtype. nodes (L,) int32 and codes (L,) uint8 are the steps
    of all paths, those of row n at offsets[n]..offsets[n + 1]; offsets (N + 1,) int64. A step with code 0 has the
    probability sigmoid(weight[node] . hidden + bias[node]), with code 1 the rest. Nodes must be in range.
    sparse: the gradients of weight and bias are sparse tensors of the nodes met; each once and ascending, but for
    "reference".
    implementation: "reference", "cpp" (float32 and float64 on a CPU), "triton" (CUDA; float32 inside for 16 bits) or
    None for the fastest at hand. The result is of float32 at least.

    Raises ValueError on shapes and dtypes that do not fit and on an implementation that cannot run.
    """
    (N, H), M = hidden.shape, weight.shape[0]
    if weight.shape != (M, H) or (bias is not None and bias.shape != (M,)):
        found = None if bias is None else tuple(bias.shape)
        raise ValueError(f"weight and bias must be (M, {H}) and (M,), got {tuple(weight.shape)} and {found}")
    if offsets.shape != (N + 1,) or nodes.shape != codes.shape:
        shapes = [tuple(t.shape) for t in (offsets, nodes, codes)]
        raise ValueError(f"offsets, nodes and codes must be ({N + 1},), (L,) and (L,), got {shapes}")
    if nodes.dtype != torch.int32 or codes.dtype != torch.uint8 or offsets.dtype != torch.int64:
        raise ValueError(
            f"nodes, codes, offsets must be int32, uint8, int64, got {nodes.dtype}, {codes.dtype}, {offsets.dtype}"
        )
    if weight.dtype != hidden.dtype or (bias is not None and bias.dtype != hidden.dtype):
        raise ValueError(f"weight and bias must have the dtype of hidden, {hidden.dtype}, got {weight.dtype}")
    choice = _choose(hidden, implementation)
    if choice == "cpp":
        from karui.ops.tree_path import cpu as chosen
    elif choice == "triton":
        from karui.ops.tree_path import triton as chosen
    else:
        chosen = reference
    return chosen.tree_path(hidden, weight, bias, nodes=nodes, codes=codes, offsets=offsets, sparse=sparse)


def search_tree(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, children: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k most probable leaves of each row: log-probabilities (N, k), largest first, and leaves (N, k), exact.

    Best first: a leaf is no more probable than any node above it. hidden (N, H), weight (M, H), bias (M,) or None,
    float32 or float64 on a CPU; children (M, 2) int32, an inner node or ~leaf. 1 <= k <= M + 1, M >= 1. A row with
    NaN has NaN for answers.
    """
    _choose(hidden, "cpp")
    if weight.dtype != hidden.dtype:
        raise ValueError(f"hidden and weight must have one dtype, got {hidden.dtype} and {weight.dtype}")
    M = weight.shape[0]
    if children.shape != (M, 2) or children.dtype != torch.int32 or M < 1 or not 1 <= k <= M + 1:
        raise ValueError(
            f"children must be int32 ({M}, 2) and k in 1..{M + 1}, got {children.shape}, k = {k}"
        )
    from karui.ops.tree_path import cpu

    return cpu.search_tree(hidden, weight, bias, children, k)


def leaf_paths(parent: Tensor, depth: Tensor, leaves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The paths of leaves (N,) int64 from the root: nodes (L,) int32, codes (L,) uint8, offsets (N + 1,) int64.

    parent (2V - 1,) int32, depth (V,) uint8: as `build_huffman` gives them. Leaves must be in range.
    """
    chosen: Any = reference
    if leaves.is_cuda:
        from karui.ops import triton_launch

        if triton_launch.is_installed():
            from karui.ops.tree_path import triton as chosen
    elif leaves.device.type == "cpu" and not is_traced(leaves):
        from karui.ops.tree_path import cpu as chosen
    return chosen.leaf_paths(parent, depth, leaves)


def build_huffman(counts: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """A Huffman tree over V classes by two queues (van Leeuwen 1976), O(V) after sorting, the same for equal counts.

    counts (V,) int64 >= 0 on the CPU in any order; zero has the mass of one. Returns
    parent (2V - 1,) int32: 2 * node + code of the inner nodes 0..V-2, then of the classes; -1 for the root;
    depth (V,) uint8: length of each class's code; log_odds (V - 1,) float64: log of the mass under code 0, the heavier
    branch, over that under code 1; and the first inner node of each level: nodes are numbered level by level.
    """
    if counts.dim() != 1 or counts.dtype != torch.int64 or counts.device.type != "cpu":
        raise ValueError(f"counts must be 1-D int64 on the CPU, got {counts.dtype} {tuple(counts.shape)}")
    if not 1 <= len(counts) <= MAX_LEAVES:
        raise ValueError(f"counts must have between 1 and {MAX_LEAVES} classes, got {len(counts)}")
    if counts.min() < 0 or counts.double().sum() >= MAX_TOTAL:
        raise ValueError(f"counts must be >= 0 with a sum below 2^62, got a minimum of {int(counts.min())}")
    from karui.ops.tree_path import cpu

    return cpu.build_huffman(counts)


def _choose(tensor: Tensor, implementation: str | None) -> str:
    """One of IMPLEMENTATIONS: the caller's word, or the fastest; on a CPU compilers see the reference."""
    if implementation is None and not tensor.is_cuda and is_traced(tensor):
        return "reference"
    return choose_implementation(tensor, implementation, IMPLEMENTATIONS, dtypes=FULL_DTYPES)
