"""What every output layer promises: one training loss, and exact answers beside it.

N positions, H hidden size, V classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

REDUCTIONS = ("mean", "sum", "none")
IGNORE_INDEX = -100


def as_counts(counts: Tensor | int) -> Tensor:
    """Class counts (V,) int64 of a tensor, or of a number of classes: then each has a count of 1.

    Raises ValueError unless they are one dimension of integers, none of them negative, at least one class.
    """
    if isinstance(counts, int):
        if counts < 1:
            raise ValueError(f"counts must name at least 1 class, got {counts}")
        return torch.ones(counts, dtype=torch.int64)
    if counts.dim() != 1 or counts.numel() == 0:
        raise ValueError(f"counts must have shape (V,) with V >= 1, got {tuple(counts.shape)}")
    if counts.dtype.is_floating_point or counts.dtype.is_complex or counts.dtype == torch.bool:
        raise ValueError(f"counts must be integers, got {counts.dtype}")
    if int(counts.min()) < 0:
        raise ValueError(f"counts must be >= 0, got {int(counts.min())} for class {int(counts.argmin())}")
    return counts.detach().to(torch.int64).clone()


def matmul_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of matrix products with `hidden`: autocast's where it is on, else its own."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of scores and losses: float32 for anything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class OutputLayer(nn.Module):
    """A distribution over `n_classes` classes given a hidden vector, and a loss to train it.

    `forward` is the training loss, in eval mode too: it may be an estimate or another objective. `nll`, `log_prob`,
    `topk`, `predict` and `sample` are exact for every layer.

    A position whose target is `ignore_index` costs nothing and gets no gradient, whatever its hidden vector holds. If
    every position is ignored (or there is none) the mean is 0.0 with zero gradients, not torch's NaN: a batch of
    padding must not end a training.
    Subclasses define `_losses`, `_nll`, `log_prob`, `score`, `topk`, `log_z` on flat positions.
    """

    def __init__(self, hidden_size: int, n_classes: int) -> None:
        super().__init__()
        if hidden_size < 1:
            raise ValueError(f"hidden_size must be >= 1, got {hidden_size}")
        self.hidden_size = hidden_size
        self.n_classes = n_classes

    def forward(
        self, hidden: Tensor, target: Tensor, *, ignore_index: int = IGNORE_INDEX, reduction: str = "mean"
    ) -> Tensor:
        """Training loss in nats of hidden (..., H) against target (...): a scalar, or (...) with reduction="none".

        Raises ValueError for shapes, dtypes or target ids that do not fit.
        """
        rows, target, kept = self._flatten(hidden, target, ignore_index, reduction)
        return self._restore(self._training_loss(rows, target, reduction), kept, reduction)

    def nll(
        self,
        hidden: Tensor,
        target: Tensor,
        *,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
        chunk: int | None = None,
    ) -> Tensor:
        """Exact negative log-probability of target (...) in nats, without N x V numbers in memory; differentiable.

        chunk: positions handled at once; None chooses by the size of the layer.
        """
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be >= 1, got {chunk}")
        rows, target, kept = self._flatten(hidden, target, ignore_index, reduction)
        return self._restore(self._nll(rows, target, reduction, chunk), kept, reduction)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Exact log-probability of every class: (..., V), so for few positions at a time."""
        raise NotImplementedError

    def score(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Un-normalised log score (...) of target (...): all that serving a self-normalised model reads."""
        raise NotImplementedError

    def topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k likeliest classes, best first: exact log-probabilities (..., k) and int64 ids (..., k)."""
        raise NotImplementedError

    def log_z(self, hidden: Tensor) -> Tensor:
        """Log of the sum of exp(score) over all classes (...); 0 for layers normalised by construction."""
        raise NotImplementedError

    def predict(self, hidden: Tensor) -> Tensor:
        """The likeliest class (...), int64."""
        return self.topk(hidden, 1)[1].squeeze(-1)

    def sample(
        self,
        hidden: Tensor,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Classes (...) drawn from the exact distribution, sharpened by temperature < 1; 0 is `predict`.

        top_k: draw among the k likeliest only; 0 among all. generator: torch's global one if None.
        """
        if not temperature >= 0:
            raise ValueError(f"temperature must be >= 0, got {temperature}")
        if top_k < 0 or top_k > self.n_classes:
            raise ValueError(f"top_k must be in [0, {self.n_classes}], got {top_k}")
        if temperature == 0:
            return self.predict(hidden)
        if top_k == 0:
            return self._sample_all(hidden, temperature, generator)
        log_prob, ids = self.topk(hidden, top_k)
        return ids.gather(-1, gumbel_argmax(log_prob / temperature, generator).unsqueeze(-1)).squeeze(-1)

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Parameters whose gradient is a `torch.sparse_coo` tensor of rows; an optimizer must treat them row by row."""
        return []

    # --- for subclasses ---------------------------------------------------------------------------------------------

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Training losses (N,) of hidden (N, H) and target (N,)."""
        raise NotImplementedError

    def _nll(self, hidden: Tensor, target: Tensor, reduction: str, chunk: int | None) -> Tensor:
        """Exact nll of hidden (N, H) and target (N,): (N,) for "none", else a scalar."""
        raise NotImplementedError

    def _training_loss(self, hidden: Tensor, target: Tensor, reduction: str) -> Tensor:
        return reduced(self._losses(hidden, target), reduction)

    def _sample_all(self, hidden: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
        return gumbel_argmax(self.log_prob(hidden) / temperature, generator)

    def _check_hidden(self, hidden: Tensor) -> None:
        if not hidden.dtype.is_floating_point:
            raise ValueError(f"hidden must hold floating point numbers, got {hidden.dtype}")
        if hidden.dim() == 0 or hidden.shape[-1] != self.hidden_size:
            raise ValueError(f"hidden must have shape (..., {self.hidden_size}), got {tuple(hidden.shape)}")
        weight = next(self.parameters())
        if hidden.dtype != weight.dtype and not torch.is_autocast_enabled(hidden.device.type):
            raise ValueError(f"hidden must have the dtype of the weights, {weight.dtype}, got {hidden.dtype}")

    def _check_target(self, hidden: Tensor, target: Tensor) -> None:
        if target.dtype.is_floating_point or target.dtype.is_complex or target.dtype == torch.bool:
            raise ValueError(f"target must hold integer class ids, got {target.dtype}")
        if target.shape != hidden.shape[:-1]:
            raise ValueError(f"target must have shape {tuple(hidden.shape[:-1])}, got {tuple(target.shape)}")

    def _check_range(self, target: Tensor, ignore_index: int | None = None) -> None:
        if target.numel() == 0:
            return
        low, high = (int(bound) for bound in target.aminmax())
        if low < 0 or high >= self.n_classes:
            wrong = low if low < 0 else high
            hint = "" if ignore_index is None else f" or ignore_index={ignore_index}"
            raise ValueError(f"target must be in [0, {self.n_classes - 1}]{hint}, got {wrong}")

    def _flatten(
        self, hidden: Tensor, target: Tensor, ignore_index: int, reduction: str
    ) -> tuple[Tensor, Tensor, Tensor | tuple[int, ...]]:
        """Checked (N, H) and (N,) of the positions that count, and what puts losses back in their places."""
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")
        self._check_hidden(hidden)
        self._check_target(hidden, target)
        target = target.to(torch.int64)
        kept = target != ignore_index
        if bool(kept.all()):
            rows, flat, place = hidden.reshape(-1, self.hidden_size), target.reshape(-1), tuple(target.shape)
        else:
            rows, flat, place = hidden[kept], target[kept], kept
        self._check_range(flat, ignore_index)
        return rows, flat, place

    @staticmethod
    def _restore(loss: Tensor, place: Tensor | tuple[int, ...], reduction: str) -> Tensor:
        if reduction != "none":
            return loss
        if isinstance(place, tuple):
            return loss.view(place)
        return loss.new_zeros(place.shape).masked_scatter(place, loss)

    def _flat_positions(self, hidden: Tensor, target: Tensor | None = None) -> Tensor:
        """(N, H) of hidden (..., H), checked; target (...) too where there is one."""
        self._check_hidden(hidden)
        if target is not None:
            self._check_target(hidden, target)
            self._check_range(target)
        return hidden.reshape(-1, self.hidden_size)

    def _check_k(self, k: int) -> None:
        if not 1 <= k <= self.n_classes:
            raise ValueError(f"k must be in [1, {self.n_classes}], got {k}")

    def extra_repr(self) -> str:
        """Sizes, as torch.nn shows them."""
        return f"hidden_size={self.hidden_size}, n_classes={self.n_classes}"


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """Losses (N,) as a mean, a sum, or as they are; the mean of none is 0."""
    if reduction == "none":
        return losses
    return losses.sum() / max(losses.numel(), 1) if reduction == "mean" else losses.sum()


def gumbel_argmax(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """One index of the last dimension, drawn with probability softmax(logits); exact (the Gumbel-max trick)."""
    waits = (
        torch.empty_like(logits).exponential_(generator=generator).clamp_min_(torch.finfo(logits.dtype).tiny)
    )
    return (logits - waits.log_()).argmax(-1)


def option(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """The value if it is one of those allowed; raises ValueError naming all three else."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    return value
