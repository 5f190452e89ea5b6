"""The networks of the L0 paper's experiments, made of plain torch layers: LeNet-300-100, LeNet-5, wide ResNet.

B images, C channels, S side. Weights begin as He et al. 2015 (fan in), biases at zero, as in the code of Louizos,
Welling, Kingma 2018.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.tasks.image_settings import ImageModel


def build_network(model: ImageModel, *, channels: int, side: int, classes: int) -> nn.Module:
    """Return an untrained network from images (B, channels, side, side) to logits (B, classes).

    Raises ValueError where the images are too small for the convolutions.
    """
    if model.network == "wide-resnet":
        made: nn.Module = WideResNet(
            channels, classes, depth=model.depth, width=model.width, dropout=model.dropout
        )
    elif model.network == "lenet-5":
        made = lenet_5(channels, side, classes, sizes=model.sizes)
    else:
        made = lenet_300_100(channels * side * side, classes, sizes=model.sizes)
    _initialise(made)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third less time on a CPU


def lenet_300_100(inputs: int, classes: int, *, sizes: tuple[int, ...] = (300, 100)) -> nn.Sequential:
    """Return a network of two hidden layers (LeCun et al. 1998)."""
    first, second = sizes
    layers = {
        "flatten": nn.Flatten(),
        "hidden1": nn.Linear(inputs, first),
        "relu1": nn.ReLU(),
        "hidden2": nn.Linear(first, second),
        "relu2": nn.ReLU(),
        "output": nn.Linear(second, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def lenet_5(
    channels: int, side: int, classes: int, *, sizes: tuple[int, ...] = (20, 50, 500)
) -> nn.Sequential:
    """Return LeNet-5 as Caffe has it: convolutions of 5 by 5, maxima of 2 by 2, one hidden layer (800 to 500)."""
    first, second, hidden = sizes
    reduced = ((side - 4) // 2 - 4) // 2
    if reduced < 1:
        raise ValueError(f"side must be at least 16 for lenet-5, got {side}")
    layers = {
        "conv1": nn.Conv2d(channels, first, 5),
        "pool1": nn.MaxPool2d(2),
        "relu1": nn.ReLU(),  # behind the maximum, with which it commutes: a quarter of the work
        "conv2": nn.Conv2d(first, second, 5),
        "pool2": nn.MaxPool2d(2),
        "relu2": nn.ReLU(),
        "flatten": nn.Flatten(),
        "hidden": nn.Linear(second * reduced * reduced, hidden),
        "relu3": nn.ReLU(),
        "output": nn.Linear(hidden, classes),
    }
    return nn.Sequential(OrderedDict(layers))


class WideBlock(nn.Module):
    """Norm, ReLU, convolution, twice, beside the identity or a convolution of 1 by 1 (Zagoruyko and Komodakis 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(B, inputs, S, S) to (B, outputs, S / stride, S / stride)."""
        active = F.relu(self.norm1(input))
        inner = self.dropout(F.relu(self.norm2(self.conv1(active))))
        beside = input if self.shortcut is None else self.shortcut(active)
        return beside + self.conv2(inner)


class WideResNet(nn.Module):
    """WRN-depth-width: three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` channels."""

    def __init__(
        self, channels: int, classes: int, *, depth: int = 28, width: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6 n + 4 with n >= 1, got {depth}")
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        blocks, inputs = [], 16
        for group, outputs in enumerate((16 * width, 32 * width, 64 * width)):
            for place in range((depth - 4) // 6):
                stride = 2 if group and not place else 1
                blocks.append(WideBlock(inputs, outputs, stride=stride, dropout=dropout))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.output = nn.Linear(inputs, classes)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(B, channels, S, S) to (B, classes)."""
        states = F.relu(self.norm(self.blocks(self.conv(input))))
        return self.output(states.mean((2, 3)))


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                layer.bias.zero_()
