"""What users' models do that could make compaction wrong: never wrong, and a clear word where it can do less."""

import pytest
import torch
from torch import fx, nn
from torch.nn.utils import parametrize

import karui
from karui.compact import compact_module
from karui.sparse import SparseVariationalDropout, sparsify
from tests.compact.modules.user_models import Chain, compacted, drop_columns, drop_rows, prune, randomise


class Twice(nn.Module):
    """One layer called twice, as in weight sharing over depth."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.c(torch.relu(self.b(torch.relu(self.b(x)))))


def test_a_layer_called_twice_keeps_one_set_of_units():
    model = randomise(Twice())
    drop_columns(model.b, 0, 4)
    drop_columns(model.c, 0, 1)
    small = compacted(model, torch.randn(4, 5))
    assert (small.b.in_features, small.b.out_features) == (5, 5)


def test_constants_are_not_folded_into_a_layer_that_reads_others_elsewhere():
    model = randomise(Twice())
    drop_rows(model.a, 0, 1)
    drop_columns(model.c, 0)
    drop_columns(model.b, 0)
    compacted(model, torch.randn(4, 5))


def test_tied_weights_stay_whole():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.inner, self.out = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9)
            self.out.weight = self.words.weight

        def forward(self, ids):
            return self.out(torch.tanh(self.inner(self.words(ids))))

    model = randomise(Tied())
    with torch.no_grad():
        model.words.weight[:, 2] = model.words.weight[4:] = 0.0
    small = compacted(model, torch.randint(9, (3, 4)), smaller=False)
    assert small.out.weight is small.words.weight


def test_a_weight_that_the_forward_reads_stays_whole():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.b(self.a(x)) + self.a.weight.sum()

    model = randomise(Reads())
    drop_columns(model.b, 0)
    assert compacted(model, torch.randn(3, 5), smaller=False).a.out_features == 6


@pytest.mark.parametrize("where", ["leaf", "leaf before", "inside", "model"])
def test_hooks_run_as_before(where):
    model = randomise(
        nn.Sequential(nn.Linear(5, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 6)), nn.Linear(6, 2))
    )
    drop_columns(model[2], 0, 1)
    drop_columns(model[1][1], 3)
    if where == "leaf":
        model[0].register_forward_hook(lambda _module, _given, output: output + output.sum(1, keepdim=True))
    elif where == "leaf before":
        model[2].register_forward_pre_hook(lambda _module, given: (given[0].flip(1),))
    elif where == "inside":
        model[1].register_forward_hook(lambda _module, _given, output: output.cumsum(1))
    else:
        model.register_forward_hook(lambda _module, _given, output: output * 2)
    small = compacted(model, torch.randn(3, 5), smaller=where in {"leaf", "model"})
    assert small[2].in_features == (4 if where in {"leaf", "model"} else 6)


def test_a_subclass_or_a_parametrised_layer_is_not_taken_for_the_layer():
    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(x).cumsum(1)

    class Halved(nn.Module):
        def forward(self, weight):
            return weight / 2

    model = randomise(nn.Sequential(Doubled(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)))
    drop_columns(model[1], 0)
    drop_columns(model[2], 1)
    assert compacted(model, torch.randn(3, 5))[0].out_features == 6
    parametrize.register_parametrization(model[1], "weight", Halved())
    assert compacted(model.eval(), torch.randn(3, 5), smaller=False)[1].out_features == 6


@pytest.mark.parametrize("write", ["one entry", "relu", "add"])
def test_writing_into_a_tensor_ends_what_is_known_of_it(write):
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = self.a(x)
            same = x.view(-1, 6)
            if write == "one entry":
                same[:, 1] = 5.0
            elif write == "relu":
                same.relu_()
            else:
                same.add_(3.0)
            return self.b(x)

    model = randomise(Writes())
    drop_rows(model.a, 1, 2)
    with torch.no_grad():
        model.a.bias[2] = -2.0
    drop_columns(model.b, 0)
    compacted(model, torch.randn(3, 5), smaller=False)


class DataDependent(nn.Module):
    """A forward that no graph can hold."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.body(x)
        if x.sum() > 0:
            x = -x
        return self.head(x)


def test_without_a_graph_the_parts_that_have_one_shrink():
    model = randomise(DataDependent())
    drop_columns(model.body[2], 0, 1, 2)
    drop_columns(model.head, 0)
    small = compacted(model, torch.randn(3, 5))
    assert isinstance(small, DataDependent)
    assert small.body[0].out_features == 5
    assert small.body[2].out_features == 8  # who reads it is not known
    assert "cannot be traced" in small.compaction.notes[0]


def test_a_part_without_a_graph_stays_whole_in_the_graph_around_it():
    model = randomise(
        nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 5), DataDependent(), nn.Linear(2, 6), nn.Linear(6, 2))
    )
    drop_columns(model[1], 0, 1)
    drop_columns(model[4], 5)
    drop_columns(model[2].body[2], 0, 1, 2)
    small = compacted(model, torch.randn(3, 4))
    assert (small[0].out_features, small[2].body[0].out_features, small[3].out_features) == (5, 5, 5)
    assert len(small.compaction.notes) == 2


def test_parts_that_are_used_in_other_ways_are_left():
    class Peeks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))

        def forward(self, x):
            return self.body(x) if x.sum() > 1e9 else (self.body(x), self.body[0](x))

    model = randomise(Peeks())
    drop_columns(model.body[2], 0, 1)
    small = compacted(model, torch.randn(3, 5), smaller=False)
    assert small.body[0].out_features == 8
    assert "used in other ways" in small.compaction.notes[-1]


def test_a_forward_that_asks_for_attributes_of_a_layer_becomes_a_graph():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(4, 6, 2, batch_first=True)
            self.out = nn.Linear(6, 2)

        def forward(self, x):
            if not isinstance(self.layer, nn.LSTM):
                raise TypeError
            return self.out(self.layer(x)[0])

    model = randomise(Asks())
    drop_columns(model.out, 0)
    drop_columns(model.layer, 0, name="weight_hh_l1")
    small = compacted(model, torch.randn(2, 3, 4))
    assert isinstance(small, fx.GraphModule)
    assert small.compaction.architecture == "6-5-5"


def test_a_type_asked_of_the_input_is_not_lost_in_the_graph():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = self.a(x)
            return self.b(x if isinstance(x, torch.Tensor) else -x)

    model = randomise(Asks())
    drop_columns(model.b, 0)
    small = compacted(model, torch.randn(3, 4), smaller=False)
    assert small.compaction.notes


def test_settings_are_those_of_the_example():
    class Options(Chain):
        def forward(self, x, scale=None, *, double=False):
            y = super().forward(x) if scale is None else super().forward(x) * scale
            return 2 * y if double else y

    model = randomise(Options(6, 8, 2))
    drop_columns(model.layers[1], 0)
    small = compacted(model, torch.randn(3, 6), keywords={"double": True})
    x = torch.randn(2, 6)
    assert torch.allclose(small(x, double=True), model(x, double=True), atol=1e-6)
    assert torch.allclose(small(x), model(x), atol=1e-6)


def test_answers_may_be_tuples_mappings_and_lists():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 2), nn.Linear(6, 1)

        def forward(self, batch):
            x = torch.relu(self.a(batch["x"]))
            return {"b": self.b(x), "rest": [self.c(x), (x.detach()[:, :1],)]}

    model = randomise(Many())
    for layer in (model.b, model.c):
        drop_columns(layer, 3, 4)
    compacted(model, {"x": torch.randn(3, 5)}, smaller=False)


def test_inputs_that_cannot_be_drawn_at_random_are_left_as_they_are():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x, ids):
            return self.b(self.a(x))[ids]

    model = randomise(Picky())
    drop_columns(model.b, 0)
    assert compacted(model, torch.randn(3, 4), torch.tensor([2, 0])).compaction.inputs_compared == 4


def test_a_sparse_model_is_hardened_first():
    model = sparsify(Chain(6, 8, 2), SparseVariationalDropout())
    assert isinstance(compact_module(model.eval(), torch.randn(3, 6)), Chain)


class Generated(nn.Module):
    """A network of random blocks: chains, residual sums, two branches joined, norms, recurrent layers."""

    def __init__(self, generator):
        super().__init__()
        self.kinds, self.blocks, width = [], nn.ModuleList(), 6
        for _ in range(4):
            kind = ("linear", "residual", "branch", "lstm", "gru", "norm")[
                int(torch.randint(6, (), generator=generator))
            ]
            wide = int(torch.randint(3, 9, (), generator=generator))
            block, out = self._block(kind, width, wide)
            self.kinds.append(kind)
            self.blocks.append(block)
            width = out
        self.out = nn.Linear(width, 3)

    @staticmethod
    def _block(kind, width, wide):
        if kind in {"lstm", "gru"}:
            cls = {"lstm": nn.LSTM, "gru": karui.GRU}[kind]
            return cls(width, wide, 2, bidirectional=True, batch_first=True), 2 * wide
        if kind == "norm":
            return nn.Sequential(nn.Linear(width, wide), nn.BatchNorm1d(5), nn.Sigmoid()), wide
        if kind == "linear":
            return nn.Linear(width, wide), wide
        parts = nn.ModuleList(
            [nn.Linear(width, wide), nn.Linear(wide if kind == "residual" else width, width)]
        )
        return parts, width if kind == "residual" else wide + width

    def forward(self, x):  # (B, 5, 6)
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            if kind in {"lstm", "gru"}:
                x, _ = block(x)
            elif kind == "residual":
                x = x + block[1](torch.relu(block[0](x)))
            elif kind == "branch":
                x = torch.cat([torch.tanh(block[0](x)), block[1](x)], dim=-1)
            else:
                x = block(x)
        return self.out(torch.relu(x).mean(1))


@pytest.mark.parametrize("seed", range(24))
def test_random_models_with_random_zeros(seed):
    generator = torch.Generator().manual_seed(seed)
    model = prune(randomise(Generated(generator), seed), 0.2 + 0.03 * seed, seed)
    small = compacted(model, torch.randn(4, 5, 6, generator=generator), smaller=False)
    assert not small.compaction.notes
    x = torch.randn(2, 5, 6, generator=generator)
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)
