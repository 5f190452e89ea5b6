"""What an image network is delivered as: live units, FLOPs, the bytes of its file."""

import pytest
import torch
from torch import nn

from karui.compact.images import count_flops, deliver, image_bytes, image_flops
from karui.compact.sparse_tensors import decode_tensors
from karui.sparse import HardConcrete, MagnitudePruning, project, prunable_parameters, sparsify
from karui.tasks.image_models import build_network
from karui.tasks.image_settings import ImageModel

PUBLISHED = {"lenet-300-100": [784, 300, 100], "lenet-5": [20, 50, 800, 500]}


@pytest.mark.parametrize("network", PUBLISHED)
def test_a_dense_network_is_delivered_whole(network):
    made = build_network(ImageModel(network=network), channels=1, side=28, classes=10)
    found = deliver(made, torch.rand(1, 1, 28, 28))
    assert found.architecture == PUBLISHED[network]
    assert found.flops == found.sparse_flops == {"lenet-300-100": 532_400, "lenet-5": 4_586_000}[network]
    weights = sum(p.numel() for p in made.parameters() if p.dim() > 1)
    assert 4 * weights < len(found.content) < 4.04 * weights


def test_live_units_are_those_of_the_smaller_network():
    torch.manual_seed(0)
    made = build_network(ImageModel(units=(20, 10)), channels=1, side=28, classes=10)
    with torch.no_grad():
        made.get_submodule("hidden1").weight[:, 100:] = 0  # 684 pixels that nobody reads
        made.get_submodule("hidden2").weight[:, :15] = 0  # 15 units that nobody reads
        made.get_submodule("output").weight[:, [2, 5]] = 0
    found = deliver(made, torch.rand(1, 1, 28, 28))
    assert found.architecture == [100, 5, 8]
    assert found.flops == 2 * (100 * 5 + 5 * 8 + 8 * 10)
    images = torch.rand(9, 1, 28, 28)
    with torch.no_grad():
        assert torch.allclose(found.network(images), made.eval()(images), atol=1e-5)
    again = decode_tensors(found.content)
    assert all(torch.equal(again[name], value) for name, value in found.network.state_dict().items())


def test_channels_of_convolutions_and_their_readers_go():
    torch.manual_seed(0)
    made = build_network(ImageModel(network="lenet-5", units=(4, 6, 12)), channels=1, side=28, classes=10)
    with torch.no_grad():
        for name, channels in (("conv1", [1]), ("conv2", [0, 3, 5])):
            made.get_submodule(name).weight[channels] = 0
            made.get_submodule(name).bias[channels] = 0
    found = deliver(made, torch.rand(1, 1, 28, 28))
    assert found.architecture == [3, 3, 48, 12]


def test_zeros_inside_live_rows_cost_flops_but_few_bytes():
    torch.manual_seed(0)
    made = build_network(ImageModel(units=(20, 10)), channels=1, side=28, classes=10)
    model = sparsify(made, MagnitudePruning())
    project(model, keep=prunable_parameters(model) // 10)
    example = torch.rand(1, 1, 28, 28)
    found = deliver(model.eval(), example)
    assert found.sparse_flops < 0.2 * found.flops
    assert len(found.content) < 0.25 * len(deliver(build_again(), example).content)
    assert found.sparse_flops == 2 * sum(
        int((layer.weight != 0).sum()) for layer in found.network.modules() if isinstance(layer, nn.Linear)
    )


def build_again() -> nn.Module:
    return build_network(ImageModel(units=(20, 10)), channels=1, side=28, classes=10)


def test_measures_fall_with_the_weights_kept():
    torch.manual_seed(0)
    model = sparsify(build_again(), HardConcrete(groups=("input",))).eval()
    example = torch.rand(1, 1, 28, 28)
    figures = []
    for share in (1.0, 0.5, 0.1):
        project(model, keep=int(share * prunable_parameters(model)))
        figures.append((image_bytes(example)(model), image_flops(example)(model)))
    assert figures[0][0] > 1.5 * figures[1][0] > 4 * figures[2][0]
    assert figures[0][1] == 2 * prunable_parameters(model)
    assert figures[1][1] <= figures[0][1] / 2


def test_uses_of_a_convolution_are_its_positions():
    layer = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, stride=2))
    assert count_flops(layer, torch.rand(1, 2, 8, 8)) == (2 * 3 * 2 * 9 * 16, 2 * 3 * 2 * 9 * 16)
