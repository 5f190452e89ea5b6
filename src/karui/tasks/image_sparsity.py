"""Which layers of an image network have gates, and a target for each of them."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from karui.errors import UserError
from karui.sparse import sparse_layers
from karui.sparse.control import Control
from karui.targets import Target
from karui.tasks.image_models import WideResNet
from karui.tasks.image_settings import ImageSparse
from karui.tasks.sparse_task import make_sparse


def make_layers_sparse(network: nn.Module, settings: ImageSparse) -> nn.Module:
    """Replace the layers that shall have gates by their sparse versions, in place; returns the network.

    Raises UserError where a setting for each sparse layer has another number of values than there are such layers.
    """
    if settings.method == "none":
        return network
    places = _places(network, settings)
    for name in ("drop_rates", "lambdas", "layer_densities"):
        values = getattr(settings, name)
        if values and len(values) != len(places):
            raise UserError(
                f"sparse.{name} must be empty or one number for each of the {len(places)} sparse layers "
                f"({', '.join(places)}), got {len(values)}"
            )
    for number, (path, groups) in enumerate(places.items()):
        own = {
            "drop_rate": settings.drop_rates[number] if settings.drop_rates else settings.drop_rate,
            "l0_lambda": settings.lambdas[number] if settings.lambdas else settings.l0_lambda,
        }
        parent, _, child = path.rpartition(".")
        layer = make_sparse(network.get_submodule(path), replace(settings, groups=groups, **own))
        setattr(network.get_submodule(parent), child, layer)
    return network


def _places(network: nn.Module, settings: ImageSparse) -> dict[str, tuple[str, ...]]:
    """The layers with gates, from the input on, and their groups. What a class is called by stays: "output" of the last
    layer is no group.
    """
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    last = list(layers)[-1]
    found: dict[str, tuple[str, ...]] = {}
    for name, layer in layers.items():
        groups: tuple[str, ...] = settings.groups or ()
        if settings.groups is None:
            groups = _usual_groups(settings.method, layer)
            if settings.method == "l0" and isinstance(network, WideResNet) and not name.endswith(".conv1"):
                continue
        elif name == last:
            groups = tuple(group for group in groups if group != "output")
        if groups:
            found[name] = groups
    if not found:
        raise UserError(f"sparse.groups {settings.groups} leave every layer dense; add input or weight")
    return found


def _usual_groups(method: str, layer: nn.Module) -> tuple[str, ...]:
    if method != "l0":
        return ("weight",)
    return ("output",) if isinstance(layer, nn.Conv2d) else ("input",)


class LayerControls:
    """A `Control` for each sparse layer, which keeps its own share of its weights (Gallego-Posada et al. 2022)."""

    def __init__(self, model: nn.Module, settings: ImageSparse, *, num_examples: int) -> None:
        self.parts = {
            name: Control(
                layer,
                Target(density=density),
                method=settings.method,
                num_examples=num_examples,
                begin=settings.prune_from,
                end=settings.prune_until,
                settle=settings.settle_from,
            )
            for (name, layer), density in zip(sparse_layers(model), settings.layer_densities, strict=True)
        }

    def before_step(self, progress: float) -> None:
        """Settle the layers when it is time."""
        for part in self.parts.values():
            part.before_step(progress)

    def constraint(self, progress: float) -> Tensor | None:
        """Sum of what the layers add to the loss."""
        terms = [term for part in self.parts.values() if (term := part.constraint(progress)) is not None]
        return torch.stack(terms).sum() if terms else None

    @contextlib.contextmanager
    def deployed(self) -> Iterator[None]:
        """The model with each layer at its target inside the block; then as before."""
        with contextlib.ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part.deployed())
            yield

    def status(self) -> dict[str, float]:
        """Density of the model, expected and real."""
        prunable = sum(part.prunable for part in self.parts.values())
        total: dict[str, float] = {}
        for part in self.parts.values():
            for name, value in part.status().items():
                if name.endswith("density"):
                    total[name] = total.get(name, 0.0) + value * part.prunable / prunable
        return total

    def state(self) -> dict[str, Tensor]:
        """What the next step needs besides the model, by layer and name."""
        return {
            f"{layer}/{name}": value
            for layer, part in self.parts.items()
            for name, value in part.state().items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned."""
        for layer, part in self.parts.items():
            part.load_state({name: state[f"{layer}/{name}"] for name in part.state()})
