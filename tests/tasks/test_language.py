"""The language-model task: its batches, its carried state, its figures, and a run that is stopped and goes on."""

import json
import math

import numpy as np
import pytest
import torch

from karui.errors import UserError
from karui.nn.registry import RECURRENT
from karui.tasks import language
from karui.tasks.language import VOCABULARY_FILE, columns, perplexity, random_cuts, reset_nll
from karui.tasks.language_settings import LanguageData
from karui.train import TrainSettings, fit
from karui.train.checkpoint import load_weights
from karui.train.protocol import CarriesState, SavesArtifacts, Task
from tests.support.language_sets import WORDS, task

SETTINGS = TrainSettings(max_epochs=3, lr=0.02, monitor="nll", grad_clip_norm=1.0, threads=1)


def all_batches(made, epoch):
    return [made.batch(epoch, step) for step in range(made.steps_per_epoch(epoch))]


def test_it_is_a_task():
    made = task()
    assert isinstance(made, Task)
    assert isinstance(made, CarriesState)
    assert hasattr(made, next(name for name in vars(SavesArtifacts) if name == "save_artifacts"))


@pytest.mark.parametrize("random_lengths", [False, True])
def test_an_epoch_predicts_every_token_of_every_column_once(random_lengths):
    made = task(data={"random_lengths": random_lengths, "bptt_len": 20})
    batches = all_batches(made, 0)
    inputs = torch.cat([batch.inputs for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    train = torch.from_numpy(made.corpus.train).long()
    assert made.num_examples == 900
    assert torch.equal(targets, train.view(4, 225).t())
    assert torch.equal(inputs[1:], targets[:-1])
    assert inputs[0].tolist() == [made.corpus.eos, train[224], train[449], train[674]]
    assert [batch.begins for batch in batches] == [True] + [False] * (len(batches) - 1)


def test_the_end_that_does_not_fill_the_columns_is_left_out():
    made = task(data={"batch_size": 7})
    assert made.num_examples == 896
    assert made.steps_per_epoch(0) == -(-128 // 7)


def test_random_lengths_are_a_function_of_seed_and_epoch():
    cuts = random_cuts(100_000, 35, np.random.default_rng(0))
    lengths = np.diff(cuts)
    assert cuts[0] == 0
    assert cuts[-1] == 100_000
    assert (lengths[:-1] >= 5).all()
    assert abs(lengths.mean() - (0.95 * 34.5 + 0.05 * 17)) < 0.6
    assert 0.02 < (lengths < 22).mean() < 0.09
    made = task(data={"random_lengths": True, "bptt_len": 20})
    first = [made.starts(epoch).tolist() for epoch in (0, 1, 0)]
    assert first[0] == first[2] != first[1]
    assert task(seed=1, data={"random_lengths": True, "bptt_len": 20}).starts(0).tolist() != first[0]
    batch = made.batch(0, 0)
    assert batch.share == len(batch.inputs) / 20


def test_random_lengths_weigh_the_loss_by_the_length():
    made = task(data={"random_lengths": True, "bptt_len": 20})
    batch = made.batch(0, 0)
    plain = made.loss(batch._replace(share=1.0))
    torch.testing.assert_close(made.loss(batch), plain * batch.share)


@pytest.mark.parametrize("recurrent", RECURRENT)
def test_the_state_is_carried_without_its_gradient(recurrent):
    made = task(recurrent=recurrent)
    made.model.eval()
    batches = all_batches(made, 0)[:3]
    pieces = sum(float(made.loss(batch).detach()) * len(batch.inputs) for batch in batches)
    hidden, _ = made.model(torch.cat([batch.inputs for batch in batches]))
    whole = made.model.output(hidden, torch.cat([batch.targets for batch in batches]), reduction="sum")
    assert pieces * 4 == pytest.approx(float(whole.detach()), rel=1e-5)
    assert not any(tensor.requires_grad for tensor in made.training_state().values())
    again = float(made.loss(batches[0]).detach())  # a first piece begins from zero
    assert again == float(task(recurrent=recurrent).loss(batches[0]).detach())


@pytest.mark.parametrize("recurrent", ["sru", "lstm"])
def test_the_state_goes_into_a_checkpoint_and_comes_back(recurrent):
    made = task(recurrent=recurrent)
    assert made.training_state() == {}
    batches = all_batches(made, 0)
    made.loss(batches[0])
    kept = {name: tensor.clone() for name, tensor in made.training_state().items()}
    expected = float(made.loss(batches[1]).detach())
    other = task(recurrent=recurrent)
    other.load_training_state(kept)
    assert float(other.loss(batches[1]).detach()) == expected
    other.load_training_state({})
    assert float(other.loss(batches[1]).detach()) != expected


class _StopError(Exception):
    pass


@pytest.mark.parametrize(
    "options",
    [
        {"recurrent": "sru", "dropout": 0.2, "input_dropout": 0.2, "word_dropout": 0.1, "num_layers": 2},
        {"recurrent": "lstm", "output": "sampled", "output_finish": "full", "finish_share": 0.4},
    ],
)
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, options):
    data = {"random_lengths": True, "bptt_len": 20}
    settings = TrainSettings(max_epochs=3, lr=0.02, monitor="nll", threads=1, checkpoint_every_s=0.0)
    fit(task(max_epochs=3, data=data, **options), settings, tmp_path / "whole", quiet=True, tensorboard=False)

    stopped = task(max_epochs=3, data=data, **options)
    steps, original = [0], stopped.loss

    def loss(batch):
        steps[0] += 1
        if steps[0] == 17:  # in the middle of the second epoch
            raise _StopError
        return original(batch)

    stopped.loss = loss
    with pytest.raises(_StopError):
        fit(stopped, settings, tmp_path / "cut", quiet=True, tensorboard=False)
    fit(
        task(max_epochs=3, data=data, **options),
        settings,
        tmp_path / "cut",
        resume=True,
        quiet=True,
        tensorboard=False,
    )
    whole, cut = load_weights(tmp_path / "whole"), load_weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_figures_equal_a_direct_computation(monkeypatch):
    monkeypatch.setattr(language, "EVALUATION_STEPS", 32)  # several pieces
    made = task(output="sampled", num_layers=2)
    made.model.eval()
    tokens = torch.from_numpy(made.corpus.test).long()
    inputs = torch.cat([torch.tensor([made.corpus.eos]), tokens[:-1]])
    with torch.no_grad():
        hidden, _ = made.model(inputs.unsqueeze(1))
        logits = hidden[:, 0] @ made.model.embedding.weight.t() + made.model.output.bias
        expected = float(-logits.log_softmax(1).gather(1, tokens.unsqueeze(1)).double().mean())
    found = made.evaluate("test")
    assert found["nll"] == pytest.approx(expected, rel=1e-6)
    assert found["perplexity"] == math.exp(found["nll"])
    assert made.evaluate("valid")["nll"] != found["nll"]


def test_figures_of_characters():
    made = task(level="char")
    made.model.eval()
    found = made.evaluate("test")
    assert found["bpc"] == found["nll"] / math.log(2)
    tokens = torch.from_numpy(made.corpus.test).long()[:100].unsqueeze(1)
    with torch.no_grad():
        hidden, _ = made.model(tokens[:-1])
        expected = float(made.model.output.nll(hidden, tokens[1:])) / math.log(2)
    assert found["bpc_reset_100"] == pytest.approx(expected, rel=1e-6)
    assert set(made.evaluate("valid")) == {"nll", "bpc"}
    with torch.no_grad():
        total = sum(
            float(made.model.output.nll(made.model(part[:-1])[0], part[1:], reduction="sum"))
            for part in torch.from_numpy(made.corpus.test).long()[:130].view(-1, 10, 1)
        )
    with torch.no_grad():
        assert reset_nll(made.model, made.corpus.test, 10) == pytest.approx(total / (13 * 9), rel=1e-5)


def test_figures_are_of_full_precision_under_autocast():
    made = task()
    made.model.eval()
    plain = made.evaluate("valid")
    with torch.autocast("cpu", torch.bfloat16):
        assert made.evaluate("valid") == plain


def test_perplexity_of_a_hopeless_model_is_infinite():
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e6) == math.inf


def test_columns_hold_consecutive_text():
    assert columns(np.arange(6, dtype=np.int32), 2).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_the_last_share_of_the_epochs_trains_the_finishing_output():
    made = task(output="nce", output_finish="full", finish_share=0.25, max_epochs=8)
    assert [made.batch(epoch, 0).finish for epoch in range(8)] == [False] * 6 + [True] * 2
    batch = made.batch(7, 0)
    made.model.eval()
    hidden, _ = made.model(batch.inputs)
    torch.testing.assert_close(made.loss(batch), made.model.output.nll(hidden, batch.targets))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_learns(tmp_path, precision):
    settings = TrainSettings(max_epochs=6, lr=0.03, monitor="nll", threads=1, precision=precision)
    try:
        result = fit(task(), settings, tmp_path / "run", quiet=True, tensorboard=False)
    except UserError as error:
        pytest.skip(str(error))
    assert result.metrics["perplexity"] < 5.5  # of 12 words; the text's own is about 3.5


def test_words_and_sizes_are_kept_beside_the_run(tmp_path):
    made = task()
    made.save_artifacts(tmp_path)
    kept = json.loads((tmp_path / VOCABULARY_FILE).read_text(encoding="utf-8"))
    assert kept["words"] == WORDS
    assert kept["counts"] == made.corpus.counts.tolist()
    assert (kept["eos"], kept["unk"], kept["level"], kept["tokens"]) == (
        0,
        len(WORDS) - 1,
        "word",
        "blank-v1",
    )


def test_too_many_columns():
    with pytest.raises(UserError, match=r"do not fill data\.batch_size=901 columns"):
        task(data={"batch_size": 901})


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"valid_fraction": 0.5}, {"bptt_len": 5, "random_lengths": True}, {"limit": -1}],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LanguageData(**wrong)


def test_large_tables_follow_a_rule_of_rows(monkeypatch, tmp_path):
    monkeypatch.setattr("karui.tasks.language_model.SPARSE_CLASSES", 5)
    made = task(output="sampled", output_options={"num_splits": 1})
    rules = {group["rule"] for group in made.parameter_groups(SETTINGS)}
    assert rules == {"adam", "row-adagrad"}
    fit(made, SETTINGS, tmp_path / "run", quiet=True, tensorboard=False)
