"""Compaction of Linear and convolution chains, norms, embeddings, sums and moves of features: equal and smaller."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from karui.compact import compact_module
from karui.compact.modules.plain import SelectInput, SharedRows
from karui.errors import UserError
from tests.compact.modules.user_models import Chain, ConvNet, compacted, drop_columns, drop_rows, randomise


def test_units_that_nobody_reads_and_inputs_without_a_reader_go():
    model = randomise(Chain(40, 12, 9, 3))
    drop_columns(model.layers[0], *range(30))
    drop_columns(model.layers[1], 0, 5, 11)
    drop_columns(model.layers[2], 2)
    small = compacted(model, torch.randn(5, 40))
    assert isinstance(small, Chain)
    assert small.compaction.architecture == "10-9-8"
    assert isinstance(small.layers[0], SelectInput)
    assert [tuple(p.shape) for p in small.parameters()][::2] == [(9, 10), (8, 9), (3, 8)]
    assert small.compaction.flops_after == 2 * 5 * (90 + 72 + 24)


def test_what_a_dead_unit_alone_reads_is_dead():
    model = randomise(Chain(6, 5, 5, 5, 2))
    drop_columns(model.layers[3], 0, 1)  # units 0 and 1 of the third layer are unread
    with torch.no_grad():
        model.layers[2].weight[2:, 3:] = 0.0  # they alone read units 3 and 4 of the second
    assert compacted(model, torch.randn(4, 6)).compaction.architecture.endswith("-3-3")


def test_constant_units_move_into_biases_through_every_layer():
    model = randomise(Chain(6, 8, 7, 3, bias=True))
    drop_rows(model.layers[0], 1, 2)
    drop_rows(model.layers[1], *range(5))
    small = compacted(model, torch.randn(4, 6))
    assert [p.shape[0] for p in small.parameters()][::2] == [6, 2, 3]


def test_a_bias_appears_where_there_was_none():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2, bias=False)

        def forward(self, x):
            return self.b(torch.sigmoid(self.a(x)))

    model = randomise(Shifted())
    with torch.no_grad():
        model.a.weight[:3] = model.a.bias[:3] = 0.0  # sigmoid(0) = 1/2, not 0
    small = compacted(model, torch.randn(3, 5))
    assert small.b.bias is not None
    assert small.a.out_features == 3


def test_a_model_without_any_live_unit_keeps_one_of_each_layer():
    model = randomise(Chain(6, 8, 7, 3))
    drop_rows(model.layers[2], *range(3))
    assert [p.shape[0] for p in compacted(model, torch.randn(4, 6)).parameters()][::2] == [1, 1, 3]


@pytest.mark.parametrize("flatten", ["flatten", "view"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("padding", [0, 1])
def test_channels_positions_and_norms(padding, norm, flatten):
    model = randomise(ConvNet(padding=padding, norm=norm, flatten=flatten))
    drop_columns(model.conv2, 0, 3)
    with torch.no_grad():
        model.fc1.weight.view(12, 8, -1)[:, [1, 6]] = 0.0
        model.fc1.weight[:, 0] = 0.0
    drop_columns(model.fc2, 5, 7)
    small = compacted(model, torch.randn(2, 1, model.input_side, model.input_side))
    assert small.conv1.out_channels == 4
    assert small.conv2.out_channels == 6
    side = model.side**2
    assert small.compaction.architecture == f"4-6-{6 * side - 1}-10"
    assert isinstance(small, ConvNet) == (flatten == "flatten")


def test_a_constant_channel_is_folded_where_padding_does_not_show():
    """Through zeros around the picture a constant is not constant at the border: the channel stays."""
    for padding, channels in ((0, 5), (1, 6)):
        model = randomise(ConvNet(padding=padding))
        drop_rows(model.norm1, 2)  # a scale of zero: the channel is its shift, above zero
        with torch.no_grad():
            model.norm1.bias[2] = 0.7
        size = model.input_side
        small = compacted(model, torch.randn(2, 1, size, size), smaller=padding == 0)
        assert small.conv1.out_channels == channels
        with torch.no_grad():
            model.norm1.bias[2] = -0.7  # relu makes it zero, which is zero in the padding too
        assert compacted(model, torch.randn(2, 1, size, size)).conv1.out_channels == 5


@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
def test_other_paddings_keep_constants(mode):
    model = randomise(
        nn.Sequential(
            nn.Conv1d(2, 4, 3, padding=1), nn.Sigmoid(), nn.Conv1d(4, 3, 3, padding=1, padding_mode=mode)
        )
    )
    drop_rows(model[0], 1)
    small = compacted(model, torch.randn(2, 2, 9))
    assert small[0].out_channels == 3
    assert small[2].padding_mode == mode


def test_depthwise_convolutions_lose_whole_channels():
    model = randomise(
        nn.Sequential(
            nn.Conv2d(2, 6, 1),
            nn.Conv2d(6, 12, 3, padding=1, groups=6),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 3),
        )
    )
    drop_columns(model[6], 0, 1, 2, 10)
    small = compacted(model, torch.randn(2, 2, 6, 6))
    assert small[1].groups == 5
    assert (small[0].out_channels, small[1].out_channels, small[6].in_features) == (5, 10, 10)


def test_other_groups_are_a_barrier():
    model = randomise(nn.Sequential(nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 1, groups=2), nn.Conv1d(4, 2, 1)))
    drop_columns(model[2], 0)
    small = compacted(model, torch.randn(2, 2, 6), smaller=False)
    assert small[0].out_channels == 4


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.a(x)
        return self.c(x + F.gelu(self.b(x)))


def test_a_sum_keeps_what_either_side_needs():
    model = randomise(Residual())
    drop_columns(model.c, 0, 1, 2)
    drop_columns(model.b, 0, 1)  # unit 2 is read by b alone
    small = compacted(model, torch.randn(4, 5))
    assert (small.a.out_features, small.b.out_features, small.c.in_features) == (6, 6, 6)


class Moves(nn.Module):
    """Features cut up, put together, turned and picked in every way that is followed."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b = nn.Linear(5, 8), nn.Linear(5, 8)
        self.out = nn.Linear(
            {"chunk": 4, "slice": 3, "cat": 16, "split": 5, "glu": 4, "narrow": 4}.get(how, 8), 3
        )

    def forward(self, x):  # (B, T, 5)
        a, b = self.a(x), self.b(x)
        match self.how:
            case "chunk":
                first, second = torch.chunk(a, 2, dim=-1)
                x = first + second.tanh()
            case "glu":
                first, second = a.chunk(2, -1)
                x = first * torch.sigmoid(second)
            case "split":
                x = a.split([3, 5], dim=2)[1]
            case "slice":
                x = a[..., 2:5]
            case "narrow":
                x = a.narrow(2, 1, 4)
            case "cat":
                x = torch.cat([a, b], dim=-1)
            case "cat time":
                x = torch.cat([a, b], dim=1)
            case "stack":
                x = torch.stack([a, b], dim=1).amax(dim=1)
            case "last":
                x = a[:, -1] + b[:, 0, :]
            case "transpose":
                x = F.max_pool1d(a.transpose(1, 2), 2).permute(0, 2, 1)
            case "mean":
                x = a.mean(dim=1) + b.max(dim=1)[0] + b.max(1).values
            case "masked":
                mask = (x[..., :1] > 0).float()
                x = (a * mask).sum(1) / mask.sum(1).clamp(min=1) + b.masked_fill(mask == 0, -1.0).amax(1)
            case "reshape":
                x = a.reshape(-1, 8).unsqueeze(0).squeeze(0)
            case "view":
                x = a.contiguous().view(x.size(0), x.shape[1], 8)
            case "sizes":
                x = a.view(a.size(0) * a.size(1), a.size(2))
            case "flip":
                x = a.flip(1) + b.roll(1, 1)
            case "gather":
                x = a.gather(1, x.new_zeros(x.size(0), dtype=torch.long).view(-1, 1, 1).expand(-1, 1, 8))
            case "index":
                x = a[torch.arange(x.size(0)), x.new_ones(x.size(0), dtype=torch.long)]
            case "in place":
                a += b
                x = torch.relu_(a)
        return self.out(x)


HOWS = [
    *(
        "chunk",
        "glu",
        "split",
        "slice",
        "narrow",
        "cat",
        "cat time",
        "stack",
        "last",
        "transpose",
        "mean",
        "masked",
    ),
    *("reshape", "view", "sizes", "flip", "gather", "index", "in place"),
]


@pytest.mark.parametrize("how", HOWS)
def test_features_are_followed(how):
    model = randomise(Moves(how))
    drop_columns(model.out, 0, 2)
    small = compacted(model, torch.randn(3, 6, 5))
    assert small.compaction.parameters_after < sum(p.numel() for p in model.out.parameters()) + 5 * 8 * 2
    if how not in {"chunk", "glu", "split", "slice", "narrow"}:
        assert small.a.out_features <= 6


@pytest.mark.parametrize(
    "how", ["heads", "softmax", "norm", "matmul", "parameter", "function", "size of features"]
)
def test_what_is_not_known_keeps_all_features(how):
    class Barrier(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(5, 8), nn.Linear(8, 3), nn.LayerNorm(8)
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x):
            x = self.a(x)
            if how == "heads":
                x = x.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8)
            elif how == "softmax":
                x = x.softmax(-1)
            elif how == "norm":
                x = self.norm(x)
            elif how == "matmul":
                x = x @ torch.ones(8, 8)
            elif how == "parameter":
                x = x * self.scale
            elif how == "function":
                x = torch.cumsum(x, 1)
            else:
                x = x / x.size(1)
            return self.b(x)

    model = randomise(Barrier())
    drop_columns(model.b, 0, 1)
    assert compacted(model, torch.randn(4, 5), smaller=False).a.out_features == 8


def test_embeddings_lose_columns_and_share_zero_rows():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = nn.Embedding(60, 8, padding_idx=0), nn.Linear(8, 2)

        def forward(self, ids):
            return self.out(self.words(ids).mean(1))

    model = randomise(Bag())
    with torch.no_grad():
        model.words.weight[[0, *range(10, 60)]] = 0.0
        model.words.weight[:, 1] = 0.0
    drop_columns(model.out, 4)
    small = compacted(model, torch.randint(60, (3, 7)))
    assert isinstance(small.words, SharedRows)
    assert small.words.weight.shape == (10, 6)
    assert small.words.index.dtype == torch.int32
    with torch.no_grad():
        model.words.weight[5:] = 1.0  # no zero rows but one: the index would cost more than it saves
    assert isinstance(compacted(model, torch.randint(60, (3, 7))).words, nn.Embedding)


def test_float64_float16_and_frozen_weights_stay_what_they_are():
    model = randomise(Chain(6, 8, 2)).double()
    drop_columns(model.layers[1], 0, 1, 2)
    model.layers[0].weight.requires_grad_(False)
    small = compacted(model, torch.randn(3, 6, dtype=torch.float64))
    assert next(small.parameters()).dtype == torch.float64
    assert not small.layers[0].weight.requires_grad
    assert small.layers[1].weight.requires_grad


def test_random_numbers_are_not_consumed():
    model = randomise(Chain(6, 8, 2))
    drop_columns(model.layers[1], 0)
    state = torch.random.get_rng_state()
    compact_module(model, torch.ones(3, 6))
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_cannot_be_proven_is_refused():
    class Noisy(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5)

    with pytest.raises(UserError, match="random"):
        compact_module(Noisy(), torch.ones(50))
    with pytest.raises(ValueError, match="needs an example"):
        compact_module(Chain(2, 2))
    model = randomise(Chain(2, 3, 2))
    with torch.no_grad():
        model.layers[0].weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="layers.0.weight holds NaN"):
        compact_module(model, torch.ones(1, 2))
