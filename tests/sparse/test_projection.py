"""Models whose every weight has a gate, a noise or a mask of its own: the cut is one selection, not a search."""

import pytest
import torch
from torch import nn

from karui.sparse import (
    HardConcrete,
    MagnitudePruning,
    SparseVariationalDropout,
    keep_mask,
    project,
    prunable_parameters,
    sparse_layers,
    sparsify,
)
from karui.sparse.projection import Projection

METHODS = [
    HardConcrete(groups=("weight",)),
    SparseVariationalDropout(groups=("weight",)),
    MagnitudePruning(groups=("weight",)),
]


def model_of(method) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(7, 5, padding_idx=2), nn.Linear(5, 4))
    sparsify(model, method)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn_like(value))
    return model


def scores_of(model: nn.Module) -> dict[str, torch.Tensor]:
    found = {}
    for name, layer in sparse_layers(model):
        [ranked] = layer.ranked()
        [(key, _, state)] = layer.states()
        score = ranked.score.detach().double().clone().view(state.shape)
        if state.zero_row is not None:
            score[state.zero_row] = -torch.inf
        found[f"{name}.{key}"] = score
    return found


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("keep", [0, 1, 13, 49])
def test_the_best_weights_are_kept_whatever_layer_they_are_in(method, keep):
    model = model_of(method)
    assert project(model, keep=keep) == keep
    scores, masks = scores_of(model), keep_mask(model)
    kept = torch.cat([scores[name][mask] for name, mask in masks.items()])
    gone = torch.cat([scores[name][~mask] for name, mask in masks.items()])
    assert len(kept) == keep
    assert keep == 0 or kept.min() > gone.max()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_more_than_there_are_keeps_all_but_the_row_of_padding(method):
    model = model_of(method)
    every = prunable_parameters(model)
    assert project(model, keep=every) == project(model, keep=10 * every) == every - 5


def test_of_equal_weights_exactly_so_many_are_kept():
    model = model_of(MagnitudePruning(groups=("weight",)))
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(0.5)
    assert project(model, keep=11) == 11


def test_nothing_is_sorted_without_groups():
    projection = Projection(model_of(MagnitudePruning(groups=("weight",))))
    projection.keep(9)
    assert all("order" not in vars(units) for units in projection.units)
    assert "levels" not in vars(projection)
