"""Floating-point operations of a model as it is deployed, where every product meets each weight once a step."""

import torch
from torch import nn

from karui.sparse.measures import harden

MULTIPLY_ADD = 2


@torch.no_grad()
def flops_of_step(model: nn.Module) -> float:
    """FLOPs of the matrix products of one step: two for each weight that is not zero; embeddings are looked up.

    For models of Linear, recurrent and output layers, whose weights are used once a step (a token, a pixel). Raises
    TypeError for convolutions, whose weights are used once a position.
    """
    total = 0
    for name, module in harden(model).named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):  # noqa: SLF001  torch has no public name for all of them
            raise TypeError(f"{name} is a convolution: its FLOPs need the size of its input")
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            continue
        own = (p for p in module.parameters(recurse=False) if p.dim() == 2)
        total += sum(int(torch.count_nonzero(parameter)) for parameter in own)
    return float(MULTIPLY_ADD * total)
