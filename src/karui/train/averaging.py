"""Exponential moving average of the weights, with bias correction (Kingma & Ba 2014, section 3)."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class WeightAverage:
    """s_t = d s_{t-1} + (1 - d) w_t with s_0 = 0; the average is s_t / (1 - d^t).

    Dividing by 1 - d^t makes the weights of all past steps sum to one: the first averages are not drawn to
    zero. Only floating-point parameters are averaged; buffers are used as they are.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = {
            name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()
        }
        self.sums = {name: torch.zeros_like(parameter) for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        sums = list(self.sums.values())
        weights = [parameter.detach() for parameter in self._parameters.values()]
        # One call for all tensors: s + (1 - d)(w - s). The optimizers of torch stand on the same functions.
        torch._foreach_lerp_(sums, weights, 1.0 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        self.num_updates += 1

    def averages(self) -> dict[str, Tensor]:
        """Return the bias-corrected averages by parameter name."""
        if not self.num_updates:
            return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        correction = 1.0 - self.decay**self.num_updates
        return {name: total / correction for name, total in self.sums.items()}

    def load(self, sums: dict[str, Tensor], num_updates: int) -> None:
        """Restore what a checkpoint holds: `sums` and `num_updates`."""
        for name, total in self.sums.items():
            total.copy_(sums[name])
        self.num_updates = num_updates

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
