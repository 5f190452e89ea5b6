"""Output layers by the names that settings and the command line use; modules are imported when they are built."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from karui.output.base import OutputLayer

# Name -> module, class, and what the name fixes of its options.
_HOMES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "full": ("karui.output.full", "FullSoftmax", {}),
    "importance": ("karui.output.importance", "ImportanceSampledSoftmax", {"include_target": False}),
    "importance-target": ("karui.output.importance", "ImportanceSampledSoftmax", {"include_target": True}),
    "sampled": ("karui.output.sampled", "SampledSoftmax", {}),
    "nce": ("karui.output.nce", "NCE", {}),
    "negative": ("karui.output.negative", "NegativeSampling", {}),
    "blackout": ("karui.output.blackout", "BlackOut", {}),
    "self-normalized": ("karui.output.self_normalized", "SelfNormalizedSoftmax", {}),
    "huffman": ("karui.output.hierarchical", "HierarchicalSoftmax", {}),
    "class": ("karui.output.class_softmax", "ClassSoftmax", {}),
    "adaptive": ("karui.output.adaptive", "AdaptiveSoftmax", {}),
}
OUTPUTS = tuple(_HOMES)
FLAT = OUTPUTS[:8]  # one V x H table each, the same state dict: they differ in the training loss alone
_SHARED = (
    "weight",
    "bias",
    "sparse",
)  # words of build_output; a layer that lacks one must be left its default
_DEFAULTS = {"weight": None, "bias": True, "sparse": "auto"}


def output_class(name: str) -> Any:
    """The class of a name in `OUTPUTS`; raises ValueError for any other."""
    if name not in _HOMES:
        raise ValueError(f"output must be one of {OUTPUTS}, got {name!r}")
    module, attribute, _ = _HOMES[name]
    return getattr(import_module(module), attribute)


def output_options(name: str) -> dict[str, Any]:
    """Names and defaults of the options that a layer has of its own, beyond those of every layer."""
    parameters = inspect.signature(output_class(name).__init__).parameters
    fixed = {"self", "hidden_size", "counts", *_SHARED, *_HOMES[name][2]}
    return {word: value.default for word, value in parameters.items() if word not in fixed}


def build_output(
    name: str,
    hidden_size: int,
    counts: Tensor | int,
    *,
    weight: nn.Parameter | None = None,
    bias: bool = True,
    sparse: bool | str = "auto",
    options: Mapping[str, Any] | None = None,
) -> OutputLayer:
    """Build an output layer over the classes of `counts` ((V,) int64 in any order, or V) for vectors of `hidden_size`.

    name: one of `OUTPUTS`. weight: a table (V, H) to tie, flat layers only. bias, sparse: see FlatOutput. options:
    further keyword arguments of the layer's constructor. Raises ValueError for an unknown name or option, or for an
    argument that this layer does not have.
    """
    cls, options = output_class(name), dict(options or {})
    known = output_options(name)
    for word in options:
        if word not in known:
            raise ValueError(f"{name} has no option {word!r}; it has {', '.join(sorted(known)) or 'none'}")
    parameters = inspect.signature(cls.__init__).parameters
    shared: dict[str, Any] = {"weight": weight, "bias": bias, "sparse": sparse}
    for word in _SHARED:
        if word in parameters:
            continue
        value = shared.pop(word)
        if value is not _DEFAULTS[word] and value != _DEFAULTS[word]:
            raise ValueError(f"{name} takes no {word}=: it has no such table to share or to leave out")
    return cls(hidden_size, counts, **shared, **_HOMES[name][2], **options)
