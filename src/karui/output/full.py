"""Full softmax: maximum likelihood over all classes.

N positions, H hidden size, V classes.
"""

from torch import Tensor, nn

from karui.output.base import matmul_dtype
from karui.output.cross_entropy import chunked_cross_entropy
from karui.output.flat import FlatOutput


class FullSoftmax(FlatOutput):
    """L = -s_t + log sum_w exp(s_w); gradient p - onehot(t). O(N V H) time, one block of scores in memory.

    The measure of all other layers, and the right choice up to some ten thousand classes. Its forward is its exact
    `nll`. Gradients are dense: every row of the table gets one. chunk_size: positions of a block of scores, or "auto".
    The other arguments: see FlatOutput; sparse=True is refused.
    """

    uses_every_row = True

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        chunk_size: int | str = "auto",
        bias: bool = True,
        weight: nn.Parameter | None = None,
        sparse: bool | str = "auto",
    ) -> None:
        super().__init__(hidden_size, counts, bias=bias, weight=weight, sparse=sparse)
        if chunk_size != "auto" and (not isinstance(chunk_size, int) or chunk_size < 1):
            raise ValueError(f"chunk_size must be 'auto' or >= 1, got {chunk_size!r}")
        self.chunk_size = chunk_size
        self.reset_parameters()

    def _training_loss(self, hidden: Tensor, target: Tensor, reduction: str) -> Tensor:
        return self._nll(hidden, target, reduction, None)

    def _nll(self, hidden: Tensor, target: Tensor, reduction: str, chunk: int | None) -> Tensor:
        own = None if isinstance(self.chunk_size, str) else self.chunk_size
        return chunked_cross_entropy(
            hidden,
            self.weight,
            self.bias,
            target,
            reduction=reduction,
            chunk=chunk or own,
            dtype=matmul_dtype(hidden),
        )
