"""Small models as users write them, and weights with zeros in them."""

import itertools

import torch
from torch import nn

from karui.compact import compact_module
from karui.compact.modules.prove import answers, worst_difference


def randomise(model, seed=0):
    """Numbers of a trained model: biases and running statistics that are not the first ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator) * 0.4
                tensor.copy_(values.abs() + 0.3 if "running_var" in name else values)
    return model.eval()


@torch.no_grad()
def drop_columns(layer, *columns, name="weight"):
    """No row reads these inputs."""
    getattr(layer, name)[:, list(columns)] = 0.0


@torch.no_grad()
def drop_rows(layer, *rows, name="weight"):
    """These outputs read nothing; their biases stay."""
    getattr(layer, name)[list(rows)] = 0.0


@torch.no_grad()
def prune(model, share, seed=0):
    """Zeros in single entries, rows and columns of every matrix, biases and norms included now and then."""
    generator = torch.Generator().manual_seed(seed)

    def chance(*shape):
        return torch.rand(*shape, generator=generator)

    for name, tensor in model.named_parameters():
        if tensor.dim() < 2:
            tensor[chance(len(tensor)) < share / 3] = 0.0
            continue
        tensor[chance(tensor.shape[0]) < share / 2] = 0.0
        tensor[:, chance(tensor.shape[1]) < share] = 0.0
        if "hh" in name:
            tensor[chance(*tensor.shape) < share] = 0.0
    return model


def compacted(model, *example, smaller=True, **options):
    """Compact, and hold what every case must hold: same answers on inputs of its own, the model given unchanged."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = compact_module(model, *example, **options)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    samples = [(example, options.get("keywords") or {})]
    assert worst_difference(answers(small, samples), answers(model.eval(), samples)) <= 1e-5
    found = small.compaction
    assert found.max_error <= 1e-5
    if smaller:
        assert found.parameters_after < found.parameters_before, found
    return small


class Chain(nn.Module):
    """LeNet-300-100 in small: Linear layers with a relu between them."""

    def __init__(self, *sizes, bias=True):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(i, o, bias=bias) for i, o in itertools.pairwise(sizes)])

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


class ConvNet(nn.Module):
    """LeNet-5 in small: two convolutions with batch norm, pooling, flatten, two Linear."""

    def __init__(self, *, padding=0, norm=True, flatten="flatten"):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=padding, bias=not norm)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=padding)
        self.norm1 = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.norm2 = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.side, self.input_side = (2, 10) if padding == 0 else (3, 12)
        self.fc1, self.fc2 = nn.Linear(8 * self.side**2, 12), nn.Linear(12, 4)
        self.how = flatten

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.norm1(self.conv1(x))), 2)
        x = (
            nn.functional.max_pool2d(torch.relu(self.norm2(self.conv2(x))), 2)
            if self.side == 3
            else torch.relu(self.norm2(self.conv2(x)))
        )
        x = torch.flatten(x, 1) if self.how == "flatten" else x.view(-1, 8 * self.side**2)
        return self.fc2(torch.relu(self.fc1(x)))
