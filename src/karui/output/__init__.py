"""Output layers: a distribution over up to ten million classes, trained by the loss of choice, answered exactly.

A layer's module is imported when its name is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karui.output.adaptive import AdaptiveSoftmax
    from karui.output.base import OutputLayer
    from karui.output.blackout import BlackOut
    from karui.output.class_softmax import ClassSoftmax
    from karui.output.full import FullSoftmax
    from karui.output.hierarchical import HierarchicalSoftmax
    from karui.output.importance import ImportanceSampledSoftmax
    from karui.output.nce import NCE
    from karui.output.negative import NegativeSampling
    from karui.output.noise import LogUniform, NoiseDistribution, Uniform, Unigram
    from karui.output.registry import OUTPUTS, build_output
    from karui.output.sampled import SampledSoftmax
    from karui.output.self_normalized import SelfNormalizedSoftmax

__all__ = [
    "NCE",
    "OUTPUTS",
    "AdaptiveSoftmax",
    "BlackOut",
    "ClassSoftmax",
    "FullSoftmax",
    "HierarchicalSoftmax",
    "ImportanceSampledSoftmax",
    "LogUniform",
    "NegativeSampling",
    "NoiseDistribution",
    "OutputLayer",
    "SampledSoftmax",
    "SelfNormalizedSoftmax",
    "Uniform",
    "Unigram",
    "build_output",
]

_HOMES = {
    "AdaptiveSoftmax": "adaptive",
    "BlackOut": "blackout",
    "ClassSoftmax": "class_softmax",
    "FullSoftmax": "full",
    "HierarchicalSoftmax": "hierarchical",
    "ImportanceSampledSoftmax": "importance",
    "LogUniform": "noise",
    "NCE": "nce",
    "NegativeSampling": "negative",
    "NoiseDistribution": "noise",
    "OUTPUTS": "registry",
    "OutputLayer": "base",
    "SampledSoftmax": "sampled",
    "SelfNormalizedSoftmax": "self_normalized",
    "Uniform": "noise",
    "Unigram": "noise",
    "build_output": "registry",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'karui.output' has no attribute {name!r}")
    value = getattr(import_module(f"karui.output.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
