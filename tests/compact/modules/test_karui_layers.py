"""karui's own recurrent layers inside a user's model: highways, windows, statistics, attention, norms, projections."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import karui
from karui.compact import compact_module, load_compacted, save_compacted
from karui.compact.modules.trimmed import TrimmedSRU, TrimmedSRUpp
from karui.compact.modules.uneven import UnevenRecurrence
from tests.compact.modules.user_models import compacted, drop_columns, drop_rows, prune, randomise

RU = karui.StatisticalRecurrentUnit
IDS, LENGTHS = torch.arange(28).view(4, 7) * 5 % 20, torch.tensor([3, 7, 1, 5])
PADDING = torch.tensor([[0, 0, 1, 0, 1, 1, 1], [0] * 7, [1] * 6 + [0], [0] * 5 + [1] * 2]).bool()


class Tagger(nn.Module):
    """Words to one answer a step, and the last state of one layer to another; the first state may be given."""

    def __init__(self, layer, how="", *, state=False):
        super().__init__()
        sides = 2 if layer.bidirectional else 1
        self.words, self.layer = nn.Embedding(20, layer.input_size), layer
        self.out = nn.Linear(sides * (layer.proj_size or layer.hidden_size), 3)
        self.text = nn.Linear(layer.hidden_size, 2) if state else None
        self.how = how

    def forward(self, ids, lengths, padding, hx=None):
        x = self.words(ids)
        if self.how == "packed":
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        given = {"lengths": lengths, "padding_mask": padding}
        output, state = self.layer(x, hx, **{k: v for k, v in given.items() if k == self.how})
        if self.how == "packed":
            output, _ = pad_packed_sequence(output, batch_first=True)
        answer = self.out(torch.tanh(output))
        return answer if self.text is None else (answer, self.text(state[-1]))


def make(kind, size=(6, 7), layers=2, **options):
    return kind(*size, layers, batch_first=True, **options)


LAYERS = {
    "sru": (karui.SRU, {}),
    "sru v1": (karui.SRU, {"variant": "v1", "activation": "tanh", "bias": False}),
    "sru highway": (karui.SRU, {"size": (7, 7), "activation": "relu", "rescale": 1.3}),
    "sru both": (karui.SRU, {"bidirectional": True, "layers": 3}),
    "sru highway both": (karui.SRU, {"size": (10, 5), "bidirectional": True, "layers": 1}),
    "sru no skip": (karui.SRU, {"has_skip_term": False, "bidirectional": True}),
    "sru rank": (karui.SRU, {"input_rank": 3, "bidirectional": True}),
    "sru pre": (karui.SRU, {"layer_norm": "pre", "size": (7, 7)}),
    "sru post": (karui.SRU, {"layer_norm": "post", "bidirectional": True}),
    "sru projected": (karui.SRU, {"proj_size": 3, "bidirectional": True}),
    "sru++": (karui.SRUpp, {"attention_size": 4, "num_heads": 2}),
    "sru++ both": (karui.SRUpp, {"attention_size": 3, "bidirectional": True, "attention_norm": False}),
    "sru++ every": (karui.SRUpp, {"attention_size": 4, "layers": 3, "attention_every": 2, "size": (7, 7)}),
    "sru++ memory": (karui.SRUpp, {"attention_size": 4, "memory_len": 5}),
    "qrnn": (karui.QRNN, {"bidirectional": True}),
    "qrnn window": (karui.QRNN, {"window": 2, "layers": 3, "zoneout": 0.2}),
    "qrnn window both": (karui.QRNN, {"window": 2, "output_gate": False, "bidirectional": True}),
    "mingru": (karui.MinGRU, {"layers": 3}),
    "mingru both": (karui.MinGRU, {"bidirectional": True, "bias": True, "layer_norm": "post"}),
    "mingru projected": (karui.MinGRU, {"proj_size": 5}),
    "statistical": (RU, {"num_stats": 6, "recur_size": 4, "alphas": (0.0, 0.5, 0.9)}),
    "statistical both": (RU, {"num_stats": 6, "recur_size": 0, "bidirectional": True, "learn_alphas": True}),
    "statistical input": (
        RU,
        {"num_stats": 5, "recur_size": 3, "include_input": True, "linear_output": True, "activation": "elu"},
    ),
    "lstm projected": (karui.LSTM, {"proj_size": 4, "bidirectional": True}),
    "lstm pre": (karui.LSTM, {"layer_norm": "pre", "bidirectional": True}),
    "gru post": (karui.GRU, {"layer_norm": "post"}),
}
OWN_STATE = [name for name in LAYERS if "statistical" in name or "window" in name or "memory" in name]
PLAIN_STATE = [
    name for name in LAYERS if name not in OWN_STATE and "projected" not in name and "lstm" not in name
]


def pruned(layer, how, share, seed, *, state=False):
    """Rows, columns and entries without weights everywhere; a tagger in float64."""
    model = randomise(Tagger(layer, how, state=state), seed).double()
    prune(model, share, seed)
    generator = torch.Generator().manual_seed(seed)
    for reader in [model.out] if model.text is None else [model.out, model.text]:
        unread = torch.rand(reader.in_features, generator=generator) < 0.5
        drop_columns(reader, *unread.nonzero()[:, 0].tolist())
    return model


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("how", "share"), [("", 0.6), ("packed", 0.8), ("lengths", 0.3), ("padding_mask", 0.5)]
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch 2.13 says which kernel it takes
def test_random_zeros(name, how, share, tmp_path):
    kind, options = LAYERS[name]
    fresh = Tagger(make(kind, **options), how).double()
    model = pruned(make(kind, **options), how, share, list(LAYERS).index(name))
    small = compacted(model, IDS, LENGTHS, PADDING, tolerance=1e-12)
    assert small.compaction.max_error <= 1e-12
    assert not small.compaction.notes
    assert small.compaction.flops_after < small.compaction.flops_before
    save_compacted(small, tmp_path / "small")
    again = load_compacted(tmp_path / "small", fresh)
    ids = IDS.flip(0)
    found = again(ids, LENGTHS, PADDING)
    assert torch.equal(found, small(ids, LENGTHS, PADDING))
    torch.testing.assert_close(found, model(ids, LENGTHS, PADDING), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PLAIN_STATE)
def test_first_states_from_outside_and_last_ones_read(name):
    kind, options = LAYERS[name]
    layer = make(kind, **options)
    model = pruned(layer, "lengths", 0.6, 5, state=True)
    many = layer.num_layers * (2 if layer.bidirectional else 1)
    state = torch.randn(many, 4, layer.hidden_size, dtype=torch.float64)
    small = compacted(model, IDS, LENGTHS, PADDING, state, tolerance=1e-12)
    again = small(IDS, LENGTHS, PADDING, -state)
    for ours, theirs in zip(again, model(IDS, LENGTHS, PADDING, -state), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    without = compacted(model, IDS, LENGTHS, PADDING, tolerance=1e-12)  # no state: units may go
    assert (without.compaction.parameters_after < small.compaction.parameters_after) == (
        layer.layer_norm != "post"
    )


@pytest.mark.parametrize("name", OWN_STATE)
def test_states_that_are_more_than_units_stay_whole_when_they_are_read(name):
    class Streams(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.out = layer, nn.Linear(layer.num_directions * layer.hidden_size, 2)

        def forward(self, x, *hx):
            output, state = self.layer(x, *(hx if len(hx) < 2 else [hx]))
            return self.out(output), state

    kind, options = LAYERS[name]
    model = randomise(Streams(make(kind, **options))).double()
    drop_columns(model.out, 0, 1)
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    _, state = model(x)
    small = compacted(model, x, smaller=False, tolerance=1e-12)
    assert small.layer.hidden_size == 7
    given = state if isinstance(state, tuple) else (state,)
    for ours, theirs in zip(_flat(small(x, *given)), _flat(model(x, *given)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def _flat(value):
    return [value] if isinstance(value, torch.Tensor) else [t for part in value for t in _flat(part)]


class Wrapped(nn.Module):
    """A linear layer, a recurrent one and a reader of it."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.layer = nn.Linear(4, layer.input_size), layer
        self.out = nn.Linear((1 + layer.bidirectional) * (layer.proj_size or layer.hidden_size), 2)

    def forward(self, x):
        return self.out(self.layer(self.first(x))[0])


X = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))


def test_a_highway_keeps_the_inputs_of_units_that_stay_and_no_others():
    """Units 0 and 1 are unread, and nobody else reads inputs 0 and 2: input 2 is on the highway to unit 2."""
    model = randomise(Wrapped(karui.SRU(6, 6)))
    drop_columns(model.out, 0, 1)
    drop_columns(model.layer, 0, 2, name="weight_ih_l0")
    small = compacted(model, X)
    assert isinstance(small.layer, TrimmedSRU)
    assert (small.layer.input_size, small.layer.hidden_size) == (5, 4)
    assert small.layer.skip_index.tolist() == [1, 2, 3, 4]
    assert small.layer.weight_ih_l0.shape == (12, 5)


def test_a_unit_without_a_cell_still_passes_its_input():
    model = randomise(Wrapped(karui.SRU(6, 6)))
    with torch.no_grad():
        model.layer.weight_ih_l0.view(3, 6, 6)[:, 2] = 0.0  # all gates of unit 2
    assert compacted(model, X, smaller=False).layer.hidden_size == 6


def test_units_without_cell_and_highway_are_silent():
    for skip, units in ((False, 5), (True, 6)):
        model = randomise(Wrapped(karui.SRU(6, 6, 2, has_skip_term=skip)))
        with torch.no_grad():
            model.layer.weight_ih_l0.view(3, 6, 6)[0, 2] = 0.0  # the candidate of unit 2
        small = compacted(model, X, smaller=not skip)
        assert small.compaction.architecture == f"4-{units}-6-6"
    model = randomise(Wrapped(karui.SRU(6, 6)))
    drop_rows(model.first, 2)
    with torch.no_grad():
        model.first.bias[2] = 0.0
        model.layer.weight_ih_l0.view(3, 6, 6)[0, 2] = 0.0  # its highway carries nothing but zeros
    assert compacted(model, X).compaction.architecture.startswith("4-5-5")


def test_a_highway_through_zeros_needs_no_input():
    """Input 2 is zero for ever and goes; unit 2, which has a cell, stays and adds nothing."""
    model = randomise(Wrapped(karui.SRU(6, 6)))
    drop_rows(model.first, 2)
    with torch.no_grad():
        model.first.bias[2] = 0.0
    small = compacted(model, X)
    assert small.layer.skip_index.tolist() == [0, 1, 5, 2, 3, 4]


def test_a_projected_highway_stays_one_when_the_widths_become_equal():
    model = randomise(Wrapped(karui.SRU(6, 7)))
    drop_columns(model.out, 3)
    small = compacted(model, X)
    assert isinstance(small.layer, TrimmedSRU)
    assert (small.layer.skip, small.layer.weight_ih_l0.shape) == ("project", (24, 6))


def test_equal_sizes_stay_one_module_of_the_layer_s_own_class():
    model = randomise(Wrapped(karui.SRU(6, 6, 3)))
    for k in range(3):
        with torch.no_grad():
            model.layer.get_parameter(f"weight_ih_l{k}").view(3, 6, 6)[:, [1, 4]] = 0.0
        drop_columns(model.layer, 1, 4, name=f"weight_ih_l{k}")
    drop_columns(model.out, 1, 4)
    small = compacted(model, X)
    assert type(small.layer) is karui.SRU
    assert (small.layer.input_size, small.layer.hidden_size, small.layer.num_layers) == (4, 4, 3)
    output, _ = small.layer.step(torch.randn(2, 4))
    assert output.shape == (2, 4)


def test_directions_and_layers_of_different_sizes():
    model = randomise(Wrapped(karui.MinGRU(5, 6, 2, bidirectional=True)))
    drop_columns(model.out, 0, 1, 8)
    for suffix in ("", "_reverse"):
        drop_columns(model.layer, 2, 3, 4, 11, name=f"weight_ih_l1{suffix}")
    small = compacted(model, X)
    assert small.compaction.architecture == "4-3+5-4+5-9"
    assert isinstance(small.layer, UnevenRecurrence)


def test_a_window_that_looks_back_at_nothing_is_closed():
    model = randomise(Wrapped(karui.QRNN(6, 5, window=2)))
    drop_columns(model.layer, *range(6, 12), name="weight_ih_l0")
    small = compacted(model, X)
    assert (small.layer.window, small.layer.weight_ih_l0.shape) == (1, (15, 6))


def test_constants_are_taken_in_where_they_are_constant():
    """The input before the first one is zero, whatever is constant later; an SRU's candidate has no bias."""
    for kind, options, inputs in (
        (karui.QRNN, {"window": 2}, 6),
        (karui.QRNN, {}, 4),
        (karui.MinGRU, {"bias": True}, 4),
        (karui.MinGRU, {}, 6),
        (karui.SRU, {}, 6),
        (RU, {"num_stats": 4, "include_input": True}, 4),
        (karui.LSTM, {}, 4),
    ):
        model = randomise(Wrapped(kind(6, 5, **options)))
        drop_rows(model.first, 1, 2)
        small = compacted(model, X, smaller=inputs == 4)
        assert small.layer.input_size == inputs, kind


@pytest.mark.parametrize("kind", [karui.SRU, karui.QRNN, karui.MinGRU, RU, karui.LSTM, karui.GRU])
def test_a_unit_without_inputs_is_driven_by_its_bias_and_stays(kind):
    options = {"num_stats": 5, "recur_size": 0} if kind is RU else {"bias": True}
    model = randomise(Wrapped(kind(6, 5, **options)))
    name = "weight_o_l0" if kind is RU else "weight_ih_l0"
    if kind in {karui.LSTM, karui.GRU}:
        model.layer.weight_hh_l0.data.view(-1, 5, 5)[:, 2] = 0.0
    weight = model.layer.get_parameter(name)
    skip = 3 if kind is karui.SRU else len(weight) // 5  # the highway of an SRU stays
    weight.data.view(-1, 5, weight.shape[1])[:skip, 2] = 0.0
    small = compacted(model, X, smaller=kind is RU)
    # what a statistic's reader gives is a constant, which the next layer takes in
    assert small.layer.hidden_size == (4 if kind is RU else 5)


def test_statistics_scales_and_recurrent_units_that_nobody_reads_go():
    model = randomise(Wrapped(RU(6, 5, num_stats=4, recur_size=3, alphas=(0.0, 0.5, 0.9))))
    with torch.no_grad():
        by_scale = model.layer.weight_o_l0.view(5, 3, 4)
        by_scale[:, 1] = by_scale[..., 2] = 0.0  # the outputs read neither scale 1 nor statistic 2
        by_scale = model.layer.weight_r_l0.view(3, 3, 4)
        by_scale[:, 1] = by_scale[..., 2] = 0.0
        model.layer.weight_phi_l0[:, 0] = 0.0  # nobody reads recurrent unit 0
    drop_columns(model.out, 4)
    layer = compacted(model, X).layer
    assert (layer.num_stats, layer.recur_size, layer.alphas, layer.hidden_size) == (3, 2, (0.0, 0.9), 4)


def test_attention_stays_whole_and_its_units_go():
    model = randomise(Wrapped(karui.SRUpp(6, 6, 2, attention_size=4, attention_every=2)))
    drop_columns(model.out, 0, 1)
    drop_columns(model.first, 3)
    drop_columns(model.layer, 3, name="weight_rank_l0")
    drop_columns(model.layer, 3, name="weight_rank_l1")
    layer = compacted(model, X).layer
    assert isinstance(layer, UnevenRecurrence)
    both = [one[0] for one in layer.layers]
    # input 3 of the first layer is on the highway to unit 3 of the second
    assert [(one.input_size, one.hidden_size, one.attention_size) for one in both] == [(6, 6, 4), (6, 4, 4)]
    assert [hasattr(one, "weight_kv_l0") for one in both] == [False, True]
    assert all(isinstance(one, TrimmedSRUpp) for one in both)


def test_norms_keep_what_they_average_over():
    for norm, sizes in (("pre", (6, 4)), ("post", (5, 6))):
        model = randomise(Wrapped(karui.QRNN(6, 6, layer_norm=norm)))
        drop_columns(model.out, 0, 1)
        drop_columns(model.layer, 3, name="weight_ih_l0")
        layer = compacted(model, X).layer
        assert (layer.input_size, layer.hidden_size) == sizes


def test_projections_lose_outputs_units_and_never_their_shape():
    model = randomise(Wrapped(karui.SRU(6, 7, proj_size=4)))
    drop_columns(model.out, 0)
    drop_columns(model.layer, 0, 1, 2, 3, 4, name="weight_hr_l0")
    layer = compacted(model, X).layer
    assert (layer.hidden_size, layer.proj_size) == (
        4,
        3,
    )  # two units are read; a projection has to be narrower


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projected_lstm_loses_cells_that_its_projection_does_not_read():
    wrapped = randomise(Only(nn.LSTM(4, 7, proj_size=3)))
    drop_columns(wrapped.layer, 1, 2, name="weight_hr_l0")
    layer = compacted(wrapped, X).layer
    assert (type(layer), layer.hidden_size, layer.proj_size) == (nn.LSTM, 5, 3)


class Only(nn.Module):
    """The output of a layer, all of it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def test_an_encoder_hands_the_state_of_its_highway_to_a_decoder():
    class Translate(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = karui.SRU(4, 7), karui.SRU(3, 7)
            self.out = nn.Linear(7, 2)

        def forward(self, source, target):
            _, state = self.encoder(source)
            return self.out(self.decoder(target, state)[0])

    model = randomise(Translate())
    drop_columns(model.out, 2, 6)
    small = compacted(model, torch.randn(5, 3, 4), torch.randn(6, 3, 3))
    assert small.compaction.architecture == "5-5-5"


def test_a_compacted_highway_learns_on_and_steps():
    model = randomise(Wrapped(karui.SRU(6, 6, 2, dropout=0.3)))
    drop_columns(model.out, 0, 1)
    small = compact_module(model, X)
    last = small.layer.layers[1][0]
    assert isinstance(last, TrimmedSRU)
    small.train()(X).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in small.parameters())
    x, state = torch.randn(1, 2, 6), torch.randn(1, 2, 4)
    output, _ = last.step(x[0], state)
    torch.testing.assert_close(output, last(x, state)[0][0])


def test_last_steps_only():
    for both in (False, True):
        layer = RU(6, 5, 2, num_stats=5, recur_size=2, output_steps="last", bidirectional=both)
        model = randomise(Wrapped(layer)).double()
        prune(model, 0.4, 3)
        drop_columns(model.out, 0)
        small = compacted(model, X.double(), tolerance=1e-12)
        assert small(X.double()).shape == (1, 3, 2)
