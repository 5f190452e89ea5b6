"""Floating-point operations of a model: dense, expected of its gates (differentiable), and as it is deployed.

What is counted: two for each use of a weight of a Linear, convolution, recurrent layer, factorised Linear or output
table; a lookup in an embedding is none; biases, norms, activations and what attention multiplies besides weights are
left out. A pass on an example uses a weight once a row of the input (a sequence, a step of it), the weight of a
convolution once a position of the output; `of_step` counts every weight once: one token, one pixel.

A matrix whose rows and columns have independent gates costs 2 E[rows] E[columns] a use, any other 2 times the sum of
its elements' probabilities: `expected_kept` with a price. Gates of different layers meet only along a chain
(`karui.sparse.chains`): there the rows of one layer and the columns of the next are the same units, so a unit counts
where both of its gates are open. (The published counter of L0 takes all inputs of a convolution whatever was pruned
before it.) Elsewhere, in residual networks say, each layer counts by its own gates, an upper bound of what remains.
As deployed, columns that read a dead channel count where it is a constant that the padding shows (`unfoldable`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from karui.sparse.chains import Link, chains, unfoldable
from karui.sparse.division import Axis, Division
from karui.sparse.layers import SparseLayer, base_of
from karui.sparse.weight import SparseWeight, count_open

MULTIPLY_ADD = 2
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)  # noqa: SLF001  torch has no public name for all of them

Matrices = dict[str, Tensor]


class FlopCount:
    """FLOPs of models of one architecture; made from any of them, sparse or not, with an example of its input.

    It is called with a model, and gives the FLOPs of that as deployed (`deployed`): a measure for
    `karui.sparse.control.Control`, which then holds `expected`.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, *example: Any, **options: Any) -> None:
        """Run `model(*example, **options)` once, in eval mode; weights that it does not use count nothing."""
        self.uses: dict[str, float] = {}
        """How often a pass uses each weight, by "layer.parameter"."""
        self.layers: dict[str, float] = {}
        """FLOPs of each layer when nothing is pruned."""
        handles = []
        for name, layer in _layers(model):

            def add(_: nn.Module, args: Any, output: Any, name: str = name, layer: nn.Module = layer) -> None:
                self._add(name, layer, lambda key: _uses(layer, key, args[0], output))

            handles.append(layer.register_forward_hook(add))
        modes = [(module, module.training) for module in model.modules()]
        try:
            model.eval()(*example, **options)
        finally:
            for handle in handles:
                handle.remove()
            for module, was in modes:
                module.training = was

    @classmethod
    def of_step(cls, model: nn.Module) -> "FlopCount":
        """Every weight is used once, as in one step of a sequence.

        Raises TypeError for convolutions, whose weights are used once a position.
        """
        count = cls.__new__(cls)
        count.uses, count.layers = {}, {}
        for name, layer in _layers(model):
            if isinstance(base_of(layer), _CONVOLUTIONS):
                raise TypeError(f"{name} is a convolution: its FLOPs need the size of its input")
            count._add(name, layer, lambda _: 1.0)  # noqa: SLF001  of the same class
        return count

    @property
    def dense(self) -> float:
        """When nothing is pruned."""
        return sum(self.layers.values())

    def __call__(self, model: nn.Module) -> float:
        """As deployed."""
        return self.deployed(model)

    @torch.no_grad()
    def deployed(self, model: nn.Module) -> float:
        """Of a model's weights that are not pruned (of a plain one, not zero) and, along a chain, reached and read."""
        masks = {
            f"{name}.{key}".lstrip("."): value != 0 if state is None else state.keep_mask(value)
            for name, layer in _layers(model)
            for key, value, state in _weights(layer)
        }
        links = chains(model)
        for link in links:
            live = masks[_weight(link.source)].flatten(1).any(1) | unfoldable(model, link)
            _columns(masks[_weight(link.reader)], live.repeat_interleave(link.each))
        for link in reversed(links):
            read = masks[_weight(link.reader)].transpose(0, 1).flatten(1).any(1).view(-1, link.each).any(1)
            masks[_weight(link.source)] &= read.view(-1, *[1] * (masks[_weight(link.source)].dim() - 1))
        return float(sum(MULTIPLY_ADD * uses * int(masks[key].sum()) for key, uses in self.uses.items()))

    def expected(self, model: nn.Module) -> Tensor:
        """Over the noise of the gates, differentiable (for VD by its smooth count): (), at least 32 bits."""
        found = {
            f"{name}.{key}".lstrip("."): (value, state)
            for name, layer in _layers(model)
            for key, value, state in _weights(layer)
            if f"{name}.{key}".lstrip(".") in self.uses
        }
        ties = _ties(chains(model), found)
        costs = []
        for key, (value, state) in found.items():
            parts = [] if state is None else list(state.open_probabilities(value))
            parts += ties.get(key, [])
            shape, zero_row = tuple(value.shape), None if state is None else state.zero_row
            kept = (
                count_open(parts, shape, zero_row=zero_row)
                if parts
                else value.new_tensor(float(value.numel()))
            )
            costs.append(MULTIPLY_ADD * self.uses[key] * kept.float())
        if not costs:
            raise ValueError("the model has no weight that a pass multiplies with")
        return torch.stack(costs).sum()

    @torch.no_grad()
    def shares(self, model: nn.Module) -> dict[str, float]:
        """`flops_share` as deployed and `expected_flops_share`, of those when nothing is pruned."""
        return {
            "flops_share": self.deployed(model) / self.dense,
            "expected_flops_share": float(self.expected(model)) / self.dense,
        }

    def free_layers(self, model: nn.Module) -> frozenset[str]:
        """Sparse layers none of whose weights a pass multiplies with: embeddings. Pruning them saves nothing."""
        return frozenset(
            name
            for name, layer in model.named_modules()
            if isinstance(layer, SparseLayer)
            and not layer.lends
            and not any(f"{name}.{key}".lstrip(".") in self.uses for key in layer.weights)
        )

    def _add(self, name: str, layer: nn.Module, uses: Callable[[str], float]) -> None:
        for key, value, _ in _weights(layer):
            full = f"{name}.{key}".lstrip(".")
            self.uses[full] = self.uses.get(full, 0.0) + uses(key)
            cost = MULTIPLY_ADD * uses(key) * value.numel()
            self.layers[name] = self.layers.get(name, 0.0) + cost


def expected_flops(model: nn.Module, *example: Any, **options: Any) -> Tensor:
    """`FlopCount(model, *example, **options).expected(model)`: FLOPs of one pass, differentiable in the gates."""
    return FlopCount(model, *example, **options).expected(model)


def flops_of_step(model: nn.Module) -> float:
    """FLOPs of one step of the model as deployed; see `FlopCount.of_step`."""
    return FlopCount.of_step(model).deployed(model)


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, layer) of what has weights to multiply with; a sparse layer stands for the one it wraps."""
    found: list[tuple[str, nn.Module]] = []
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(inside) and inside:
            continue
        if isinstance(module, SparseLayer):
            inside = (*inside, f"{name}." if name else "")
        if _weights(module):
            found.append((name, module))
    return found


def _weights(layer: nn.Module) -> list[tuple[str, Tensor, SparseWeight | None]]:
    """(parameter, its values, its sparse state) of a layer's own matrices and kernels; none of an embedding."""
    base = base_of(layer)
    if isinstance(base, nn.Embedding | nn.EmbeddingBag):
        return []
    states: Any = layer.weights if isinstance(layer, SparseLayer) else {}
    own = [(key, value) for key, value in base.named_parameters(recurse=False) if value.dim() >= 2]
    return [(key, value, states[key] if key in states else None) for key, value in own]  # noqa: SIM401  no get


def _uses(layer: nn.Module, key: str, input: Any, output: Any) -> float:  # noqa: A002
    base = base_of(layer)
    if isinstance(base, _CONVOLUTIONS):
        read = input if base.transposed else output
        return read.numel() / (base.in_channels if base.transposed else base.out_channels)
    if isinstance(input, PackedSequence):
        return float(len(input.data))
    rows = input.numel() / max(1, input.shape[-1])
    # The last layer of a Statistical RU may make its output at the last step alone.
    is_last = getattr(base, "output_steps", "all") == "last" and key.startswith(
        f"weight_o_l{getattr(base, 'num_layers', 0) - 1}"
    )
    steps = input.shape[int(bool(base.batch_first)) if input.dim() == 3 else 0] if is_last else 1
    return rows / max(1, steps)


def _weight(layer: str) -> str:
    return f"{layer}.weight".lstrip(".")


def _columns(mask: Tensor, live: Tensor) -> None:
    mask &= live.view(1, -1, *[1] * (mask.dim() - 2))


def _ties(
    links: list[Link], found: dict[str, tuple[Tensor, SparseWeight | None]]
) -> dict[str, list[tuple[Tensor, Division]]]:
    """What gates of the other side of a link say of the rows or columns of a weight."""
    ties: dict[str, list[tuple[Tensor, Division]]] = {}
    for link in links:
        source, reader = _weight(link.source), _weight(link.reader)
        if source not in found or reader not in found:
            continue
        rows, columns = _axis(*found[source], 0), _axis(*found[reader], 1)
        if rows is not None:
            shape = tuple(found[reader][0].shape)
            ties.setdefault(reader, []).append((rows.repeat_interleave(link.each), Axis(shape, 1)))
        if columns is not None:
            read = 1.0 - (1.0 - columns.view(-1, link.each)).prod(1) if link.each > 1 else columns
            ties.setdefault(source, []).append((read, Axis(tuple(found[source][0].shape), 0)))
    return ties


def _axis(value: Tensor, state: SparseWeight | None, dim: int) -> Tensor | None:
    """Open probability of each index of an axis, by the gates that lie along it; None without such gates."""
    chance: Tensor | None = None
    for part, division in [] if state is None else state.open_probabilities(value):
        if isinstance(division, Axis) and division.dim == dim:
            chance = part if chance is None else chance * part
    return chance
