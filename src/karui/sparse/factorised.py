"""A Linear as a product of two thin matrices, whose rank-one parts can be gated: FLOP.

Wang, Wohlwend, Lei, "Structured Pruning of Large Language Models", EMNLP 2020 (arXiv 1910.04732): W = P diag(z) Q; a z
that is zero removes a column of P and a row of Q, and what is left are two smaller dense matrices.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Factorised(nn.Module):
    """y = weight_out (weight_in x) + bias; weight_in (K, in_features), weight_out (out_features, K)."""

    def __init__(self, weight_in: Tensor, weight_out: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if weight_in.dim() != 2 or weight_out.dim() != 2 or weight_in.shape[0] != weight_out.shape[1]:
            raise ValueError(
                f"weight_in (K, in) and weight_out (out, K) must share K, got {tuple(weight_in.shape)} "
                f"and {tuple(weight_out.shape)}"
            )
        self.weight_in, self.weight_out = nn.Parameter(weight_in), nn.Parameter(weight_out)
        self.bias = None if bias is None else nn.Parameter(bias)

    @property
    def rank(self) -> int:
        """K."""
        return self.weight_in.shape[0]

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return self.weight_in.shape[1]

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return self.weight_out.shape[0]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(..., in_features) to (..., out_features)."""
        return F.linear(F.linear(input, self.weight_in), self.weight_out, self.bias)

    @torch.no_grad()
    def without_dead_parts(self) -> "Factorised":
        """The same map without the parts whose row or column is zero."""
        alive = self.weight_in.any(1) & self.weight_out.any(0)
        bias = None if self.bias is None else self.bias.clone()
        found = Factorised(self.weight_in[alive].clone(), self.weight_out[:, alive].clone(), bias)
        return found.train(self.training)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias is not None}"


@torch.no_grad()
def factorise(linear: nn.Linear, rank: int) -> Factorised:
    """The best approximation of `linear` of the given rank (singular value decomposition, square roots on both sides).

    Raises ValueError where rank is not between 1 and the smaller side.
    """
    limit = min(linear.in_features, linear.out_features)
    if not 1 <= rank <= limit:
        raise ValueError(f"rank must be between 1 and {limit} for {linear}, got {rank}")
    u, s, v = torch.linalg.svd(linear.weight.double(), full_matrices=False)
    root = s[:rank].sqrt()
    weight_in, weight_out = (root[:, None] * v[:rank]), (u[:, :rank] * root)
    bias = None if linear.bias is None else linear.bias.clone()
    dtype = linear.weight.dtype
    return Factorised(weight_in.to(dtype).contiguous(), weight_out.to(dtype).contiguous(), bias)
