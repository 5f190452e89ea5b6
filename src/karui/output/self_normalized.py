"""Softmax that learns to normalise itself (Devlin et al. 2014; Andreas and Klein 2015).

N positions, H hidden size, V classes, M positions whose normaliser is computed.
"""

import math

import torch
from torch import Tensor, nn

from karui.output.base import exact_dtype, matmul_dtype
from karui.output.cross_entropy import chunked_cross_entropy
from karui.output.flat import FlatOutput
from karui.output.table import gather_rows


class SelfNormalizedSoftmax(FlatOutput):
    """L = -s_t + log Z + alpha (log Z)^2, so that serving may read s_t alone.

    Gradient p (1 + 2 alpha log Z) - onehot(t).

    fraction: share of the positions whose log Z is computed, drawn anew each step; their terms in Z count 1 / fraction
    times, so the loss is an unbiased estimate of that of fraction=1, for `fraction` of its cost. The bias starts as the
    log unigram, where log Z is near 0. Report |log Z| (`log_z`) beside any figure read from `score`.
    Arguments: see FlatOutput; gradients are dense.
    """

    uses_every_row = True

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        alpha: float = 0.1,
        fraction: float = 1.0,
        bias: bool = True,
        weight: nn.Parameter | None = None,
        sparse: bool | str = "auto",
    ) -> None:
        super().__init__(hidden_size, counts, bias=bias, weight=weight, sparse=sparse)
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha must be a number >= 0, got {alpha}")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}")
        self.alpha, self.fraction = alpha, fraction
        self.reset_parameters()

    def _penalised(self, hidden: Tensor, target: Tensor, reduction: str) -> Tensor:
        return chunked_cross_entropy(
            hidden,
            self.weight,
            self.bias,
            target,
            reduction=reduction,
            penalty=self.alpha,
            dtype=matmul_dtype(hidden),
        )

    def _training_loss(self, hidden: Tensor, target: Tensor, reduction: str) -> Tensor:
        n = len(target)
        if self.fraction == 1 or n <= 1:
            return self._penalised(hidden, target, reduction)
        m = max(1, round(self.fraction * n))
        chosen = torch.randperm(n, device=target.device)[:m]
        weight = torch.zeros(n, device=hidden.device).index_fill_(0, chosen, n / m)  # of the terms in Z
        rows, bias = gather_rows(self.weight, self.bias, target, sparse=False)
        wide = exact_dtype(hidden.dtype)
        scores = (hidden.to(wide) * rows.to(wide)).sum(1)
        scores = scores if bias is None else scores + bias.to(wide)
        # The penalised loss of the chosen holds -s_t too: what remains is weight * s_t - s_t.
        rest = (weight.to(wide) - 1) * scores
        if reduction != "none":
            total = self._penalised(hidden[chosen], target[chosen], "sum") * (n / m) + rest.sum()
            return total / n if reduction == "mean" else total
        return rest.index_add(0, chosen, self._penalised(hidden[chosen], target[chosen], "none") * (n / m))
