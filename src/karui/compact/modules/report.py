"""What compaction did to a model, for people and for tables."""

from dataclasses import dataclass, field

from torch import nn

from karui.compact.modules.layers import Built
from karui.compact.modules.plan import Analysis, Part, joined


@dataclass(frozen=True)
class Layer:
    """One layer before and after."""

    name: str
    kind: str
    size: str
    """What stays: inputs read of a Linear, channels of a convolution, units of each recurrent layer (directions
    joined by +)."""
    parameters_before: int
    parameters_after: int


@dataclass(frozen=True)
class Compaction:
    """What `compact_module` did to a model; the returned module carries it as its attribute `compaction`."""

    layers: list[Layer]
    parameters_before: int
    parameters_after: int
    flops_before: float
    """Of all matrix products of the layers on the example, two a multiplication."""
    flops_after: float
    max_error: float
    """Largest difference of any answer that was compared, over the largest answer where that exceeds 1."""
    inputs_compared: int
    notes: list[str] = field(default_factory=list)
    """Which parts could not be traced, and stay as they are but for what needs no graph."""
    plan: list[Part] = field(default_factory=list, repr=False)

    @property
    def architecture(self) -> str:
        """Live sizes in the order of the calls, as the pruning literature writes them: "219-214-100"."""
        return "-".join(layer.size for layer in self.layers if layer.size)


def report(
    before: nn.Module, after: nn.Module, found: list[Analysis], error: float, compared: int, notes: list[str]
) -> Compaction:
    """The figures of a compaction; before and after are the model and its compacted copy."""
    layers, flops = [], [0.0, 0.0]
    for analysis in found:
        prefix = analysis.part.prefix
        for name, built in analysis.built.items():
            full = joined(prefix, name)
            layers.append(_layer(full, before.get_submodule(full), after.get_submodule(full), built))
            flops = [flops[0] + 2 * built.macs[0], flops[1] + 2 * built.macs[1]]
    return Compaction(
        layers,
        _count(before),
        _count(after),
        flops[0],
        flops[1],
        error,
        compared,
        notes,
        [analysis.part for analysis in found],
    )


def _layer(name: str, before: nn.Module, after: nn.Module, built: Built) -> Layer:
    return Layer(name, type(before).__name__, built.part, _count(before), _count(after))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
