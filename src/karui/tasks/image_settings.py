"""Settings of the image tasks. Plain values: importing this file imports no torch."""

from dataclasses import dataclass
from typing import Literal

from karui.tasks.settings import SparseSettings

ImageSet = Literal["mnist", "cifar10", "cifar100", "cifar10_subset"]
NetworkName = Literal["lenet-300-100", "lenet-5", "wide-resnet"]

PUBLISHED_UNITS: dict[str, tuple[int, ...]] = {"lenet-300-100": (300, 100), "lenet-5": (20, 50, 500)}
"""Hidden units, or channels and then hidden units, of the published networks."""


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Which images, and how they become batches."""

    name: ImageSet = "mnist"
    """The set; cifar10_subset is a fifth of the training images of cifar10 with the whole test split."""

    batch_size: int = 100
    """Images in a batch."""

    valid_examples: int = 5000
    """Training images kept for validation: the last ones."""

    augment: bool = False
    """Train on crops of 32 by 32 out of images with 4 black pixels around them, half of them mirrored; colours only."""

    limit: int = 0
    """Training images used, the first ones, for short trials; 0 = all."""

    def __post_init__(self) -> None:
        _check("batch_size", self.batch_size, ">= 1", self.batch_size >= 1)
        _check("valid_examples", self.valid_examples, ">= 1", self.valid_examples >= 1)
        _check("limit", self.limit, ">= 0", self.limit >= 0)
        _check("augment", self.augment, "false for mnist: a mirrored digit is none", self.fits_augmentation)

    @property
    def fits_augmentation(self) -> bool:
        """Whether `augment` is right for these images."""
        return not (self.augment and self.name == "mnist")


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """The network."""

    network: NetworkName = "lenet-300-100"
    """lenet-300-100: two hidden layers; lenet-5: two convolutions of 5 by 5 and one hidden layer; wide-resnet."""

    units: tuple[int, ...] = ()
    """Hidden units of lenet-300-100 (2), or channels and hidden units of lenet-5 (3); empty = as published."""

    depth: int = 28
    """wide-resnet: layers with weights, 6 n + 4."""

    width: int = 10
    """wide-resnet: factor on the published 16, 32 and 64 channels; 1 is a plain residual network."""

    dropout: float = 0.0
    """wide-resnet: dropout between the two convolutions of a block."""

    def __post_init__(self) -> None:
        wanted = len(PUBLISHED_UNITS.get(self.network, ()))
        fits = not self.units or len(self.units) == wanted
        what = f"{wanted} numbers, or empty" if wanted else "empty"
        _check("units", self.units, f"{what} for {self.network}", fits)
        _check("units", self.units, ">= 1 each", all(units >= 1 for units in self.units))
        _check("depth", self.depth, "6 n + 4 with n >= 1", self.depth >= 10 and (self.depth - 4) % 6 == 0)
        _check("width", self.width, ">= 1", self.width >= 1)
        _check("dropout", self.dropout, "in [0, 1)", 0 <= self.dropout < 1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Hidden units of a LeNet."""
        return self.units or PUBLISHED_UNITS[self.network]


@dataclass(frozen=True, kw_only=True)
class ImageSparse(SparseSettings):
    """How weights become zero. With groups of none: l0 has a gate an input unit and an output channel of a convolution,
    in a wide ResNet for the first convolution of each block alone; vd and magnitude have one a weight.

    A sparse layer is one that has gates; they are counted from the input.
    """

    drop_rates: tuple[float, ...] = ()
    """l0: first probability that a gate is closed, one a sparse layer; empty: drop_rate for all."""

    lambdas: tuple[float, ...] = ()
    """l0: price of an expected weight, one a sparse layer; empty: l0_lambda for all."""

    layer_densities: tuple[float, ...] = ()
    """Share of each sparse layer's weights that is kept, in place of one target for the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("drop_rates", "lambdas"):
            _check(
                name,
                getattr(self, name),
                "empty unless method is l0",
                not getattr(self, name) or self.method == "l0",
            )
        _check("drop_rates", self.drop_rates, "in (0, 1)", all(0 < rate < 1 for rate in self.drop_rates))
        _check("lambdas", self.lambdas, ">= 0", all(price >= 0 for price in self.lambdas))
        densities = self.layer_densities
        _check("layer_densities", densities, "in (0, 1]", all(0 < density <= 1 for density in densities))
        alone = not densities or (self.target is None and self.method != "none")
        _check("layer_densities", densities, "empty with another target, or without a method", alone)

    @property
    def has_target(self) -> bool:
        """Whether the model, or each of its layers, shall come to something."""
        return super().has_target or bool(self.layer_densities)


def _check(name: str, value: object, expectation: str, is_met: bool) -> None:
    if not is_met:
        raise ValueError(f"{name} must be {expectation}, got {value!r}")
