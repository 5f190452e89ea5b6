"""karui (軽い, light in weight): small, fast sequence models, each one file that runs without PyTorch.

Importing this package imports nothing else; the names below are found on first use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karui.errors import UserError
    from karui.nn import GRU, LSTM, QRNN, SRU, MinGRU, SRUpp, StatisticalRecurrentUnit
    from karui.output import (
        NCE,
        AdaptiveSoftmax,
        BlackOut,
        ClassSoftmax,
        FullSoftmax,
        HierarchicalSoftmax,
        ImportanceSampledSoftmax,
        NegativeSampling,
        SampledSoftmax,
        SelfNormalizedSoftmax,
        build_output,
    )
    from karui.runtime.model import Classifier, load
    from karui.sparse import SparseVariationalDropout, sparsify
    from karui.tasks.text_classifier import TextClassifier

    __version__: str

__all__ = [
    "GRU",
    "LSTM",
    "NCE",
    "QRNN",
    "SRU",
    "AdaptiveSoftmax",
    "BlackOut",
    "ClassSoftmax",
    "Classifier",
    "FullSoftmax",
    "HierarchicalSoftmax",
    "ImportanceSampledSoftmax",
    "MinGRU",
    "NegativeSampling",
    "SRUpp",
    "SampledSoftmax",
    "SelfNormalizedSoftmax",
    "SparseVariationalDropout",
    "StatisticalRecurrentUnit",
    "TextClassifier",
    "UserError",
    "__version__",
    "build_output",
    "load",
    "sparsify",
]

# Public name -> module that defines it. `compact` is missing on purpose: it would collide with the room of
# that name, so it is `from karui.compact import compact`.
_HOMES = {
    "AdaptiveSoftmax": "karui.output",
    "BlackOut": "karui.output",
    "build_output": "karui.output",
    "ClassSoftmax": "karui.output",
    "FullSoftmax": "karui.output",
    "HierarchicalSoftmax": "karui.output",
    "ImportanceSampledSoftmax": "karui.output",
    "NCE": "karui.output",
    "NegativeSampling": "karui.output",
    "SampledSoftmax": "karui.output",
    "SelfNormalizedSoftmax": "karui.output",
    "GRU": "karui.nn",
    "LSTM": "karui.nn",
    "MinGRU": "karui.nn",
    "QRNN": "karui.nn",
    "SRU": "karui.nn",
    "SRUpp": "karui.nn",
    "StatisticalRecurrentUnit": "karui.nn",
    "Classifier": "karui.runtime.model",
    "SparseVariationalDropout": "karui.sparse",
    "TextClassifier": "karui.tasks.text_classifier",
    "UserError": "karui.errors",
    "load": "karui.runtime.model",
    "sparsify": "karui.sparse",
}


def __getattr__(name: str) -> object:
    import importlib

    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("karui")
    if name not in _HOMES:
        raise AttributeError(f"module 'karui' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
