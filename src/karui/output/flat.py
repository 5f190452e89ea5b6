"""The flat family: one table of V rows, exact answers from it, and losses that differ in training alone.

N positions, H hidden size, V classes, S sets of noise words, K noise words of a set.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.output.base import OutputLayer, as_counts, exact_dtype, matmul_dtype
from karui.output.cross_entropy import chunked_cross_entropy
from karui.output.fused import Terms, fused_form, fused_losses
from karui.output.noise import NoiseDistribution, build_noise
from karui.output.table import gather_rows, sampled_scores, spread, use_sparse

BLOCK_POSITIONS = 256
BLOCK_NUMBERS = 1 << 22  # scores held at once by exact answers
# Learned scalars that a layer has beside the table; the others of the family neither miss nor refuse them.
EXTRAS = ("log_z_offset",)


class FlatOutput(OutputLayer):
    """Scores s = hidden weight^T + bias over all classes; p = softmax(s). Base of layers that train such a table.

    counts: (V,) int64 in the order of the ids, or V for a uniform start. bias: learn `bias` (V,), which starts as the
    log unigram log(count / total), so the first model is the unigram; a count of 0 counts as 1. weight: a parameter
    (V, H) to share with an input embedding; None makes one, uniform within min(0.05, 1/sqrt(H)). sparse: gradients of
    weight and bias as `torch.sparse_coo` rows: True, False, or "auto", from 50,000 classes up.

    State dict of every layer of the family: `weight`, `bias`, `counts`.
    """

    counts: Tensor
    uses_every_row = False
    """Whether each step gives every row a gradient, which then is dense."""

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        bias: bool = True,
        weight: nn.Parameter | None = None,
        sparse: bool | str = "auto",
    ) -> None:
        counts = as_counts(counts)
        super().__init__(hidden_size, len(counts))
        self.register_buffer("counts", counts)
        self.tied = weight is not None
        if weight is not None and weight.shape != (self.n_classes, hidden_size):
            raise ValueError(
                f"weight must have shape {(self.n_classes, hidden_size)}, got {tuple(weight.shape)}"
            )
        self.weight = nn.Parameter(torch.empty(self.n_classes, hidden_size)) if weight is None else weight
        like = {"dtype": self.weight.dtype, "device": self.weight.device}
        self.bias = nn.Parameter(torch.empty(self.n_classes, **like)) if bias else None
        self.sparse = sparse
        if self.uses_every_row and sparse not in ("auto", False):
            raise ValueError(f"sparse must be 'auto' or False, for every row gets a gradient; got {sparse!r}")
        self.sparse_grad = not self.uses_every_row and use_sparse(sparse, self.n_classes)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start over: the table small, unless it is shared, and the bias at the layer's optimum for a unigram."""
        if not self.tied:
            bound = min(0.05, 1 / math.sqrt(self.hidden_size))
            self.weight.uniform_(-bound, bound)
        if self.bias is not None:
            self.bias.copy_(self._first_bias())

    def log_unigram(self) -> Tensor:
        """log(count / total) of every class, float64 (V,); a count of 0 counts as 1."""
        return F.log_softmax(self.counts.clamp_min(1).to(torch.float64).log_(), 0)

    def _first_bias(self) -> Tensor:
        return self.log_unigram()

    def _exact_bias(self) -> Tensor | None:
        """The bias (V,) with which log_softmax of the scores is the exact log-probability."""
        added = self._correction(None)
        if added is None:
            return self.bias
        added = added.to(self.weight.dtype)
        return added if self.bias is None else self.bias + added

    def _correction(self, ids: Tensor | None) -> Tensor | None:
        """What the scores of ids (n,), None for all V, lack to be log-probabilities up to a constant.

        None for all layers but negative sampling.
        """
        del ids
        return None

    def sparse_parameters(self) -> list[nn.Parameter]:
        """See OutputLayer: weight and bias with sparse gradients, else none."""
        table = [self.weight, *([] if self.bias is None else [self.bias])]
        return table if self.sparse_grad else []

    def softmax_state_dict(self) -> dict[str, Tensor]:
        """State dict whose plain softmax is this layer's exact distribution: what another layer of the family loads."""
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        bias = self._exact_bias()
        if bias is not None:
            state["bias"] = bias.detach().clone()
        return state

    @torch.no_grad()
    def load_softmax_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights whose plain softmax is the distribution wanted: the reverse of `softmax_state_dict`."""
        self.load_state_dict(state)
        added = self._correction(None)
        if added is not None:
            if self.bias is None:
                raise ValueError(f"{type(self).__name__} needs a bias to load the weights of a softmax")
            self.bias -= added.to(self.bias.dtype)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        *lists: Any,
    ) -> None:
        for name in EXTRAS:
            own = getattr(self, name, None)
            if own is None:
                state_dict.pop(prefix + name, None)
            else:
                state_dict.setdefault(prefix + name, own.detach())
        before = self.counts.clone()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)
        if not torch.equal(before, self.counts.to(before.device)):
            self._counts_changed()

    def _counts_changed(self) -> None:
        """What follows from `counts` must follow again."""

    # --- exact answers ----------------------------------------------------------------------------------------------

    def _nll(self, hidden: Tensor, target: Tensor, reduction: str, chunk: int | None) -> Tensor:
        return chunked_cross_entropy(
            hidden,
            self.weight,
            self._exact_bias(),
            target,
            reduction=reduction,
            chunk=chunk,
            dtype=matmul_dtype(hidden),
        )

    def log_prob(self, hidden: Tensor) -> Tensor:
        """See OutputLayer. At least float32."""
        self._check_hidden(hidden)
        dtype = matmul_dtype(hidden)
        logits = F.linear(hidden.to(dtype), self.weight.to(dtype)).to(exact_dtype(dtype))
        bias = self._exact_bias()
        return F.log_softmax(logits if bias is None else logits + bias.to(logits.dtype), -1)

    def score(self, hidden: Tensor, target: Tensor) -> Tensor:
        """See OutputLayer: s of the target, before any normaliser. Reads the targets' rows and no others."""
        positions = self._flat_positions(hidden, target)
        wide, ids = exact_dtype(hidden.dtype), target.reshape(-1).to(torch.int64)
        rows, bias = gather_rows(self.weight, self.bias, ids, sparse=self.sparse_grad)
        scores = (positions.to(wide) * rows.to(wide)).sum(1)
        for added in (bias, self._correction(ids)):
            if added is not None:
                scores = scores + added.to(wide)
        return scores.view(target.shape)

    def _blocks(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Exact scores (N, C) of rows (N, H) for range after range of classes, each with its first class."""
        dtype, bias = matmul_dtype(rows), self._exact_bias()
        rows, size = rows.to(dtype), max(1024, BLOCK_NUMBERS // max(1, len(rows)))
        for first in range(0, self.n_classes, size):
            part = slice(first, first + size)
            logits = F.linear(rows, self.weight[part].to(dtype)).to(exact_dtype(dtype))
            yield first, logits if bias is None else logits.add_(bias[part])

    @torch.no_grad()
    def topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See OutputLayer. Scores are computed in blocks: memory does not grow with N x V."""
        self._check_k(k)
        values, ids = [], []
        for rows in self._flat_positions(hidden).split(BLOCK_POSITIONS):
            log_z, best, places = None, None, None
            for first, logits in self._blocks(rows):
                part = logits.logsumexp(1)
                log_z = part if log_z is None else torch.logaddexp(log_z, part)
                top, place = logits.topk(min(k, logits.shape[1]), 1)
                place += first
                if best is not None and places is not None:
                    top, place = torch.cat([best, top], 1), torch.cat([places, place], 1)
                    top, order = top.topk(min(k, top.shape[1]), 1)
                    place = place.gather(1, order)
                best, places = top, place
            assert log_z is not None
            assert best is not None
            values.append(best - log_z.unsqueeze(1))
            ids.append(places)
        shape = (*hidden.shape[:-1], k)
        return _joined(values, shape, exact_dtype(hidden.dtype)), _joined(ids, shape, torch.int64)

    @torch.no_grad()
    def log_z(self, hidden: Tensor) -> Tensor:
        """See OutputLayer."""
        found = []
        for rows in self._flat_positions(hidden).split(BLOCK_POSITIONS):
            parts = [logits.logsumexp(1) for _, logits in self._blocks(rows)]
            found.append(torch.stack(parts).logsumexp(0))
        return _joined(found, hidden.shape[:-1], exact_dtype(hidden.dtype))

    @torch.no_grad()
    def _sample_all(self, hidden: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
        found = []
        for rows in self._flat_positions(hidden).split(BLOCK_POSITIONS):
            best, places = None, None
            for first, logits in self._blocks(rows):
                waits = torch.empty_like(logits).exponential_(generator=generator)
                race = logits / temperature - waits.clamp_min_(torch.finfo(waits.dtype).tiny).log_()
                top, place = race.max(1)
                place += first
                if best is not None and places is not None:
                    place = torch.where(top > best, place, places)
                    top = torch.maximum(top, best)
                best, places = top, place
            found.append(places)
        return _joined(found, hidden.shape[:-1], torch.int64)

    def extra_repr(self) -> str:
        """Sizes and how gradients come, as torch.nn shows them."""
        return (
            f"hidden_size={self.hidden_size}, n_classes={self.n_classes}, bias={self.bias is not None}, "
            f"tied={self.tied}, sparse_grad={self.sparse_grad}"
        )


def _joined(parts: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.cat(parts).view(shape) if parts else torch.empty(shape, dtype=dtype)


class SampledOutput(FlatOutput):
    """Base of flat layers that compare the target with `num_samples` noise words drawn anew for each step.

    num_samples: K. noise: a name ("unigram", "uniform", "log-uniform") or a NoiseDistribution. unigram_power: exponent
    on the counts of "unigram". num_splits: sets of noise words a step; the positions of a range share one, so the
    scores are `num_splits` matrix products. The other arguments: see FlatOutput.
    Draws come from torch's global generator. A step touches the rows of targets and noise words only.
    """

    noise: NoiseDistribution

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | int,
        *,
        num_samples: int = 1024,
        noise: str | NoiseDistribution = "unigram",
        unigram_power: float = 0.75,
        num_splits: int = 1,
        bias: bool = True,
        weight: nn.Parameter | None = None,
        sparse: bool | str = "auto",
    ) -> None:
        super().__init__(hidden_size, counts, bias=bias, weight=weight, sparse=sparse)
        for name, value in (("num_samples", num_samples), ("num_splits", num_splits)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.num_samples, self.num_splits, self.unigram_power = num_samples, num_splits, unigram_power
        self._noise_name = noise if isinstance(noise, str) else None
        self.noise = build_noise(noise, self.counts, unigram_power)

    def _counts_changed(self) -> None:
        if self._noise_name is not None:
            device = self.counts.device
            self.noise = build_noise(self._noise_name, self.counts.cpu(), self.unigram_power).to(device)

    def _draw(self, n_positions: int) -> tuple[Tensor, int | None]:
        """Noise ids (S, K), and for draws without repeats the number of tries."""
        return self.noise.sample((min(self.num_splits, max(n_positions, 1)), self.num_samples)), None

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        ids, tries = self._draw(len(target))
        dtype, count, table = matmul_dtype(hidden), self.num_samples, (self.weight, self.bias)
        log_target = self.noise.log_expected_count(target, count, tries).to(exact_dtype(dtype))  # (N,)
        log_noise = self.noise.log_expected_count(ids, count, tries).to(exact_dtype(dtype))  # (S, K)
        form = fused_form(hidden, self.weight, dtype)
        terms = None if form is None else self._terms(log_target, log_noise)
        if form is not None and terms is not None:
            return fused_losses(
                hidden, *table, target, ids, terms, sparse=self.sparse_grad, form=form, dtype=dtype
            )
        of_target, of_noise = sampled_scores(
            hidden, *table, target, ids, sparse=self.sparse_grad, dtype=dtype
        )
        return self._objective(
            of_target, of_noise, log_target, spread(log_noise, len(target)), self._hits(target, ids)
        )

    def _terms(self, log_target: Tensor, log_noise: Tensor) -> Terms | None:
        """The objective as a term of the noise that a compiled pass computes; None where it is none.

        log_target (N,), log_noise (S, K): log expected counts. Must be what `_objective` computes.
        """
        del log_target, log_noise
        return None

    def _hits(self, target: Tensor, ids: Tensor) -> Tensor | None:
        """Where (N, K) a noise word is the target itself; None for an objective that keeps it."""
        if not self._removes_hits():
            return None
        return target.unsqueeze(1) == spread(ids, len(target))

    def _removes_hits(self) -> bool:
        return False

    def _objective(
        self, of_target: Tensor, of_noise: Tensor, log_target: Tensor, log_noise: Tensor, hits: Tensor | None
    ) -> Tensor:
        """Losses (N,) of scores (N,) and (N, K), log expected counts (N,) and (1 or N, K), and hits (N, K) or None."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The noise words, as torch.nn shows arguments."""
        return f"{super().extra_repr()}, num_samples={self.num_samples}, num_splits={self.num_splits}"
