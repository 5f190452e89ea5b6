"""Averages of the weights over the steps: exponential (Kingma & Ba 2014, section 3), plain (Polyak & Juditsky 1992)."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from karui.optim.rows import rows_of


class WeightAverage:
    """s_t = d s_{t-1} + (1 - d) w_t with s_0 = 0; the average is s_t / (1 - d^t). Without a decay d, the plain mean.

    Dividing by 1 - d^t makes the weights of all past steps sum to one: the first averages are not drawn to
    zero. Only floating-point parameters are averaged; buffers are used as they are.

    A table with sparse gradients is never swept in a step. Its rows change only when a gradient names them, and n equal
    weights go into the average at once, s <- s + (1 - d^n)(w - s): `before_step` does so for the rows about to change,
    `rows` says up to which update each row is averaged, and reading the averages brings all up to date in a copy.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = {
            name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()
        }
        self.sums = {name: torch.zeros_like(parameter) for name, parameter in self._parameters.items()}
        self.rows: dict[str, Tensor] = {}
        """For each table that has had a sparse gradient, the update up to which a row is averaged: (V,) int32."""

    @torch.no_grad()
    def before_step(self) -> None:
        """Average the rows that the gradients name, while they are as they were at the updates so far."""
        for name, parameter in self._parameters.items():
            grad = parameter.grad
            if grad is None or not (grad.is_sparse or name in self.rows):
                continue
            if name not in self.rows:
                size = len(parameter)
                self.rows[name] = torch.full(
                    (size,), self.num_updates, dtype=torch.int32, device=parameter.device
                )
            if not self.num_updates:
                continue
            last, total = self.rows[name], self.sums[name]
            ids = rows_of(grad)[0].unique()
            share = self._share(last[ids], total)
            total[ids] = total[ids].lerp_(parameter[ids], share)
            last[ids] = self.num_updates

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        self.num_updates += 1
        swept = [name for name in self._parameters if name not in self.rows]
        sums = [self.sums[name] for name in swept]
        weights = [self._parameters[name].detach() for name in swept]
        share = 1.0 / self.num_updates if self.decay is None else 1.0 - self.decay
        # One call for all tensors: s + (1 - d)(w - s). The optimizers of torch stand on the same functions.
        torch._foreach_lerp_(sums, weights, share)  # pyright: ignore[reportPrivateImportUsage]

    def _share(self, last: Tensor, total: Tensor) -> Tensor:
        """What the weights since the updates `last` (R,) weigh in the average of all so far: (R, 1, ...)."""
        missing = self.num_updates - last.double()
        share = missing / self.num_updates if self.decay is None else 1.0 - self.decay**missing
        return share.to(total.dtype).view(-1, *[1] * (total.dim() - 1))

    def averages(self) -> dict[str, Tensor]:
        """Return the bias-corrected averages by parameter name."""
        if not self.num_updates:
            return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        correction = 1.0 if self.decay is None else 1.0 - self.decay**self.num_updates
        found = {}
        for name, total in self.sums.items():
            if name in self.rows:
                weight = self._parameters[name].detach()
                total = torch.lerp(total, weight, self._share(self.rows[name], total))
            found[name] = total / correction
        return found

    def load(self, sums: dict[str, Tensor], num_updates: int, rows: dict[str, Tensor] | None = None) -> None:
        """Restore what a checkpoint holds: `sums`, `num_updates` and `rows`."""
        for name, total in self.sums.items():
            total.copy_(sums[name])
        self.num_updates = num_updates
        self.rows = {name: last.to(self.sums[name].device) for name, last in (rows or {}).items()}

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages as the model's weights inside the block; then the weights are back, bitwise."""
        own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._write(self.averages())
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
