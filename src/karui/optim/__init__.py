"""Optimizers of models with huge tables: rules that touch only the rows a step used, clipping, parameter groups."""

from karui.optim.clip import clip_grad_norm_
from karui.optim.exchange import exchange_sparse_gradients
from karui.optim.groups import parameter_groups
from karui.optim.optimizer import LazyAdam, Optimizer, RowAdagrad
from karui.optim.rules import RULES

__all__ = [
    "RULES",
    "LazyAdam",
    "Optimizer",
    "RowAdagrad",
    "clip_grad_norm_",
    "exchange_sparse_gradients",
    "parameter_groups",
]
