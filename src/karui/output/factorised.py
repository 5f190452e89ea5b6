"""What the layers that are normalised by construction share: no estimate anywhere, the loss is the exact nll."""

from typing import Any

import torch
from torch import Tensor

from karui.output.base import OutputLayer, as_counts, exact_dtype, gumbel_argmax, reduced

INIT_RANGE = 0.05  # weights start small, so that the biases, the logs of the counts, set the first model
CHUNK_NUMBERS = 2**24  # positions x classes held at once where an answer needs them all


class FactorisedOutput(OutputLayer):
    """A product of small distributions, built from class counts in any order; a count of zero weighs as one.

    `counts` (V,) is saved with the weights: what is derived from it (tree, classes, cut-offs) follows from it and is
    not. Loading weights of a layer that was built from other counts is refused, since they would belong to other words.
    There is no V x H table of classes, so nothing can be tied to an embedding: use a flat layer for that.
    """

    counts: Tensor

    def __init__(self, hidden_size: int, counts: Tensor | int) -> None:
        counts = as_counts(counts)
        super().__init__(hidden_size, len(counts))
        self.register_buffer("counts", counts)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Exact log-probability of every class: (..., V), so for few positions at a time."""
        rows = self._flat_positions(hidden)
        chunk = max(1, CHUNK_NUMBERS // self.n_classes)
        parts = [self._log_prob(part) for part in rows.split(chunk)] if len(rows) else [self._log_prob(rows)]
        return torch.cat(parts).view(*hidden.shape[:-1], self.n_classes)

    def score(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Log-probability (...) of target (...): scores of these layers are normalised."""
        return -self._losses(self._flat_positions(hidden, target), target.reshape(-1).long()).view(
            target.shape
        )

    def log_z(self, hidden: Tensor) -> Tensor:
        """Zeros (...): the distribution sums to one by its form."""
        return self._flat_positions(hidden).new_zeros(hidden.shape[:-1], dtype=exact_dtype(hidden.dtype))

    def topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k likeliest classes, best first: exact log-probabilities (..., k) and int64 ids (..., k).

        What cannot hold one of them is not computed; no gradient.
        """
        self._check_k(k)
        with torch.no_grad():
            log_prob, ids = self._topk(self._flat_positions(hidden), k)
        return log_prob.view(*hidden.shape[:-1], k), ids.view(*hidden.shape[:-1], k)

    # --- for subclasses ---------------------------------------------------------------------------------------------

    def _log_prob(self, hidden: Tensor) -> Tensor:
        """(N, V) of hidden (N, H)."""
        raise NotImplementedError

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(N, k) twice of hidden (N, H)."""
        raise NotImplementedError

    def _draw(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        """Classes (N,) drawn from the distribution as it is."""
        raise NotImplementedError

    def _nll(self, hidden: Tensor, target: Tensor, reduction: str, chunk: int | None) -> Tensor:
        size = chunk or max(1, len(target))
        parts = [self._losses(h, t) for h, t in zip(hidden.split(size), target.split(size), strict=True)]
        return reduced(torch.cat(parts) if len(parts) > 1 else parts[0], reduction)

    def _sample_all(self, hidden: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
        rows = self._flat_positions(hidden)
        with torch.no_grad():
            if temperature == 1:
                return self._draw(rows, generator).view(hidden.shape[:-1])
            chunk = max(1, CHUNK_NUMBERS // self.n_classes)
            parts = [
                gumbel_argmax(self._log_prob(part) / temperature, generator) for part in rows.split(chunk)
            ]
        return torch.cat(parts).view(hidden.shape[:-1])

    def _matmul_ready(self, hidden: Tensor) -> Tensor:
        """Hidden in the dtype of the weights: under autocast the one may be narrower than the other."""
        return hidden.to(next(self.parameters()).dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        counts = state_dict.get(prefix + "counts")
        error_msgs = rest[-1]
        if isinstance(counts, Tensor) and not torch.equal(counts.cpu(), self.counts.cpu()):
            error_msgs.append(
                f"{prefix}counts differ from those that this {type(self).__name__} was built from: the weights belong "
                "to other classes; build the layer from the saved counts"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *rest)
