"""Sparse variational dropout: a Gaussian posterior for every weight, a prior that prefers exact zeros.

Molchanov, Ashukha, Vetrov, ICML 2017; for recurrent networks Chirkova, Lobacheva, Vetrov, EMNLP 2018, with gates
Lobacheva, Chirkova, Vetrov, AAAI 2020. log alpha = log(sigma^2 / mu^2); a weight or factor whose log alpha reaches the
threshold is noise and is set to zero at test time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from karui.ops.gaussian_draw import draw_outputs, draw_weights, draw_weights_with_kl, runs_compiled
from karui.ops.variational_kl import log_alpha, variational_kl
from karui.sparse.division import Axis, Division, Elements
from karui.sparse.gate import Cut, Gate
from karui.sparse.groups import check_groups
from karui.sparse.remembered import Remembered, versions
from karui.sparse.weight import Convolve, Ranked, SharedGate, SparseWeight

SMOOTHNESS = 2.0  # slope of the smooth count of kept weights at the threshold
FAR = 20.0  # in log alpha: no weight that is kept comes to so little


@dataclass(frozen=True)
class SparseVariationalDropout:
    """How to make weights sparse: pass it to `sparsify`. Every weight has noise of its own, whatever the groups.

    The published configurations: W is groups=("weight",), W+N ("weight", "word", "input"), W+G+N ("weight", "word",
    "input", "gate"); SparseVD-Voc is ("word",).
    """

    threshold: float = 3.0
    """A weight is pruned where log alpha reaches this (3: the signal is below a twentieth of the noise)."""
    log_sigma_init: float = -3.0
    """First value of log sigma of every weight and factor."""
    groups: tuple[str, ...] | None = None
    """Multiplicative variables by the names of `karui.sparse.GROUPS`; None: "word" where there are embeddings."""

    name = "vd"

    def __post_init__(self) -> None:
        check_groups(self.groups)

    def gate(self, *divisions: Division, layer: str = "") -> Gate:  # noqa: ARG002
        """One multiplicative variable a unit."""
        return VariationalGate(*divisions, log_sigma_init=self.log_sigma_init, threshold=self.threshold)

    def weight(
        self,
        weight: Tensor,
        divisions: Mapping[str, Division] | None = None,
        shared: tuple[SharedGate, ...] = (),
        *,
        zero_row: int | None = None,
        layer: str = "",  # noqa: ARG002
    ) -> "VariationalWeight":
        """State for one weight whose elements fall into the given divisions, by the names of their places."""
        gates = {
            place: self.gate(division)
            for place, division in (divisions or {}).items()
            if not isinstance(division, Elements)  # its own noise is that
        }
        return VariationalWeight(weight, self, gates, shared, zero_row=zero_row)


class VariationalGate(Gate):
    """Independent factors with Gaussian posteriors N(mean, sigma^2) and the log-uniform prior; the mean starts at 1.

    One sample serves all sequences and steps of a mini-batch. The authors draw one for each sequence, which no product
    with a shared matrix can use: it would cost a matrix a sequence. Both are draws from one posterior, so the
    expected loss is the same; only the variance of its gradient differs.
    """

    def __init__(self, *divisions: Division, log_sigma_init: float, threshold: float) -> None:
        super().__init__(*divisions)
        self.threshold = threshold
        self.mean = nn.Parameter(torch.ones(self.units))
        self.log_sigma2 = nn.Parameter(torch.full(self.units, 2.0 * log_sigma_init))

    def sample(self, rows: Tensor | None = None, *, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw factors; the noise of units that `rows` do not meet is independent, so it need not be drawn."""
        mean, log_sigma2 = (self.divisions[0].take(part, rows) for part in (self.mean, self.log_sigma2))
        noise = torch.randn(*shape, *mean.shape, dtype=mean.dtype, device=mean.device)
        return mean + torch.exp(0.5 * log_sigma2) * noise

    def deployed(self, rows: Tensor | None = None) -> Tensor:
        """The mean where kept, else 0."""
        mean = self.divisions[0].take(self.mean, rows)
        return torch.where(self.keep_mask(rows), mean, torch.zeros_like(mean))

    def score(self, *weights: Tensor) -> Tensor:  # noqa: ARG002
        """-log alpha, the logarithm of the signal-to-noise ratio."""
        return -log_alpha(self.mean, self.log_sigma2)

    def keep_mask(self, rows: Tensor | None = None) -> Tensor:
        """True where log alpha is below the threshold, or where a projection says so."""
        score = self.divisions[0].take(self.score(), rows)
        return self.select(score, score > -self.threshold, self.divisions[0], rows)

    @torch.no_grad()
    def settle(self, kept: Tensor) -> None:
        """As the base class."""
        self.log_sigma2[~kept] += FAR

    def open_probability(self) -> Tensor:
        """Smooth stand-in for the count: sigmoid(2 (threshold - log alpha))."""
        return torch.sigmoid(SMOOTHNESS * (self.threshold + self.score()))

    def penalty(self) -> Tensor:
        """KL in nats, summed."""
        return variational_kl(self.mean, self.log_sigma2)


class VariationalWeight(SparseWeight):
    """A Gaussian posterior for every element, sigma^2 = exp(log_sigma2), times the factors of the gates."""

    def __init__(
        self,
        weight: Tensor,
        method: SparseVariationalDropout,
        gates: Mapping[str, Gate],
        shared: tuple[SharedGate, ...] = (),
        *,
        zero_row: int | None = None,
    ) -> None:
        super().__init__(weight.shape, gates, shared, zero_row=zero_row)
        self.threshold = method.threshold
        self.log_sigma2 = nn.Parameter(torch.full_like(weight, 2.0 * method.log_sigma_init))
        self.element = Cut()
        self.elements = Elements(self.shape)
        self._kl: Remembered | None = None

    def ranked(self, weight: Tensor) -> list[Ranked]:
        """Elements by -log alpha, then the units of the gates."""
        own = Ranked(-log_alpha(weight, self.log_sigma2), self.element, self.elements)
        return [own, *super().ranked(weight)]

    def cuts(self) -> list[tuple[Cut, Division]]:
        """That of the elements, then those of the gates."""
        return [(self.element, self.elements), *super().cuts()]

    @torch.no_grad()
    def settle(self, kept: Tensor) -> None:
        """As the base class; the weights that are kept may come nearer to zero, and stay kept."""
        super().settle(kept)
        self.log_sigma2[~kept] += FAR
        cutoff = self.element.cutoff
        self.element.set_cut((-self.threshold if math.isnan(cutoff) else cutoff) - FAR / 2)

    def open_probabilities(self, weight: Tensor) -> list[tuple[Tensor, Division]]:
        """Smooth count of the elements, and those of the gates."""
        score = -log_alpha(weight, self.log_sigma2)
        own = torch.sigmoid(SMOOTHNESS * (self.threshold + score))
        return [(own, self.elements), *super().open_probabilities(weight)]

    def sample(
        self, weight: Tensor, rows: Tensor | None = None, *, shared: Mapping[Gate, Tensor] | None = None
    ) -> Tensor:
        """One draw from the posterior, or of the given rows only.

        Weights are independent, so drawing only the rows that a batch reads gives those rows the same distribution.
        """
        if torch.is_grad_enabled() and runs_compiled(weight, self.log_sigma2):
            found = draw_weights_with_kl(weight, self.log_sigma2, rows)
            about = versions(weight, self.log_sigma2)
            self._kl, drawn = Remembered(found.kl, found.state, id(weight), about), found.drawn
        else:
            drawn = draw_weights(weight, self.log_sigma2, rows)
        return self._scaled(drawn, rows, shared)

    @property
    def has_local(self) -> bool:
        """Whether all factors are of rows and columns, so that a product needs no draw of the weight itself."""
        return all(isinstance(division, Axis) for _, division in self.own_gates()) and not self.shared

    def product(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        *,
        shared: Mapping[Gate, Tensor] | None = None,
    ) -> Tensor:
        """An independent draw for each row of a matrix (N, C); one for all where the input has a time axis.

        Local reparametrisation (Kingma, Salimans, Welling 2015): exact where each row meets the weight once.
        """
        if input.dim() == 2 and self.has_local:
            return self._local(nn.functional.linear, input, weight, bias)
        return nn.functional.linear(input, self.sample(weight, shared=shared), bias)

    def convolution(
        self,
        convolve: Convolve,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Local reparametrisation with noise of its own for each position, as Molchanov et al. 2017 do it.

        Mean and variance of every output are those of a weight draw; outputs that share weights are independent.
        """
        if self.has_local:
            return self._local(convolve, input, weight, bias)
        return super().convolution(convolve, input, weight, bias)

    def _local(
        self,
        product: Convolve,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        row, column = (
            self.get_submodule(place) if place in self.places else None for place in ("row", "column")
        )
        shape = (input.shape[0],)
        tail = (1,) * (input.dim() - 2)
        if isinstance(column, Gate):
            input = input * column.sample(shape=shape).view(*input.shape[:2], *tail)  # noqa: A001
        mean = product(input, weight, None if isinstance(row, Gate) else bias)
        variance = product(input * input, torch.exp(self.log_sigma2), None)
        drawn = draw_outputs(mean, variance)
        if not isinstance(row, Gate):
            return drawn
        drawn = drawn * row.sample(shape=shape).view(*drawn.shape[:2], *tail)
        return drawn if bias is None else drawn + bias.view(-1, *tail)

    def penalty(self, weight: Tensor) -> Tensor:
        """KL of all weights and factors in nats, summed."""
        last = self._kl
        if last is not None and last.fits(id(weight), weight, self.log_sigma2):
            total = last.value
        else:
            total = variational_kl(weight, self.log_sigma2)
        for gate, _ in self.own_gates():
            part = gate.penalty()
            assert part is not None
            total = total + part
        return total

    def _element_mask(self, weight: Tensor, rows: Tensor | None) -> Tensor:
        log_sigma2 = self.log_sigma2
        if rows is not None:
            weight, log_sigma2 = weight[rows], log_sigma2[rows]
        score = -log_alpha(weight, log_sigma2)
        return self.element.select(score, score > -self.threshold, self.elements, rows)
