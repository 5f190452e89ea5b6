"""How weights become zero: one `sparsify` for every method and layer."""

from karui.sparse.apply import sparsify
from karui.sparse.factorised import Factorised, factorise
from karui.sparse.groups import GROUPS
from karui.sparse.hard_concrete import HardConcrete
from karui.sparse.magnitude import MagnitudePruning
from karui.sparse.measures import (
    anneal,
    density,
    expected_density,
    expected_kept,
    gate_parameters,
    harden,
    keep_mask,
    kept_parameters,
    penalty,
    predict_samples,
    prunable_parameters,
    sparse_layers,
    words_kept,
)
from karui.sparse.projection import dense_copy, project, project_where, release
from karui.sparse.variational import SparseVariationalDropout

METHODS = {
    "l0": HardConcrete,
    "vd": SparseVariationalDropout,
    "magnitude": MagnitudePruning,
}
"""Names of the methods in settings and on the command line."""

__all__ = [
    "GROUPS",
    "METHODS",
    "Factorised",
    "HardConcrete",
    "MagnitudePruning",
    "SparseVariationalDropout",
    "anneal",
    "dense_copy",
    "density",
    "expected_density",
    "expected_kept",
    "factorise",
    "gate_parameters",
    "harden",
    "keep_mask",
    "kept_parameters",
    "penalty",
    "predict_samples",
    "project",
    "project_where",
    "prunable_parameters",
    "release",
    "sparse_layers",
    "sparsify",
    "words_kept",
]
