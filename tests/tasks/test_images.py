"""Image networks and their task: sizes, batches, gates, targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from karui.data.storage import data_root
from karui.errors import UserError
from karui.sparse import density, keep_mask, sparse_layers
from karui.tasks.image_models import WideBlock, WideResNet, build_network
from karui.tasks.image_settings import ImageData, ImageModel, ImageSparse
from karui.tasks.images import PADDING, ImageTask, crops
from karui.train import TrainSettings, fit
from tests.support.image_sets import place_cifar, place_subset
from tests.support.sequence_sets import place_mnist
from tests.support.stopping import fit_until

TINY = ImageModel(units=(12, 6))
MNIST = ImageData(batch_size=16, valid_examples=8)


def weights_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("model", "channels", "side", "weights"),
    [
        (ImageModel(), 1, 28, 784 * 300 + 300 + 300 * 100 + 100 + 1010),
        (
            ImageModel(network="lenet-5"),
            1,
            28,
            20 * 26 + 50 * 501 + 800 * 500 + 500 + 5010,
        ),
        (
            ImageModel(network="wide-resnet", depth=28, width=10),
            3,
            32,
            36_479_194,
        ),  # as published: 36.5 million
        (ImageModel(network="wide-resnet", depth=16, width=4), 3, 32, 2_748_890),  # 2.7 million
    ],
    ids=["lenet-300-100", "lenet-5", "wrn-28-10", "wrn-16-4"],
)
def test_networks_have_the_published_sizes(model, channels, side, weights):
    with torch.device("meta"):
        if model.network == "wide-resnet":
            network = WideResNet(channels, 10, depth=model.depth, width=model.width)
        else:
            network = build_network(model, channels=channels, side=side, classes=10)
    assert weights_of(network) == weights


def test_a_wide_block_keeps_its_input_beside_it():
    block = WideBlock(4, 4, stride=1)
    assert block.shortcut is None
    nn.init.zeros_(block.conv2.weight)
    images = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(images), images)
    assert WideBlock(4, 8, stride=2)(images).shape == (2, 8, 4, 4)


def test_weights_begin_as_he_et_al():
    torch.manual_seed(0)
    network = build_network(ImageModel(), channels=1, side=28, classes=10)
    layer = network.get_submodule("hidden1")
    assert float(layer.weight.detach().std()) == pytest.approx((2 / 784) ** 0.5, rel=0.02)
    assert not layer.bias.any()


def test_images_too_small_for_lenet_5():
    with pytest.raises(ValueError, match="side must be at least 16 for lenet-5, got 12"):
        build_network(ImageModel(network="lenet-5"), channels=1, side=12, classes=10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageData(augment=True), "augment must be false for mnist"),
        (lambda: ImageModel(depth=27), r"depth must be 6 n \+ 4"),
        (lambda: ImageModel(units=(3,)), "units must be 2 numbers, or empty for lenet-300-100"),
        (lambda: ImageModel(network="wide-resnet", units=(3,)), "units must be empty for wide-resnet"),
        (lambda: ImageSparse(method="vd", lambdas=(1.0,)), "lambdas must be empty unless method is l0"),
        (lambda: ImageSparse(method="l0", layer_densities=(0.0,)), r"layer_densities must be in \(0, 1\]"),
        (
            lambda: ImageSparse(method="l0", layer_densities=(0.5,), target_density=0.1),
            "layer_densities must be empty with another target",
        ),
        (lambda: ImageSparse(layer_densities=(0.5,)), "layer_densities must be empty .* without a method"),
        (lambda: ImageSparse(method="magnitude"), "method=magnitude needs a target"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_batch_is_a_function_of_seed_epoch_and_step(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path)
    first, again = (ImageTask(MNIST, TINY, seed=3) for _ in range(2))
    again.batch(0, 0)
    assert torch.equal(first.batch(1, 1)[0], again.batch(1, 1)[0])
    assert [first.steps_per_epoch(0), len(first.batch(0, 1)[1])] == [2, 16]
    seen = torch.cat([first.batch(0, step)[0] for step in range(2)])
    assert torch.equal(seen.flatten(1).sort(0).values, first.train_images.flatten(1).sort(0).values)
    assert not torch.equal(first.batch(0, 0)[0], first.batch(1, 0)[0])


def test_validation_is_the_end_of_train(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path)
    whole = ImageTask(replace(MNIST, valid_examples=1), TINY, seed=0)
    task = ImageTask(replace(MNIST, limit=20), TINY, seed=0)
    assert (task.num_examples, len(task.valid_set[1])) == (20, 8)
    assert torch.equal(task.valid_set[0][:7], whole.train_images[32:])
    assert torch.equal(task.train_images, whole.train_images[:20])
    assert task.notes == ("20 training and 8 validation images of the published 40",)
    with pytest.raises(UserError, match="data.valid_examples must be below 40"):
        ImageTask(replace(MNIST, valid_examples=40), TINY, seed=0)


def test_the_subset_is_called_one(tmp_path, monkeypatch):
    place_subset(monkeypatch, tmp_path, classes=2, each=10)
    data = ImageData(name="cifar10_subset", valid_examples=4, batch_size=4)
    task = ImageTask(data, ImageModel(network="wide-resnet", depth=10, width=1), seed=0)
    assert task.subset
    assert "train is a SUBSET, 20 of the published 50,000" in task.notes[0]
    inputs = task.inputs(torch.full((1, 3, 32, 32), 125, dtype=torch.uint8))
    assert inputs[0, :, 0, 0].tolist() == pytest.approx([-0.3 / 63.0, 2.0 / 62.1, 11.1 / 66.7], abs=1e-6)


def test_crops_are_cut_out_of_the_image_and_its_frame(tmp_path):
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(1, 255, (5, 3, 32, 32)).astype(np.uint8))
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    rows = torch.tensor([3, 0, 3, 4, 1, 2, 2, 0])
    found = crops(padded, rows, np.random.default_rng(7))
    assert torch.equal(found, crops(padded, rows, np.random.default_rng(7)))
    seen = set()
    for image, row in zip(found, rows.tolist(), strict=True):
        places = [
            (top, left, mirrored)
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
            for cut in [padded[row, :, top : top + 32, left : left + 32]]
            if torch.equal(image, cut.flip(2) if mirrored else cut)
        ]
        assert len(places) == 1  # one cut, and nothing else, gives these pixels
        seen.add(places[0])
    assert len({place[:2] for place in seen}) > 4
    assert {place[2] for place in seen} == {False, True}


def places_of(task: ImageTask) -> dict[str, tuple[str, ...]]:
    return {name: layer.weights["weight"].places for name, layer in sparse_layers(task.model)}


def test_l0_gates_inputs_and_output_channels(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path)
    task = ImageTask(MNIST, TINY, ImageSparse(method="l0"), seed=0)
    assert places_of(task) == dict.fromkeys(("hidden1", "hidden2", "output"), ("column",))
    lenet = ImageModel(network="lenet-5", units=(3, 4, 5))
    task = ImageTask(MNIST, lenet, ImageSparse(method="l0"), seed=0)
    assert places_of(task) == {
        "conv1": ("row",), "conv2": ("row",), "hidden": ("column",), "output": ("column",)
    }  # fmt: skip
    task = ImageTask(MNIST, lenet, ImageSparse(method="vd"), seed=0)
    assert set(places_of(task)) == {"conv1", "conv2", "hidden", "output"}
    task = ImageTask(MNIST, TINY, ImageSparse(method="l0", groups=("output",)), seed=0)
    assert set(places_of(task)) == {"hidden1", "hidden2"}  # no class is pruned


def test_wide_networks_have_gates_in_the_first_convolution_of_a_block(tmp_path, monkeypatch):
    place_cifar(monkeypatch, tmp_path)
    data = ImageData(name="cifar10", valid_examples=4, batch_size=4, augment=True)
    model = ImageModel(network="wide-resnet", depth=10, width=1)
    task = ImageTask(data, model, ImageSparse(method="l0", drop_rate=0.3), seed=0)
    assert list(places_of(task)) == [f"blocks.{number}.conv1" for number in range(3)]
    for _, layer in sparse_layers(task.model):
        start = layer.weights["weight"].row.log_alpha
        assert float(start.detach().mean()) == pytest.approx(np.log(0.7 / 0.3), abs=0.02)
    loss = task.loss(task.batch(0, 0))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.model.parameters())


def test_one_number_for_each_sparse_layer(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path)
    with pytest.raises(UserError, match=r"sparse.drop_rates must be .* each of the 3 sparse layers .* got 2"):
        ImageTask(MNIST, TINY, ImageSparse(method="l0", drop_rates=(0.2, 0.5)), seed=0)
    sparse = ImageSparse(method="l0", drop_rates=(0.2, 0.5, 0.5), lambdas=(0.0, 0.0, 2.0))
    task = ImageTask(MNIST, TINY, sparse, seed=0)
    gates = [
        layer.weights["weight"].column.log_alpha.detach().mean() for _, layer in sparse_layers(task.model)
    ]
    assert [round(float(gate), 1) for gate in gates] == [1.4, 0.0, 0.0]
    expected = (
        2 * 10 * torch.sigmoid(sparse_layers_list(task)[2].weights["weight"].column.log_alpha + 1.5986).sum()
    )
    assert float(task.penalty().detach()) == pytest.approx(float(expected.detach()), rel=1e-3)


def sparse_layers_list(task: ImageTask) -> list:
    return [layer for _, layer in sparse_layers(task.model)]


@pytest.mark.parametrize("method", ["l0", "vd", "magnitude"])
def test_each_layer_comes_to_its_density(tmp_path, monkeypatch, method):
    place_mnist(monkeypatch, tmp_path, train=200)
    sparse = ImageSparse(method=method, groups=("weight",), layer_densities=(0.05, 0.25, 0.5))
    task = ImageTask(replace(MNIST, valid_examples=40), TINY, sparse, seed=0)
    task.hold()
    assert task.penalty() is None
    settings = TrainSettings(max_epochs=3, lr=1e-2, threads=1, keep="last", checkpoint_every_s=0.0)
    result = fit(task, settings, tmp_path / "run", quiet=True, tensorboard=False)
    kept = [int(mask.sum()) for mask in keep_mask(task.model).values()]
    assert kept == [round(0.05 * 784 * 12), round(0.25 * 72), 30]
    assert result.metrics["density"] == pytest.approx(density(task.model))
    used = (kept[0] + kept[1] + kept[2]) / (784 * 12 + 72 + 60)
    assert 0.7 * used < result.metrics["flops_share"] <= used  # units that nothing reads or reaches cost none
    assert result.metrics["flops_share"] == pytest.approx(task.flops(task.model) / task.flops.dense)


def test_a_stopped_run_goes_on_with_its_multipliers(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path, train=100)
    sparse = ImageSparse(method="l0", layer_densities=(0.3, 0.5, 0.5))
    settings = TrainSettings(max_epochs=3, lr=1e-2, threads=1, checkpoint_every_s=0.0, weight_averaging=0.9)

    def made() -> ImageTask:
        task = ImageTask(MNIST, TINY, sparse, seed=0)
        task.hold()
        return task

    whole = fit(made(), settings, tmp_path / "whole", quiet=True, tensorboard=False)
    fit_until((1, 3), made(), settings, tmp_path / "cut", quiet=True, tensorboard=False)
    task = made()
    resumed = fit(task, settings, tmp_path / "cut", resume=True, quiet=True, tensorboard=False)
    assert resumed.metrics == whole.metrics
    assert any(float(value) for name, value in task.training_state().items() if name.endswith("multiplier"))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_stopped_run_of_convolutions_goes_on_to_the_bit(tmp_path, monkeypatch, optimizer):
    place_mnist(monkeypatch, tmp_path, train=100)
    momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
    settings = TrainSettings(
        max_epochs=2, lr=1e-2, threads=1, checkpoint_every_s=0.0, optimizer=optimizer, **momentum
    )
    network = ImageModel(network="lenet-5")

    whole = fit(
        ImageTask(MNIST, network, seed=0), settings, tmp_path / "whole", quiet=True, tensorboard=False
    )
    task = ImageTask(MNIST, network, seed=0)
    fit_until((1, 2), task, settings, tmp_path / "cut", quiet=True, tensorboard=False)
    task = ImageTask(MNIST, network, seed=0)
    resumed = fit(task, settings, tmp_path / "cut", resume=True, quiet=True, tensorboard=False)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


def test_digits_are_learned(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path, train=200, test=40)
    task = ImageTask(replace(MNIST, valid_examples=40), TINY, seed=0)
    settings = TrainSettings(max_epochs=8, lr=1e-2, threads=1)
    result = fit(task, settings, tmp_path / "run", quiet=True, tensorboard=False)
    assert result.metrics["accuracy"] == 1.0
    with torch.no_grad():
        assert task.evaluate("test")["accuracy"] == 1.0


@pytest.mark.data
def test_the_published_digits():
    if not (data_root() / "mnist").is_dir():
        pytest.skip("no mnist below the data root")
    task = ImageTask(ImageData(), ImageModel(), seed=0)
    assert (task.num_examples, len(task.valid_set[1]), task.example.shape) == (55_000, 5_000, (1, 1, 28, 28))
    assert 0 <= float(task.example.min()) <= float(task.example.max()) == 1.0
