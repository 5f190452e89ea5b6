"""Pixels, music, adding and copy as the training loop sees them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from karui.tasks.adding import AddingTask
from karui.tasks.copying import CopyTask
from karui.tasks.music import MusicTask, cut
from karui.tasks.pixels import PixelTask, permutation
from karui.tasks.sequence_model import SequenceModel, set_gate_bias
from karui.tasks.sequence_settings import AddingData, CopyData, LayerSettings, MusicData, PixelData
from karui.train import TrainSettings, fit
from karui.train.protocol import Task
from tests.support.sequence_sets import place_mnist, place_music

SMALL = LayerSettings(recurrent="gru", hidden_size=8)
PIXELS = PixelData(side=14, batch_size=16, valid_examples=10)
MAKERS = {
    "pixels": lambda seed: PixelTask(PIXELS, SMALL, seed=seed),
    "music": lambda seed: MusicTask(MusicData(batch_size=2), SMALL, seed=seed),
    "adding": lambda seed: AddingTask(
        AddingData(steps=8, examples=70, heldout_examples=20), SMALL, seed=seed
    ),
    "copy": lambda seed: CopyTask(CopyData(delay=3, examples=70, heldout_examples=20), SMALL, seed=seed),
}


@pytest.fixture
def sets(tmp_path, monkeypatch):
    place_mnist(monkeypatch, tmp_path)
    place_music(monkeypatch, tmp_path)


@pytest.fixture(params=MAKERS)
def make(request, sets):
    return MAKERS[request.param]


def test_a_batch_depends_on_seed_epoch_and_step_alone(make):
    one, two = make(3), make(3)
    assert isinstance(one, Task)

    def bits(task, epoch):
        return [
            [part.numpy().tobytes() for part in task.batch(epoch, k)]
            for k in range(task.steps_per_epoch(epoch))
        ]

    wanted = bits(one, 1)
    assert bits(two, 0) != wanted, "epochs differ"
    assert [part.numpy().tobytes() for part in two.batch(1, 1)] == wanted[1], "whatever was asked before"
    assert bits(two, 1) == wanted
    assert bits(make(4), 1) != wanted, "seeds differ"


def test_held_out_parts_do_not_depend_on_the_seed(make):
    for split in ("valid", "test"):
        one, two = (list(make(seed).held_out(split)) for seed in (0, 5))
        assert all(
            torch.equal(x, y) for a, b in zip(one, two, strict=True) for x, y in zip(a, b, strict=True)
        )


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(make, tmp_path):
    task = make(0)
    metrics = task.evaluate("valid")
    monitor = "mse" if "mse" in metrics else "nll"
    settings = TrainSettings(max_epochs=8, lr=2e-2, monitor=monitor, checkpoint_every_s=0, threads=1)
    result = fit(task, settings, tmp_path / "run", quiet=True, tensorboard=False)
    assert result.metrics[monitor] < metrics[monitor]
    again = make(0)
    assert fit(again, settings, tmp_path / "run", resume=True, quiet=True, tensorboard=False).was_finished
    assert all(
        torch.equal(a, b) for a, b in zip(task.model.parameters(), again.model.parameters(), strict=True)
    )


def test_pixels_are_read_line_by_line_or_in_one_fixed_order(sets):
    raster = PixelTask(replace(PIXELS, side=28), SMALL, seed=0)
    permuted = PixelTask(replace(PIXELS, side=28, permuted=True), SMALL, seed=1)
    pixels = raster.train_set[0]
    assert pixels.shape == (30, 784)
    assert 0 <= pixels.min() < pixels.max() <= 1
    lines = pixels.view(30, 28, 28)
    assert (lines[raster.train_set[1] == 1][:, :, :14] > lines[raster.train_set[1] == 1][:, :, 14:]).all()
    assert torch.equal(permuted.train_set[0], pixels[:, permutation(784)])
    assert sorted(permutation(784)) == list(range(784))
    assert PixelTask(PIXELS, SMALL, seed=0).train_set[0].shape == (30, 196)


def test_training_and_validation_images_are_parted_and_limits_keep_the_validation(sets):
    whole = PixelTask(PIXELS, SMALL, seed=0)
    short = PixelTask(replace(PIXELS, limit=12), SMALL, seed=0)
    assert (whole.num_examples, short.num_examples) == (30, 12)
    assert torch.equal(whole.valid_set[0], short.valid_set[0])
    assert torch.equal(whole.train_set[0][:12], short.train_set[0])
    rows = {row.numpy().tobytes() for row in whole.train_set[0]}
    assert not rows & {row.numpy().tobytes() for row in whole.valid_set[0]}
    other = PixelTask(replace(PIXELS, split_seed=1), SMALL, seed=0)
    assert not torch.equal(other.valid_set[0], whole.valid_set[0])


def test_music_counts_every_step_but_the_first(sets):
    task = MusicTask(MusicData(batch_size=2), SMALL, seed=0)
    [(notes, lengths)] = list(task.held_out("valid"))
    total = 0.0
    for column, length in enumerate(lengths.tolist()):
        sequence = notes[:length, column].float()
        logits = task.model(sequence[:-1, None])[:, 0]
        total += F.binary_cross_entropy_with_logits(logits, sequence[1:], reduction="sum").item()
    expected = total / float((lengths - 1).sum())
    assert math.isclose(task.evaluate("valid")["nll"], expected, rel_tol=1e-5)
    assert len(set(lengths.tolist())) > 1, "padding must be there to be ignored"


def test_pieces_predict_every_step_but_the_first_once():
    sequence = np.arange(23).reshape(-1, 1)
    pieces = cut(sequence, 5)
    assert [step for piece in pieces for step in piece[1:, 0]] == list(range(1, 23))
    assert max(map(len, pieces)) == 6
    assert min(map(len, pieces)) >= 2
    assert cut(sequence, 0)[0] is sequence


@pytest.mark.parametrize(
    ("name", "stem", "value"), [("lstm", "bias_ih_l", 2.5), ("gru", "bias_ih_l", 2.5), ("sru", "bias_l", 2.5)]
)
def test_the_gate_that_keeps_the_state_gets_its_bias(name, stem, value):
    settings = LayerSettings(recurrent=name, hidden_size=6, num_layers=2, gate_bias=value)
    model = SequenceModel(3, 4, settings)
    block = slice(0, 6) if name == "sru" else slice(6, 12)
    for layer in range(2):
        assert (getattr(model.recurrent, f"{stem}{layer}")[block] == value).all()
        if name != "sru":
            assert (getattr(model.recurrent, f"bias_hh_l{layer}")[block] == 0).all()
    set_gate_bias(model.recurrent, name, 9.0)
    x = torch.rand(5, 2, 3)
    state = torch.rand(2, 2, 6)
    with torch.no_grad():
        last = model.recurrent(x, (state, state) if name == "lstm" else state)[1]
    kept = last[1] if name == "lstm" else last
    bound = 0.05 if name != "lstm" else 5.0  # an LSTM's input gate still adds
    assert (kept - state).abs().max() < bound


@pytest.mark.parametrize("name", ["qrnn", "mingru"])
def test_a_gate_that_is_shut_keeps_the_state_of_one_matrix_layers(name):
    model = SequenceModel(3, 4, LayerSettings(recurrent=name, hidden_size=6, gate_bias=12.0))
    state = torch.rand(1, 2, 6)
    with torch.no_grad():
        last = model.recurrent(torch.rand(5, 2, 3), state)[1]
    assert (last - state).abs().max() < 0.01


def test_a_layer_without_a_gate_refuses_a_gate_bias():
    with pytest.raises(
        ValueError, match="gate_bias must be none for statistical-ru, which has no gate; got 1.0"
    ):
        SequenceModel(
            1, 2, LayerSettings(recurrent="statistical-ru", num_stats=4, recur_size=2, gate_bias=1.0)
        )


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("name", ["sru", "statistical-ru", "lstm", "gru", "qrnn", "mingru"])
def test_the_model_answers_after_the_last_step_or_after_each(name, every_step):
    settings = LayerSettings(recurrent=name, hidden_size=5, num_stats=4, recur_size=3)
    model = SequenceModel(2, 3, settings, every_step=every_step).eval()
    x = torch.rand(7, 4, 2)
    answers = model(x)
    assert answers.shape == ((7, 4, 3) if every_step else (4, 3))
    if every_step:
        assert torch.allclose(model(x[:4])[-1], answers[3], atol=1e-6), "the future is not read"


@pytest.mark.parametrize(
    ("make_settings", "message"),
    [
        (lambda: LayerSettings(dropout=1.0), "dropout must be in"),
        (lambda: LayerSettings(alphas=()), "alphas must be numbers in"),
        (lambda: LayerSettings(alphas=(1.5,)), "alphas must be numbers in"),
        (lambda: LayerSettings(recur_size=-1), "recur_size must be >= 0, got -1"),
        (lambda: PixelData(side=20), "side must be 28 or 14, got 20"),
        (lambda: MusicData(piece_steps=1), "piece_steps must be 0 or at least 2, got 1"),
        (lambda: AddingData(steps=1), "steps must be >= 2, got 1"),
        (lambda: CopyData(delay=0), "delay must be >= 1, got 0"),
    ],
)
def test_settings_out_of_range(make_settings, message):
    with pytest.raises(ValueError, match=message):
        make_settings()
