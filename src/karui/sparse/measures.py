"""What a sparse model is asked: its penalty, masks, densities, gates, and the plain model that it stands for."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from karui.sparse.hard_concrete import HardConcreteGate
from karui.sparse.layers import SparseEmbedding, SparseLayer


def sparse_layers(model: nn.Module) -> list[tuple[str, SparseLayer]]:
    """(name, layer) of every sparse layer, in the order of `named_modules`."""
    found: list[tuple[str, SparseLayer]] = []
    _collect(model, "", set(), found)
    return found


def _collect(module: nn.Module, name: str, seen: set[int], found: list[tuple[str, SparseLayer]]) -> None:
    """Every step of a training asks: without a look at the gates inside a sparse layer."""
    if id(module) in seen:
        return
    seen.add(id(module))
    parts: dict[str, nn.Module | None] = module._modules  # noqa: SLF001
    if isinstance(module, SparseLayer):
        found.append((name, module))
        parts = {"base": parts["base"]}
    for part, child in parts.items():
        if child is not None and child._modules:  # noqa: SLF001  a sparse layer has its base
            _collect(child, f"{name}.{part}" if name else part, seen, found)


def _all_sparse(model: nn.Module) -> list[tuple[str, SparseLayer]]:
    found = sparse_layers(model)
    if not found:
        raise ValueError("the model has no sparse layer: call sparsify first")
    return found


def penalty(model: nn.Module) -> Tensor:
    """What the method adds to the loss, summed over weights: KL in nats, or lambda times the expected kept weights.

    Divide it by the number of training examples. Raises ValueError if nothing is sparse.
    """
    return reduce(torch.add, [part for _, layer in _all_sparse(model) for part in layer.penalties()])


@torch.no_grad()
def keep_mask(model: nn.Module) -> dict[str, Tensor]:
    """Boolean mask of every sparse weight, True = kept, keyed "layer.parameter"."""
    return {
        f"{name}.{parameter}".lstrip("."): state.keep_mask(mean)
        for name, layer in sparse_layers(model)
        for parameter, mean, state in layer.states()
    }


def prunable_parameters(model: nn.Module) -> int:
    """Weights that could be pruned."""
    return sum(mean.numel() for _, layer in sparse_layers(model) for _, mean, _ in layer.states())


def kept_parameters(model: nn.Module) -> int:
    """Weights that are kept, of those that could be pruned; biases and dense layers are not among them."""
    return sum(int(mask.sum()) for mask in keep_mask(model).values())


def density(model: nn.Module) -> float:
    """Kept weights / all weights that could be pruned."""
    return kept_parameters(model) / max(1, prunable_parameters(model))


def expected_kept(model: nn.Module) -> Tensor:
    """Expected number of kept weights, differentiable where the method learns it (for VD a smooth count): ()."""
    return reduce(
        torch.add,
        [state.expected_kept(mean) for _, layer in _all_sparse(model) for _, mean, state in layer.states()],
    )


def expected_density(model: nn.Module) -> Tensor:
    """`expected_kept` / all weights that could be pruned."""
    return expected_kept(model) / max(1, prunable_parameters(model))


def gate_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What decides which weights are kept: give it a learning rate of its own, and no weight decay.

    Log alpha of L0 gates; log variances, and the means of group variables, of sparse variational dropout.
    """
    found: dict[int, nn.Parameter] = {}
    for _, layer in sparse_layers(model):
        for module in (layer.weights, *layer.shared_gates().values()):
            found |= {id(parameter): parameter for parameter in module.parameters()}
    return list(found.values())


def anneal(model: nn.Module, progress: float) -> None:
    """Set the temperature of hard concrete gates that anneal it; progress goes from 0 to 1."""
    for module in model.modules():
        if isinstance(module, HardConcreteGate):
            module.anneal(progress)


@torch.no_grad()
def words_kept(model: nn.Module) -> int:
    """Words that any embedding still uses; embeddings with one number of rows share their vocabulary."""
    alive: dict[int, Tensor] = {}
    for _, layer in sparse_layers(model):
        if isinstance(layer, SparseEmbedding):
            [(_, mean, state)] = layer.states()
            used = state.keep_mask(mean).any(dim=1)
            alive[len(used)] = used | alive[len(used)] if len(used) in alive else used
    return sum(int(used.sum()) for used in alive.values())


@torch.no_grad()
def harden(model: nn.Module) -> nn.Module:
    """A plain copy, the masked model: sparse layers replaced by ordinary ones holding their deployed weights."""
    if isinstance(model, SparseLayer):
        return model.plain()
    result = copy.deepcopy(model)
    for module in list(result.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, SparseLayer):
                setattr(module, child_name, child.plain())
    return result


@contextmanager
def sampling(model: nn.Module) -> Iterator[None]:
    """Within, sparse layers draw their weights as in training; everything else keeps its mode."""
    layers = [(layer, layer.training, layer.is_settled) for _, layer in _all_sparse(model)]
    try:
        for layer, _, _ in layers:
            layer.training, layer.is_settled = True, False
        yield
    finally:
        for layer, was_training, was_settled in layers:
            layer.training, layer.is_settled = was_training, was_settled


@torch.no_grad()
def predict_samples(model: nn.Module, *args: Any, n_samples: int, **kwargs: Any) -> Tensor:
    """Outputs (n_samples, ...) of the model for independent draws of its weights: what the posterior is unsure of.

    The model is called as `model(*args, **kwargs)` and returns a tensor; dropout stays as its mode has it. Mean and
    spread of, say, the softmax of these are a prediction and its uncertainty. Methods without noise
    (`MagnitudePruning`) repeat one answer. Raises ValueError for n_samples below 1.
    """
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    with sampling(model):
        return torch.stack([model(*args, **kwargs) for _ in range(n_samples)])
