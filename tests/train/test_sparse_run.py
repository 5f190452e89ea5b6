"""Runs whose tables have sparse gradients: optimizer, clipping, averaging, carried state, resuming."""

import dataclasses
import json

import pytest
import torch

from karui.errors import UserError
from karui.train import TrainSettings, checkpoint, fit
from karui.train.protocol import CarriesState
from tests.support.sparse_task import STEPS, SparseTask
from tests.support.tiny_task import TinyTask

SETTINGS = TrainSettings(
    max_epochs=3,
    lr=0.01,
    grad_clip_norm=0.5,
    weight_averaging=0.8,
    monitor="bpc",
    checkpoint_every_s=0.0,
    log_every=1,
    threads=1,
)


class Killed(Exception):  # noqa: N818 - what a test raises to stand for a killed process
    pass


def run(task, settings, folder, **options):
    return fit(task, settings, folder, quiet=True, tensorboard=False, **options)


def kill_and_resume(make, settings, folder, *, after):
    """Stop a run inside the loss of step `after`, then let another task go on."""
    task, count = make(), 0
    whole = task.loss

    def loss(batch):
        nonlocal count
        count += 1
        if count > after:
            raise Killed
        return whole(batch)

    task.loss = loss
    with pytest.raises(Killed):
        run(task, settings, folder)
    return run(make(), settings, folder, resume=True)


@pytest.mark.parametrize("rule", ["row-adagrad", "lazy-adam", "sgd"])
@pytest.mark.parametrize("average", [{}, {"weight_averaging": 0.0, "average_from": 0.4}])
def test_killed_run_resumes_to_the_bit(tmp_path, rule, average):
    settings = dataclasses.replace(SETTINGS, **average)
    run(SparseTask(sparse_rule=rule), settings, tmp_path / "whole")
    kill_and_resume(lambda: SparseTask(sparse_rule=rule), settings, tmp_path / "killed", after=STEPS + 3)
    for name in ("final.safetensors", "best.safetensors"):
        found, wanted = (tmp_path / run / "checkpoints" / name for run in ("killed", "whole"))
        assert found.read_bytes() == wanted.read_bytes()


def test_without_the_carried_state_a_resumed_run_is_another(tmp_path):
    """Guards the test above: the state matters, so that forgetting it would be seen."""
    for name, carries in (("a", True), ("b", False)):
        kill_and_resume(lambda: SparseTask(carries=carries), SETTINGS, tmp_path / name, after=STEPS + 3)  # noqa: B023
    a, b = (checkpoint.read_file(tmp_path / n / "checkpoints/final.safetensors")[0] for n in "ab")
    assert not torch.equal(a["embedding.weight"], b["embedding.weight"])
    assert isinstance(SparseTask(), CarriesState)
    assert not isinstance(TinyTask(), CarriesState)


def test_lazy_average_of_a_table_is_the_average_of_its_weights(tmp_path):
    """The average that the run returns against one made of the whole table after every step."""
    for name, words, decay in (
        ("exponential", {}, SETTINGS.weight_averaging),
        ("plain", {"weight_averaging": 0.0, "average_from": 0.5}, None),
    ):
        task = SparseTask()
        history = []
        inner = task.batch

        def batch(epoch, step, inner=inner, task=task, history=history):
            history.append(task.model.embedding.weight.detach().double().clone())
            return inner(epoch, step)

        task.batch = batch
        settings = dataclasses.replace(SETTINGS, keep="last", checkpoint_every_s=1e9, **words)
        run(task, settings, tmp_path / name)
        # The weights after the last step: those of the run without an average.
        plain = dataclasses.replace(settings, weight_averaging=0.0, average_from=0.0)
        bare = SparseTask()
        run(bare, plain, tmp_path / f"{name}-bare")
        after = [*history[1:], bare.model.embedding.weight.detach().double()]
        if decay is None:
            wanted = sum(after[3 * STEPS // 2 :]) / len(after[3 * STEPS // 2 :])
        else:
            shares = [decay ** (len(after) - 1 - t) for t in range(len(after))]
            wanted = sum(s * w for s, w in zip(shares, after, strict=True)) / sum(shares)
        found = task.model.embedding.weight.detach().double()
        assert (found - wanted).abs().max() < 3e-6
        assert (after[-1] - wanted).abs().max() > 1e-3
        untouched = (after[-1] == history[0]).all(1)
        assert 0 < untouched.sum() < len(untouched)


def test_a_step_of_sgd_at_the_rate_of_its_group(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, optimizer="sgd", lr=0.5, weight_averaging=0.0, schedule="constant", grad_clip_norm=0.0
    )
    task = TinyTask(has_penalty=False)
    before = [parameter.detach().clone() for parameter in task.model.output.parameters()]
    gradients = []
    task.model.output.weight.register_post_accumulate_grad_hook(lambda p: gradients.append(p.grad.clone()))
    run(task, dataclasses.replace(settings, max_epochs=1, weight_decay=0.1, monitor="nll"), tmp_path)
    wanted = before[0]
    for gradient in gradients:
        wanted = wanted - 0.5 * (gradient + 0.1 * wanted)
    assert (task.model.output.weight - wanted).abs().max() < 1e-6


@pytest.mark.parametrize(("monitor", "epoch"), [("perplexity", 0), ("bpc", 0), ("accuracy", 2)])
def test_lower_perplexity_and_bpc_are_better(tmp_path, monitor, epoch):
    task = SparseTask()
    values = iter([1.0, 2.0, 3.0])
    task.evaluate = lambda split: dict.fromkeys(("perplexity", "bpc", "accuracy"), next(values))
    result = run(task, dataclasses.replace(SETTINGS, monitor=monitor), tmp_path)
    assert result.epoch == epoch


def test_a_run_from_before_a_setting_existed_is_resumed(tmp_path):
    old = dataclasses.asdict(SETTINGS)
    del old["sparse_lr"], old["average_from"]
    run(SparseTask(), dataclasses.replace(SETTINGS, max_epochs=3), tmp_path, recipe={"train": old})
    new = dataclasses.asdict(SETTINGS)
    assert run(SparseTask(), SETTINGS, tmp_path, resume=True, recipe={"train": new}).was_finished
    with pytest.raises(UserError, match=r"train.sparse_lr was 0.1 and is 0.2 now"):
        run(SparseTask(), SETTINGS, tmp_path, resume=True, recipe={"train": new | {"sparse_lr": 0.2}})


def test_the_model_learns(tmp_path):
    task = SparseTask()
    run(task, dataclasses.replace(SETTINGS, max_epochs=12, sparse_lr=0.3), tmp_path)
    assert sum(task.losses[-8:]) < 0.9 * sum(task.losses[:8])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["split"] == "train" for line in lines) == 12 * STEPS
