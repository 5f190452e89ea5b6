"""LSTM and GRU inside a user's model: packed, stacked, two directions, states read in all ways."""

import pytest
import torch
from torch import nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import karui
from karui.compact import compact_module
from karui.compact.modules.plain import SelectInput
from karui.compact.modules.uneven import UnevenRecurrence, reversed_rows
from tests.compact.modules.user_models import compacted, drop_columns, drop_rows, prune, randomise

KINDS = [nn.LSTM, nn.GRU, karui.LSTM, karui.GRU]


class Tagger(nn.Module):
    """Words to one answer a text and one a word, as users write it with torch's LSTM."""

    def __init__(
        self, kind=nn.LSTM, *, layers=2, bidirectional=True, batch_first=True, hidden=8, packed=True
    ):
        super().__init__()
        self.words = nn.Embedding(30, 6, padding_idx=0)
        dropout = 0.1 if layers > 1 else 0.0
        self.layer = kind(
            6, hidden, layers, bidirectional=bidirectional, batch_first=batch_first, dropout=dropout
        )
        self.text = nn.Linear(hidden * (2 if bidirectional else 1), 2)
        self.word = nn.Linear(hidden * (2 if bidirectional else 1), 3)
        self.both, self.batch_first, self.packed = bidirectional, batch_first, packed
        self.has_cell = issubclass(kind, nn.LSTM)

    def forward(self, ids, lengths):
        x = self.words(ids if self.batch_first else ids.t())
        if self.packed:
            x = pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
        output, state = self.layer(x)
        h = state[0] if self.has_cell else state
        if self.packed:
            output, _ = pad_packed_sequence(output, batch_first=self.batch_first)
        last = torch.cat([h[-2], h[-1]], dim=1) if self.both else h[-1]
        return self.text(last), self.word(output)


IDS, LENGTHS = torch.arange(36).view(4, 9) % 30, torch.tensor([4, 9, 1, 6])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (1, True), (3, True)])
def test_pruned_taggers(kind, layers, bidirectional, batch_first, packed):
    model = Tagger(kind, layers=layers, bidirectional=bidirectional, batch_first=batch_first, packed=packed)
    prune(randomise(model), 0.5, seed=layers)
    small = compacted(model, IDS, LENGTHS)
    assert not small.compaction.notes
    text = small.compaction.architecture
    assert text.count("+") == (layers if bidirectional else 0)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_directions_of_different_sizes(kind):
    """Unit 1 of the forward direction and units 2 to 5 of the reverse one are read by nobody, not even inside."""
    model = randomise(Tagger(kind))
    gone = {"": [1], "_reverse": [2, 3, 4, 5]}
    for suffix, units in gone.items():
        drop_columns(model.layer, *units, name=f"weight_hh_l1{suffix}")
    for reader in (model.text, model.word):
        drop_columns(reader, 1, *(8 + unit for unit in gone["_reverse"]))
    small = compacted(model, IDS, LENGTHS)
    assert isinstance(small.layer, UnevenRecurrence)
    assert small.compaction.architecture == "8+8-7+4-11-11"
    assert isinstance(small, Tagger)
    assert {type(m) for m in small.layer.modules()} <= {UnevenRecurrence, nn.ModuleList, kind}


@pytest.mark.parametrize("packed", [True, False])
def test_a_direction_without_units_is_not_computed(packed):
    class Forward(Tagger):
        def forward(self, ids, lengths):
            x = self.words(ids)
            if self.packed:
                x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            output, (h, _) = self.layer(x)
            return self.text(output.data.mean(0) if self.packed else output.mean(1)), self.word(h[0])

    model = randomise(Forward(packed=packed))
    model.word = randomise(nn.Linear(8, 3))
    drop_columns(model.text, *range(8, 16))
    small = compacted(model, IDS, LENGTHS)
    assert small.compaction.architecture == "8+8-8+0-8-8"
    names = [name for name, _ in small.layer.named_parameters()]
    assert not any(name.startswith("layers.1.1") for name in names)


def test_equal_sizes_stay_torchs_own_layer():
    model = randomise(Tagger())
    for layer in (0, 1):
        for suffix in ("", "_reverse"):
            drop_columns(model.layer, 0, 5, name=f"weight_hh_l{layer}{suffix}")
            if layer:
                drop_columns(model.layer, 0, 5, 8, 13, name=f"weight_ih_l1{suffix}")
    for reader in (model.text, model.word):
        drop_columns(reader, 0, 5, 8, 13)
    small = compacted(model, IDS, LENGTHS)
    assert type(small.layer) is nn.LSTM
    assert (small.layer.hidden_size, small.layer.num_layers, small.layer.bidirectional) == (6, 2, True)
    output, _ = small.layer(torch.randn(2, 3, 6))
    assert output.shape == (2, 3, 12)


def test_a_live_unit_keeps_the_units_that_it_reads():
    model = randomise(Tagger(nn.LSTM, layers=2, bidirectional=False))
    drop_columns(model.text, *range(1, 8))
    drop_columns(model.word, *range(1, 8))
    with torch.no_grad():
        recurrent = model.layer.weight_hh_l1.view(4, 8, 8)
        recurrent[:] = 0.0
        recurrent[1, 0, 3] = 0.5  # the forget gate of unit 0 reads unit 3, the input gate of 3 reads 6
        recurrent[0, 3, 6] = 0.5
    assert compacted(model, IDS, LENGTHS).compaction.architecture == "8-3-1-1"


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_silent_units_go_and_their_readers_forget_them(kind):
    model = randomise(Tagger(kind, layers=2, bidirectional=False))
    candidate = slice(16, 24)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(model.layer, f"{name}_l0")[candidate][:3] = 0.0
    assert compacted(model, IDS, LENGTHS).compaction.architecture.startswith("5-8")


def test_an_lstm_candidate_with_biases_that_cancel_is_silent_a_gru_s_is_not():
    for kind, text in ((nn.LSTM, "7-8"), (nn.GRU, "8-8")):
        model = randomise(Tagger(kind, layers=2, bidirectional=False))
        with torch.no_grad():
            for name, value in {"weight_ih": 0.0, "weight_hh": 0.0, "bias_ih": 0.5, "bias_hh": -0.5}.items():
                getattr(model.layer, f"{name}_l0")[16] = value
        assert compacted(model, IDS, LENGTHS, smaller=kind is nn.LSTM).compaction.architecture.startswith(
            text
        )


def test_a_unit_without_inputs_is_driven_by_its_bias_and_stays():
    model = randomise(Tagger(layers=2, bidirectional=False))
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh"):
            getattr(model.layer, f"{name}_l0").view(4, 8, -1)[:, 2] = 0.0
    assert compacted(model, IDS, LENGTHS, smaller=False).compaction.architecture.startswith("8-8")


def test_the_state_of_a_gru_leaks_into_itself():
    """h' = (1 - z) n + z h: a unit that no other reads goes although it keeps itself; one that is read stays."""
    model = randomise(Tagger(nn.GRU, layers=2, bidirectional=False))
    drop_columns(model.layer, 4, name="weight_hh_l1")
    drop_columns(model.text, 4, 5)
    drop_columns(model.word, 4, 5)
    assert compacted(model, IDS, LENGTHS).compaction.architecture.startswith("8-7")


@pytest.mark.parametrize("use", ["all of h", "last of h", "squeeze", "c", "returned", "slice", "view"])
def test_states_are_kept_as_they_are_read(use):
    class States(nn.Module):
        def __init__(self):
            super().__init__()
            layers = 1 if use == "squeeze" else 2
            self.layer, self.out = nn.LSTM(5, 6, layers, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            output, (h, c) = self.layer(x)
            if use == "all of h":
                return self.out(h.mean(0))
            if use == "last of h":
                return self.out(h[-1])
            if use == "squeeze":
                return self.out(h.squeeze(0))
            if use == "c":
                return self.out(c[1] + h[0])
            if use == "slice":
                return self.out(h[-1:].transpose(0, 1).flatten(1))
            if use == "view":
                return self.out(h.view(2, 1, -1, 6)[-1, 0])
            return self.out(output), h

    model = randomise(States())
    for name, _ in list(model.layer.named_parameters()):
        if name.startswith("weight_hh"):
            drop_columns(model.layer, 0, 3, name=name)
    if use != "squeeze":
        drop_columns(model.layer, 0, 3, name="weight_ih_l1")
    drop_columns(model.out, 0, 3)
    small = compacted(model, torch.randn(3, 4, 5), smaller=use != "returned")
    assert small.compaction.architecture.startswith("6-6" if use == "returned" else "4")


def test_an_encoder_hands_its_state_to_a_decoder():
    class Translate(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.GRU(4, 7, batch_first=True), nn.GRU(3, 7, batch_first=True)
            self.out = nn.Linear(7, 2)

        def forward(self, source, target):
            _, h = self.encoder(source)
            output, _ = self.decoder(target, h)
            return self.out(output)

    model = randomise(Translate())
    for layer in (model.encoder, model.decoder):
        drop_columns(layer, 2, 6, name="weight_hh_l0")
    drop_columns(model.out, 2, 6)
    small = compacted(model, torch.randn(3, 5, 4), torch.randn(3, 6, 3))
    assert small.compaction.architecture == "5-5-5"


def test_a_first_state_from_outside_keeps_all_units():
    class Streaming(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.out = nn.LSTM(4, 5), nn.Linear(5, 2)

        def forward(self, x, h, c):
            output, (h, c) = self.layer(x, (h, c))
            return self.out(output), h, c

    model = randomise(Streaming())
    drop_columns(model.out, 0)
    drop_columns(model.layer, 0, name="weight_hh_l0")
    state = torch.randn(1, 3, 5)
    small = compacted(model, torch.randn(6, 3, 4), state, -state, smaller=False)
    assert small.layer.hidden_size == 5


def test_inputs_that_no_gate_reads_are_not_multiplied():
    model = randomise(nn.LSTM(40, 6))
    drop_columns(model, *range(10, 40), name="weight_ih_l0")
    small = compacted(model, torch.randn(5, 2, 40))
    assert isinstance(small, SelectInput)
    packed = rnn.pack_sequence([torch.randn(4, 40), torch.randn(2, 40)])
    assert torch.allclose(small(packed)[0].data, model(packed)[0].data, atol=1e-6)


@pytest.mark.parametrize("kind", [karui.LSTM, karui.GRU])
@pytest.mark.parametrize("where", ["lengths", "padding_mask"])
def test_karui_s_layers_take_lengths_and_masks(kind, where):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = kind(5, 6, 2, bidirectional=True, batch_first=True, recurrent_dropout=0.2)
            self.out = nn.Linear(12, 2)

        def forward(self, x, padding):
            output, _ = self.layer(x, **{where: padding})
            return self.out(output)

    model = randomise(Masked())
    drop_columns(model.out, 0, 1, 9)
    for suffix, units in {"": (0, 1), "_reverse": (3,)}.items():
        drop_columns(model.layer, *units, name=f"weight_hh_l1{suffix}")
    padding = torch.tensor([3, 7, 5]) if where == "lengths" else torch.rand(3, 7) < 0.3
    small = compacted(model, torch.randn(3, 7, 5), padding)
    assert small.compaction.architecture == "6+6-4+5-9"
    assert small.layer.layers[1][0].recurrent_dropout == 0.2


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch 2.13 says which kernel it takes
def test_options_without_a_rule_keep_all_units():
    for layer in (
        nn.LSTM(4, 6, proj_size=3),
        karui.LSTM(4, 6, layer_norm="post"),
    ):
        model = randomise(_Wrapped(layer, 3 if layer.proj_size else 6))
        drop_columns(model.out, 0)
        assert compacted(model, torch.randn(5, 2, 4), smaller=False).layer.hidden_size == 6


class _Wrapped(nn.Module):
    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(width, 2)

    def forward(self, x):
        return self.out(self.layer(x)[0])


def test_reversed_rows_is_each_sequence_backwards():
    sequences = [torch.arange(5.0), torch.arange(10.0, 13.0), torch.arange(20.0, 21.0)]
    packed = rnn.pack_sequence(sequences)
    rows = reversed_rows(packed.batch_sizes, packed.data.device)
    backwards = rnn.PackedSequence(packed.data[rows], packed.batch_sizes)
    padded, lengths = pad_packed_sequence(backwards)
    for k, sequence in enumerate(sequences):
        assert torch.equal(padded[: lengths[k], k], sequence.flip(0))


def test_a_stack_of_different_sizes_refuses_a_first_state():
    model = randomise(Tagger())
    drop_rows(model.layer, *range(16, 24), name="weight_ih_l0")
    drop_columns(model.layer, 1, name="weight_hh_l0")
    drop_columns(model.layer, 1, name="weight_ih_l1")
    drop_columns(model.layer, 1, name="weight_ih_l1_reverse")
    small = compact_module(model, IDS, LENGTHS)
    with pytest.raises(ValueError, match="hx must be None"):
        small.layer(torch.randn(2, 3, 6), torch.zeros(1))
