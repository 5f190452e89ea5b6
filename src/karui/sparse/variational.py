"""Sparse variational dropout: a Gaussian posterior for every weight, a prior that prefers exact zeros.

Molchanov, Ashukha, Vetrov, ICML 2017; for recurrent networks Chirkova, Lobacheva, Vetrov, EMNLP 2018. log alpha =
log(sigma^2 / mu^2); a weight whose log alpha reaches the threshold is noise and is set to zero at test time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from karui.ops.variational_kl import log_alpha, variational_kl
from karui.sparse.groups import GroupVariable

GROUPS = ("word", "neuron")


@dataclass(frozen=True)
class SparseVariationalDropout:
    """How to make weights sparse: pass it to `sparsify`."""

    threshold: float = 3.0
    """A weight is pruned where log alpha reaches this (3: the signal is below a twentieth of the noise)."""
    log_sigma_init: float = -3.0
    """First value of log sigma of every weight and factor."""
    groups: tuple[str, ...] = ("word",)
    """Multiplicative variables: "word" (rows of embeddings), "neuron" (input columns of matrices)."""

    def __post_init__(self) -> None:
        unknown = set(self.groups) - set(GROUPS)
        if unknown:
            raise ValueError(f"groups must be among {GROUPS}, got {sorted(unknown)}")

    def weight(self, weight: Tensor, *, rows: str | None, columns: str | None) -> "VariationalWeight":
        """State for one matrix whose rows and columns form the named groups."""
        row_group = weight.shape[0] if rows in self.groups else 0
        column_group = weight.shape[1] if columns in self.groups else 0
        return VariationalWeight(weight, self, row_group=row_group, column_group=column_group)


class VariationalWeight(nn.Module):
    """What sparse variational dropout adds to one matrix (R, C); the mean stays a parameter of its own layer."""

    def __init__(
        self, weight: Tensor, method: SparseVariationalDropout, *, row_group: int = 0, column_group: int = 0
    ) -> None:
        super().__init__()
        self.threshold = method.threshold
        self.log_sigma2 = nn.Parameter(torch.full_like(weight, 2.0 * method.log_sigma_init))
        start = {"log_sigma_init": method.log_sigma_init, "threshold": method.threshold}
        self.row = GroupVariable(row_group, **start) if row_group else None
        self.column = GroupVariable(column_group, **start) if column_group else None

    def sample(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """One draw from the posterior, (R, C), or of the given rows only, (len(rows), C).

        Weights are independent, so drawing only the rows that a batch reads gives those rows the same distribution.
        """
        log_sigma2 = self.log_sigma2
        if rows is not None:
            weight, log_sigma2 = weight[rows], log_sigma2[rows]
        drawn = torch.addcmul(weight, torch.exp(0.5 * log_sigma2), torch.randn_like(weight))
        if self.row is not None:
            drawn = drawn * self.row.sample(rows)[:, None]
        if self.column is not None:
            drawn = drawn * self.column.sample()
        return drawn

    def local(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        """input (N, C) times an independent draw of the weight for each row: (N, R).

        Local reparametrisation (Kingma, Salimans, Welling 2015): exact where each row meets the weight once.
        """
        if self.column is not None:
            input = input * self.column.sample(shape=(input.shape[0],))  # noqa: A001
        mean = nn.functional.linear(input, weight, bias)
        variance = nn.functional.linear(input * input, torch.exp(self.log_sigma2))
        drawn = mean + torch.sqrt(variance + 1e-8) * torch.randn_like(mean)
        return drawn if self.row is None else drawn * self.row.sample(shape=(input.shape[0],))

    def penalty(self, weight: Tensor) -> Tensor:
        """KL of all weights and factors in nats, summed."""
        total = variational_kl(weight, self.log_sigma2)
        for group in (self.row, self.column):
            if group is not None:
                total = total + group.penalty()
        return total

    def keep_mask(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """(R, C) boolean, True = kept: the weight itself and every group it belongs to are alive."""
        log_sigma2 = self.log_sigma2
        if rows is not None:
            weight, log_sigma2 = weight[rows], log_sigma2[rows]
        kept = log_alpha(weight, log_sigma2) < self.threshold
        if self.row is not None:
            alive = self.row.keep_mask()
            kept = kept & (alive if rows is None else alive[rows])[:, None]
        if self.column is not None:
            kept = kept & self.column.keep_mask()
        return kept

    def deployed(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """The weight at test time, factors folded in, exactly zero where pruned: (R, C) or the given rows."""
        mask = self.keep_mask(weight, rows)
        mean = weight if rows is None else weight[rows]
        if self.row is not None:
            factor = self.row.deployed()
            mean = mean * (factor if rows is None else factor[rows])[:, None]
        if self.column is not None:
            mean = mean * self.column.deployed()
        return torch.where(mask, mean, torch.zeros_like(mean))
