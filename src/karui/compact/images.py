"""What a trained image network is delivered as: the smaller plain network, its file, and what both cost."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from karui.compact.modules.compact import compact_module
from karui.compact.modules.report import Compaction
from karui.compact.sparse_tensors import encode_tensors
from karui.sparse import harden

Measure = Callable[[nn.Module], int]


@dataclass(frozen=True)
class Delivered:
    """A compacted network and its figures."""

    network: nn.Module
    """Plain, in eval mode, with the answers of the masked one."""
    content: bytes
    """Its file: safetensors, in which tensors with many zeros are held sparse (`karui.compact.sparse_tensors`)."""
    architecture: list[int]
    """Live inputs of each linear layer, live output channels of each convolution, from the input on."""
    kept_params: int
    """Numbers of the network that are not zero, biases and norms among them."""
    flops: float
    """Of the matrix products of one image, two a multiplication, as the compacted layers compute them."""
    sparse_flops: float
    """The same where a zero weight costs nothing."""


def deliver(model: nn.Module, example: Tensor) -> Delivered:
    """Compact a network, sparse or masked or dense; example: one image as the network reads it, (1, C, S, S).

    Raises:
        UserError: the answers of the compacted network differ.
    """
    network = compact_module(harden(model), example)
    compaction = network.compaction
    assert isinstance(compaction, Compaction)
    state = network.state_dict()
    flops, sparse_flops = count_flops(network, example)
    return Delivered(
        network,
        encode_tensors(state),
        [int(layer.size) for layer in compaction.layers if layer.size],
        sum(int((parameter != 0).sum()) for parameter in network.parameters()),
        flops,
        sparse_flops,
    )


@torch.no_grad()
def count_flops(network: nn.Module, example: Tensor) -> tuple[float, float]:
    """FLOPs of the linear and convolution layers on the example, two a multiplication; and without those of zeros."""
    totals = [0.0, 0.0]
    handles = []

    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        weight = layer.get_parameter("weight")
        # How often each weight is used: once a row of the output, or once a position of each output channel.
        uses = output.numel() / weight.shape[0]
        totals[0] += 2 * uses * weight.numel()
        totals[1] += 2 * uses * int((weight != 0).sum())

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            handles.append(layer.register_forward_hook(add))
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    return totals[0], totals[1]


def image_bytes(example: Tensor) -> Measure:
    """Bytes of the file that `deliver` makes of a model: what a target size is compared with."""
    return lambda model: len(deliver(model.eval(), example).content)


def image_flops(example: Tensor) -> Callable[[nn.Module], float]:
    """FLOPs of the masked network, two a kept weight and use: what a target of FLOPs is compared with."""
    return lambda model: count_flops(harden(model), example)[1]
