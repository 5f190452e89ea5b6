"""Recipes of image networks, dense and sparse, and the rows of the table sparse-images.

Published settings (Louizos, Welling, Kingma 2018, and its code) are in recipes whose names begin with published-.
LeNets: Adam at 1e-3, batch 100, 200 epochs, weights averaged at 0.999 and used so at evaluation; gates of the input
units of linear layers (first drop rate 0.2 in the first layer of the network, 0.5 elsewhere) and of the output
channels of convolutions; lambda 0.1 / N. Wide ResNet: SGD with momentum, 0.1 x 0.2 at 60, 120, 160, batch 128, weight
decay 5e-4, averaging 0.99; gates on the first convolution of each block at 0.3; lambda 0.001 / N. The gates' own rate
of 6.0 there is that of Gallego-Posada et al. 2022, without which none closes.

The others reach a stated size in minutes on one core: `layer_densities` are the live units of an architecture over all.
Their weight decay was chosen on the validation images: the small network that is left learns its training images by
heart without it (nll there 0.067 at 0, 0.062 at 1e-4, 0.054 at 5e-4, 0.059 at 1e-3). Settings were chosen on the last
5,000 training images; both rows of units then learn from 4,000 of these too, where the published runs learn from all.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from karui.tasks.image_settings import ImageData, ImageModel, ImageSparse
from karui.train.settings import TrainSettings

SEEDS = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """Everything that decides how images are learned."""

    task: Literal["images"] = "images"
    """The task."""

    name: str = "images"
    """Name of the recipe."""

    data: ImageData = field(default_factory=ImageData)
    """Images and batches."""

    model: ImageModel = field(default_factory=ImageModel)
    """The network."""

    sparse: ImageSparse = field(default_factory=ImageSparse)
    """How weights become zero."""

    train: TrainSettings = field(default_factory=TrainSettings)
    """The training loop."""


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One row of sparse-images: a recipe, and the seeds of its runs."""

    recipe: ImageRecipe
    """What is trained; nothing is searched."""

    seeds: tuple[int, ...] = SEEDS
    """Seeds of the runs."""


_LENET_TRAIN = TrainSettings(
    max_epochs=20,
    lr=2e-3,
    decay_start=0.3,
    weight_decay=5e-4,
    weight_averaging=0.999,
    keep="last",
    evaluate_every=2,
    threads=1,
)
_EPOCHS = {
    "lenet-300-100": {"l0": 48, "vd": 16, "magnitude": 16, "dense": 16, "small": 16},
    "lenet-5": {"l0": 30, "vd": 16, "magnitude": 16, "dense": 16, "small": 16},
}
_ASKED_EPOCHS = 12
"""Of the recipes that are named by a density or size."""
_PUBLISHED_TRAIN = TrainSettings(
    max_epochs=200,
    lr=1e-3,
    schedule="constant",
    weight_averaging=0.999,
    weight_decay=5e-4,
    penalty_ramp=0.0,
    keep="last",
    evaluate_every=5,
    threads=1,
)
_WIDE_TRAIN = TrainSettings(
    max_epochs=200,
    lr=0.1,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    schedule="step",
    step_factor=0.2,
    milestones=(60, 120, 160),
    weight_averaging=0.99,
    penalty_ramp=0.0,
    keep="last",
)
_NARROW_TRAIN = replace(
    _WIDE_TRAIN, max_epochs=60, milestones=(30, 45, 55), threads=1, precision="bf16-mixed"
)

# architecture -> live units of each layer over all of them; a little more than the quotient, so that rounding is down
_ARCHITECTURES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "lenet-300-100": ((266, 88, 33), (784, 300, 100)),
    "lenet-5": ((9, 18, 65, 25), (20, 50, 800, 500)),
}
_DROP_RATES = {"lenet-300-100": (0.2, 0.5, 0.5), "lenet-5": (0.5, 0.5, 0.5, 0.5)}
_EQUAL_BYTES: dict[str, int] = {"lenet-300-100": 109_804, "lenet-5": 25_900}
"""Bytes of the file that a network of these live units takes; what the other methods are held to."""
_SMALL_UNITS = {"lenet-300-100": (33, 30), "lenet-5": (9, 14, 10)}
"""Units of a dense network whose file takes as much."""
_WEIGHT_DECAY = {"lenet-300-100": 5e-4, "lenet-5": 1e-4}
_CHOSEN_DATA = ImageData(valid_examples=1000)
"""With settings chosen on 5,000 images, the rows of one size learn from 59,000; the published runs from all 60,000."""
_SETTLED = {"prune_until": 0.4, "settle_from": 0.5}
"""Half a run with noise, half without: at 20 kB LeNet-300-100 errs by 3.0 % so, by 13.1 % with noise to the end."""
DENSITIES = (0.10, 0.05, 0.02)
SIZES_KB = (200, 50, 20)


def _layer_densities(network: str) -> tuple[float, ...]:
    live, units = _ARCHITECTURES[network]
    return tuple(round((kept + 0.25) / count, 5) for kept, count in zip(live, units, strict=True))


def _lenet(network: str, kind: str, **parts: Any) -> ImageRecipe:
    data = parts.pop("data", ImageData())
    model = ImageModel(network=network, units=parts.pop("units", ()))  # type: ignore[arg-type]
    sparse = ImageSparse(**parts.pop("sparse", {}))
    train = replace(_LENET_TRAIN, max_epochs=_EPOCHS[network].get(kind, _ASKED_EPOCHS), **parts)
    if network == "lenet-5":  # convolutions in 16 bits: 25 ms a step in place of 40 on one core that has them
        train = replace(train, precision="bf16-mixed")
    if sparse.method == "vd":  # its KL is what keeps weights small
        train = replace(train, weight_decay=0.0)
    if sparse.target is not None:  # each evaluation looks for the weights that fit
        train = replace(train, evaluate_every=4)
    return ImageRecipe(name=f"{network}-{kind}", data=data, model=model, sparse=sparse, train=train)


def _lenets(network: str) -> list[ImageRecipe]:
    size = f"{_EQUAL_BYTES[network]}B"
    structured = {
        "method": "l0",
        "layer_densities": _layer_densities(network),
        "drop_rate": 0.2,
        "gate_lr": 0.02,
        "prune_until": 0.4,
    }
    kinds: dict[str, dict[str, Any]] = {
        "l0": {"sparse": structured},
        "vd": {"sparse": {"method": "vd", "target_size": size, **_SETTLED}},
        "magnitude": {"sparse": {"method": "magnitude", "target_size": size}},
        "dense": {},
        "small": {"units": _SMALL_UNITS[network]},
    }
    shared = {"data": _CHOSEN_DATA, "weight_decay": _WEIGHT_DECAY[network]}
    return [_lenet(network, kind, **shared, **parts) for kind, parts in kinds.items()]


def _targets() -> list[ImageRecipe]:
    """Every method on LeNet-300-100, gates of single weights, at each density and size."""
    asked = {f"{share:.0%}".replace("%", "pc"): {"target_density": share} for share in DENSITIES}
    asked |= {f"{size}kb": {"target_size": f"{size}kB"} for size in SIZES_KB}
    return [
        _lenet(
            "lenet-300-100",
            f"{method}-{name}",
            sparse={"method": method, "groups": ("weight",), **target, **schedule},
        )
        for method, schedule in (("l0", {}), ("vd", _SETTLED), ("magnitude", {}))
        for name, target in asked.items()
    ]


def _published(network: str) -> ImageRecipe:
    rates = _DROP_RATES[network]
    sparse = ImageSparse(method="l0", drop_rates=rates, l0_lambda=0.1, gate_lr=1e-3)
    return ImageRecipe(
        name=f"published-{network}-l0",
        model=ImageModel(network=network),  # type: ignore[arg-type]
        sparse=sparse,
        train=_PUBLISHED_TRAIN,
    )


def _wide(data: str, kind: str, model: ImageModel, train: TrainSettings, **sparse: Any) -> ImageRecipe:
    short = {"cifar10": "cifar10", "cifar100": "cifar100", "cifar10_subset": "subset"}[data]
    prefix = "published-" if train is _WIDE_TRAIN else ""
    held_out = 1000 if data == "cifar10_subset" else 5000
    return ImageRecipe(
        name=f"{prefix}wrn-{model.depth}-{model.width}-{short}-{kind}",
        data=ImageData(name=data, batch_size=128, valid_examples=held_out, augment=True),  # type: ignore[arg-type]
        model=model,
        sparse=ImageSparse(**sparse),
        train=train,
    )


_L0_WIDE = {"method": "l0", "drop_rate": 0.3, "l0_lambda": 0.001, "gate_lr": 6.0}
_PUBLISHED = [
    *(_published(network) for network in _ARCHITECTURES),
    *(
        _wide(data, kind, ImageModel(network="wide-resnet"), _WIDE_TRAIN, **sparse)
        for data in ("cifar10", "cifar100")
        for kind, sparse in (("dense", {}), ("l0", _L0_WIDE))
    ),
]
_NARROW = ImageModel(network="wide-resnet", depth=10, width=1)
_NARROWS = [
    _wide("cifar10_subset", "dense", _NARROW, _NARROW_TRAIN),
    *(
        _wide(
            "cifar10_subset",
            kind,
            _NARROW,
            _NARROW_TRAIN,
            method="l0",
            drop_rate=0.1,
            gate_lr=5.0,
            **_SETTLED,
            target_flops=flops,  # of 25,003,264, of which gates reach 9 million
        )
        for kind, flops in (("l0", 20_000_000), ("l0-17m", 17_000_000))
    ),
]
_MAIN = [recipe for network in _ARCHITECTURES for recipe in _lenets(network)]
_DEFAULT = ImageRecipe(train=_LENET_TRAIN)
_SPARSE = replace(_DEFAULT, name="images-sparse", sparse=ImageSparse(method="l0", l0_lambda=0.1))

RECIPES = {recipe.name: recipe for recipe in (_DEFAULT, _SPARSE, *_MAIN, *_targets(), *_NARROWS, *_PUBLISHED)}
ROWS = {
    **{recipe.name: ImageRow(recipe=recipe) for recipe in _MAIN},
    **{recipe.name: ImageRow(recipe=recipe, seeds=(0,)) for recipe in (*_targets(), *_NARROWS)},
    **{recipe.name: ImageRow(recipe=recipe) for recipe in _PUBLISHED},
}
"""Rows of the table sparse-images."""

DEFAULT_ROWS = tuple(recipe.name for recipe in (*_MAIN, *_targets(), *_NARROWS))
"""Rows that are made where none is named; the published ones take hours, or days without a GPU."""
