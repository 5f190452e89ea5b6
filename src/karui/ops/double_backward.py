"""Gradients that can be differentiated again, computed by an operation's reference."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def differentiable_gradients(
    run: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    grad_outputs: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of run(*inputs) with a graph behind them; None for inputs that are None or take no gradient.

    grad_outputs: None for an output that the loss did not read.
    """
    # An alias each: an input may be computed from another one, whose gradient must not flow through it here.
    aliases = [None if t is None else t.view_as(t) for t in inputs]
    wanted = [t for t in aliases if t is not None and t.requires_grad]
    pairs = zip(run(*aliases), grad_outputs, strict=True)
    outputs = [(o, g) for o, g in pairs if g is not None and o.requires_grad]
    if not outputs:
        return [None] * len(aliases)
    found = iter(
        torch.autograd.grad(
            [o for o, _ in outputs],
            wanted,
            [g for _, g in outputs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if t is not None and t.requires_grad else None for t in aliases]
