"""How weights become zero: one `sparsify` for every method and layer."""

from karui.sparse.apply import density, harden, keep_mask, penalty, sparsify, words_kept
from karui.sparse.variational import SparseVariationalDropout

__all__ = ["SparseVariationalDropout", "density", "harden", "keep_mask", "penalty", "sparsify", "words_kept"]
