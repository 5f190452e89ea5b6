"""What came with a draw and is good for the penalty of the same step: its value, and what it depends on."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class _Pass(Protocol):
    is_open: bool


class Remembered(NamedTuple):
    """A value with a graph, of some parameters as they were."""

    value: Tensor
    state: _Pass
    """Of the draw, whose backward pass the value shares."""
    about: Any
    """What else it depends on."""
    versions: tuple[int, ...]

    def fits(self, about: Any, *parameters: Tensor) -> bool:
        """Whether this is the value now, with a graph that a backward pass can still go through.

        Never while a compiler looks on: to it a parameter has no version.
        """
        if torch.compiler.is_compiling() or not self.state.is_open or self.about != about:
            return False
        if versions(*parameters) != self.versions:
            return False
        is_wanted = any(parameter.requires_grad for parameter in parameters)
        return self.value.requires_grad == (is_wanted and torch.is_grad_enabled())

    def __deepcopy__(self, memo: Any) -> None:  # a copied module has drawn nothing
        return None

    def __reduce__(self) -> Any:
        return type(None), ()


def versions(*parameters: Tensor) -> tuple[int, ...]:
    """What every change in place moves on."""
    return tuple([parameter._version for parameter in parameters])  # noqa: SLF001
