"""`sparsify(model, method)` and what a sparse model is asked afterwards: penalty, masks, density, the masked model."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from karui.nn.stacked import StackedRecurrence
from karui.sparse.layers import SparseEmbedding, SparseLayer, SparseLinear, SparseRecurrent
from karui.sparse.variational import SparseVariationalDropout

# Layer type: its sparse version, and which groups its rows and columns form. First match wins.
LAYERS: tuple[tuple[type[nn.Module], type[SparseLayer], str | None, str | None], ...] = (
    (nn.Embedding, SparseEmbedding, "word", None),
    (nn.Linear, SparseLinear, None, "neuron"),
    (StackedRecurrence, SparseRecurrent, None, "neuron"),  # every recurrent layer of karui's own
    (nn.LSTM, SparseRecurrent, None, "neuron"),
    (nn.GRU, SparseRecurrent, None, "neuron"),
)


def sparsify(
    model: nn.Module, method: SparseVariationalDropout, *, exclude: tuple[str, ...] = ()
) -> nn.Module:
    """Replace every Linear, Embedding and recurrent layer inside `model` by its sparse version, in place; returns it.

    Recurrent layers are all of `karui.nn` and torch's LSTM and GRU; sparse are their matrices named weight_*.
    exclude: names of submodules (as in `named_modules`) to leave dense. If `model` is such a layer itself, its sparse
    version is returned. Raises ValueError when nothing can be made sparse or an excluded name does not exist.
    """
    names = {name for name, _ in model.named_modules()}
    for name in exclude:
        if name not in names:
            raise ValueError(f"exclude names {name!r}, which the model does not have")
    if any(isinstance(module, SparseLayer) for module in model.modules()):
        raise ValueError("the model is sparse already: sparsify it once")
    wrapped = _wrap(model, method)
    if wrapped is not None:
        return wrapped
    found = False
    for name, module in list(model.named_modules()):
        if name in exclude or any(name.startswith(f"{other}.") for other in exclude):
            continue
        for child_name, child in list(module.named_children()):
            path = f"{name}.{child_name}" if name else child_name
            sparse = None if path in exclude else _wrap(child, method)
            if sparse is not None:
                setattr(module, child_name, sparse)
                found = True
    if not found:
        raise ValueError("the model holds no Linear, Embedding or recurrent layer to make sparse")
    return model


def _wrap(module: nn.Module, method: SparseVariationalDropout) -> SparseLayer | None:
    for kind, sparse_kind, rows, columns in LAYERS:
        if isinstance(module, kind):
            if getattr(module, "proj_size", 0):
                raise ValueError(
                    f"{type(module).__name__} with proj_size={module.proj_size} cannot be made sparse yet"
                )
            matrices = {
                name: p for name, p in module.named_parameters() if name.startswith("weight") and p.dim() == 2
            }
            states = {
                name: method.weight(p.detach(), rows=rows, columns=columns) for name, p in matrices.items()
            }
            return sparse_kind(module, states)
    return None


def sparse_layers(model: nn.Module) -> Iterator[tuple[str, SparseLayer]]:
    """(name, layer) of every sparse layer."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, SparseLayer))


def penalty(model: nn.Module) -> Tensor:
    """What the method adds to the loss, summed over weights: KL in nats. Raises ValueError if nothing is sparse."""
    parts = [state.penalty(mean) for _, layer in sparse_layers(model) for _, mean, state in layer.states()]
    if not parts:
        raise ValueError("the model has no sparse layer: call sparsify first")
    return torch.stack(parts).sum()


@torch.no_grad()
def keep_mask(model: nn.Module) -> dict[str, Tensor]:
    """Boolean mask of every sparse weight, True = kept, keyed "layer.parameter"."""
    return {
        f"{name}.{parameter}".lstrip("."): state.keep_mask(mean)
        for name, layer in sparse_layers(model)
        for parameter, mean, state in layer.states()
    }


def density(model: nn.Module) -> float:
    """Kept weights / all weights that could be pruned."""
    masks = keep_mask(model).values()
    return sum(int(mask.sum()) for mask in masks) / max(1, sum(mask.numel() for mask in masks))


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

    def plain(layer: SparseLayer) -> nn.Module:
        base = copy.deepcopy(layer.base)
        for name, mean, state in layer.states():
            getattr(base, name).copy_(state.deployed(mean))
        if getattr(base, "padding_idx", None) is not None:
            base.weight[base.padding_idx] = 0.0  # type: ignore[index]
        return base.train(layer.training)

    if isinstance(model, SparseLayer):
        return plain(model)
    result = copy.deepcopy(model)
    for module in list(result.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, SparseLayer):
                setattr(module, child_name, plain(child))
    return result
