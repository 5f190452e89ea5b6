"""What the compiled operations share: an operator's twin for eager calls, and where their tensors lie in memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def eager_twin(
    forward: Callable[..., Any], setup: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """The functions of a registered operator as a plain autograd function: the dispatcher's call costs more.

    forward(*inputs) -> output; setup(ctx, inputs, output) and backward(ctx, *grad_outputs) as `register_autograd` has
    them.
    """

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = forward(*inputs)
            setup(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Any) -> Any:
            return backward(ctx, *grad_outputs)

    return Eager.apply


def addresses(*tensors: Tensor | None) -> tuple[int, ...]:
    """Where each tensor begins, for the native core; 0 for None."""
    return tuple([0 if t is None else t.data_ptr() for t in tensors])
