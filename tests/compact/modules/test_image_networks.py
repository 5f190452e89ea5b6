"""The image networks of the recipes: chains of convolutions with norms and residual blocks, compact and counted."""

import pytest
import torch
from torch import nn

from karui.compact.images import count_flops
from karui.tasks.image_models import build_network
from karui.tasks.image_settings import ImageModel
from tests.compact.modules.user_models import compacted, drop_columns, drop_rows, randomise


def network(channels, side, **options):
    """In float64, with norms as after a training; randomised weights scaled so that numbers stay near 1."""
    made = randomise(build_network(ImageModel(**options), channels=channels, side=side, classes=10))
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight /= module.weight[0].numel() ** 0.5
    return made.double()


IMAGES = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_blocks_of_a_wide_resnet_lose_their_inner_channels():
    """The second convolution's inputs are what L0 prunes; the first one and the norm between them lose as much."""
    model = network(3, 16, network="wide-resnet", depth=10, width=1)
    kept = {}
    for place, gone in enumerate((5, 20, 37)):
        block = model.blocks[place]
        drop_columns(block.conv2, *range(gone))
        kept[place] = block.conv1.out_channels - gone
    small = compacted(model, IMAGES, tolerance=1e-12)
    assert type(small) is type(model)
    for place, left in kept.items():
        block = small.blocks[place]
        assert (block.conv1.out_channels, block.norm2.num_features, block.conv2.in_channels) == (left,) * 3
    assert small.compaction.architecture == "16-11-16-12-32-32-27-64-64-64"
    positions = (256, 64, 16)
    saved = sum(
        2 * 2 * at * 9 * gone * (inputs + outputs)
        for at, gone, inputs, outputs in zip(positions, (5, 20, 37), (16, 16, 32), (16, 32, 64), strict=True)
    )
    assert small.compaction.flops_before - small.compaction.flops_after == saved
    assert small.compaction.flops_before == count_flops(model, IMAGES)[0]
    assert small.compaction.flops_after == count_flops(small, IMAGES)[0]


def test_a_channel_of_the_residual_stream_goes_when_no_block_reads_or_writes_it():
    model = network(3, 16, network="wide-resnet", depth=16, width=1)
    first, second, third = model.blocks[0], model.blocks[1], model.blocks[2]
    unread, silent = (0, 3), (7,)
    for block in (first, second):
        drop_columns(block.conv1, *unread)
    drop_columns(third.conv1, *unread)
    drop_columns(third.shortcut, *unread)
    for writer in (model.conv, first.conv2, second.conv2):
        drop_rows(writer, *silent)  # still read: what a norm makes of zero is a constant
    small = compacted(model, IMAGES, tolerance=1e-12)
    assert small.conv.out_channels == small.blocks[1].conv2.out_channels == 14
    assert small.blocks[2].shortcut.in_channels == 14
    with torch.no_grad():
        for norm in (first.norm1, second.norm1, third.norm1):
            norm.bias[7] = norm.running_mean[7] = 0.0
            norm.bias[7] = -1.0  # ReLU makes it zero, in the padding too
    assert compacted(model, IMAGES, tolerance=1e-12).conv.out_channels == 13


@pytest.mark.parametrize("group", ["input", "output"])
def test_lenet_5_loses_channels_through_flatten(group):
    """Channels 1 and 4 of conv2 are either unread, all 16 positions of each, or without weights and bias."""
    model = network(1, 28, network="lenet-5", units=(4, 6, 12))
    if group == "input":
        drop_columns(model.conv2, 2)
        model.hidden.weight.data.view(12, 6, 16)[:, [1, 4]] = 0.0
        drop_columns(model.output, 0, 11)
    else:
        drop_rows(model.conv1, 2)
        drop_rows(model.conv2, 1, 4)
        drop_rows(model.hidden, 0, 11)
        with torch.no_grad():
            model.conv1.bias[2] = 0.3  # no padding: a constant is folded
    images = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    small = compacted(model, images, tolerance=1e-12)
    assert small.compaction.architecture == "3-4-64-10"
    macs = 2 * (24 * 24 * 25 * 3 + 8 * 8 * 25 * 3 * 4 + 64 * 10 + 10 * 10)
    assert small.compaction.flops_after == count_flops(small, images)[0] == 2 * macs
    assert small.compaction.flops_before == count_flops(model, images)[0]
