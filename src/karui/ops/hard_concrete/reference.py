"""The hard concrete gate in plain torch, with the letters of the paper.

Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018, equations 10 to 13.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6  # u stays this far from 0 and 1


class Law(NamedTuple):
    """Constants of a gate."""

    beta: float
    """Temperature."""
    gamma: float
    zeta: float
    """Ends of the stretched interval."""
    low: float
    high: float
    """Bounds of log alpha."""

    @property
    def shift(self) -> float:
        """P(z > 0) = sigmoid(log alpha - shift)."""
        return self.beta * math.log(-self.gamma / self.zeta)


def gates(log_alpha: Tensor, u: Tensor, law: Law) -> Tensor:
    """s = sigmoid((log u - log(1 - u) + la) / beta), z = clip(s (zeta - gamma) + gamma, 0, 1); u in (0, 1)."""
    s = torch.sigmoid((torch.logit(u, EPSILON) + log_alpha) / law.beta)
    return F.hardtanh(s * (law.zeta - law.gamma) + law.gamma, 0.0, 1.0)


def open_probability(log_alpha: Tensor, law: Law) -> Tensor:
    """P(z > 0), equation 12."""
    return torch.sigmoid(log_alpha - law.shift)


def spread(gate: Tensor, shape: tuple[int, ...], block: tuple[int, int]) -> Tensor:
    """Gates of blocks (blocks down, blocks across) to the elements of a matrix, cut off at its edges."""
    height, width = block
    whole = gate.repeat_interleave(height, 0).repeat_interleave(width, 1)
    return whole[: shape[0], : shape[1]]
