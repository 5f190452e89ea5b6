import dataclasses
import errno
import json
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from karui.errors import UserError
from karui.train import FitResult, Task, TrainSettings, checkpoint, fit, load_weights
from tests.support.tiny_task import BATCH, DOCUMENTS, TinyTask

QUICK = TrainSettings(max_epochs=4, lr=0.01, penalty_weight=0.01, threads=1)
STEPS = 2 * (DOCUMENTS // BATCH) + 2 * (DOCUMENTS // BATCH - 1)


def run(task, settings, folder, **options) -> FitResult:
    return fit(task, settings, folder, quiet=True, tensorboard=False, **options)


def quick(**changes):
    return dataclasses.replace(QUICK, **changes)


def read_lines(folder, split):
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


class OneWeight:
    """Loss = slope * weight, so that the gradient is known; the penalty is the weight itself."""

    num_examples = 4

    def __init__(self, slopes, *, start=0.0, accuracies=None, has_penalty=False):
        self.model = nn.ParameterDict({"weight": nn.Parameter(torch.tensor([start]))})
        self.slopes, self.accuracies, self.has_penalty = slopes, accuracies, has_penalty
        self.trail = []

    def steps_per_epoch(self, epoch):
        return len(self.slopes)

    def batch(self, epoch, step):
        return torch.tensor(self.slopes[step])

    def loss(self, batch):
        self.trail.append(float(self.model["weight"].detach()))
        return (batch * self.model["weight"]).sum()

    def penalty(self):
        return self.model["weight"].sum() if self.has_penalty else None

    def evaluate(self, split):
        self.evaluations = getattr(self, "evaluations", 0) + 1
        accuracy = self.accuracies[self.evaluations - 1] if self.accuracies else 0.5
        return {"accuracy": accuracy, "nll": 1.0 - accuracy}

    def status(self):
        return {}

    def parameter_groups(self, settings):
        return [{"params": list(self.model.parameters())}]


def sgd(monkeypatch, lr=1.0):
    """Plain gradient descent in the loop: the steps are then the (clipped) gradients themselves."""
    monkeypatch.setattr(
        "karui.train.run.make_optimizer", lambda groups, settings: torch.optim.SGD(groups, lr=settings.lr)
    )
    return quick(lr=lr, max_epochs=1, schedule="constant", keep="last")


def test_tiny_task_is_a_task_and_is_learned(tmp_path):
    task = TinyTask()
    assert isinstance(task, Task)
    result = run(task, quick(max_epochs=30, lr=0.03), tmp_path)
    assert result.epochs == 30
    assert sum(task.losses[-10:]) < 0.5 * sum(task.losses[:10])
    record = read_lines(tmp_path, "valid")[result.epoch]
    assert result.metrics == {name: record[name] for name in ("accuracy", "nll", "density")}


def test_same_seed_same_bits_and_other_seed_other_bits(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(TinyTask(), quick(seed=seed), tmp_path / name)
    a, b, c = ((tmp_path / name / "checkpoints/final.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_gradient_is_clipped_after_backward_and_before_the_step(tmp_path, monkeypatch):
    """Clipped before backward, the old gradient would be clipped and a step of 100 would go through."""
    settings = dataclasses.replace(sgd(monkeypatch), grad_clip_norm=0.5)
    task = OneWeight([100.0, -100.0, 0.25])
    run(task, settings, tmp_path)
    assert task.trail == pytest.approx([0.0, -0.5, 0.0])
    assert float(task.model["weight"].detach()) == pytest.approx(-0.25)


def test_penalty_is_ramped_and_divided_by_the_number_of_examples(tmp_path, monkeypatch):
    settings = dataclasses.replace(sgd(monkeypatch), penalty_weight=8.0, penalty_ramp=0.5)
    task = OneWeight([0.0] * 4, has_penalty=True)
    run(task, dataclasses.replace(settings, log_every=1), tmp_path)
    assert task.trail == pytest.approx([0.0, 0.0, -1.0, -3.0])  # steps of 8 * (0, 1/2, 1, 1) / 4 examples
    lines = read_lines(tmp_path, "train")
    assert [line["penalty_weight"] for line in lines] == [0.0, 4.0, 8.0, 8.0]
    assert [line["penalty"] for line in lines] == pytest.approx([0.0, 0.0, -1.0, -3.0])


def test_learning_rate_of_a_group_follows_the_schedule(tmp_path):
    settings = quick(schedule="linear", decay_start=0.5, log_every=1)
    run(TinyTask(), settings, tmp_path)
    rates = [line["lr"] for line in read_lines(tmp_path, "train")]
    assert rates[0] == rates[STEPS // 2] == pytest.approx(0.02)  # the first group asks for twice the rate
    assert rates[-1] == pytest.approx(0.02 / (STEPS // 2))


def test_training_lines_hold_the_mean_loss_since_the_line_before(tmp_path):
    task = TinyTask(has_penalty=False)
    run(task, quick(log_every=4), tmp_path)
    lines = read_lines(tmp_path, "train")
    assert [line["step"] for line in lines] == [4, 8, 10, 12, 16, 19, 20, 24, 28, 29, 32, 36, 38]
    assert lines[0]["loss"] == pytest.approx(sum(task.losses[:4]) / 4)
    assert lines[2]["loss"] == pytest.approx(sum(task.losses[8:10]) / 2)
    assert "penalty" not in lines[0]


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    task = OneWeight([1.0], accuracies=[0.1, 0.7, 0.6, 0.7, 0.2, 0.9])
    result = run(task, quick(max_epochs=6, patience=2, schedule="constant"), tmp_path)
    assert (result.stopped_early, result.epochs, result.epoch) == (True, 4, 1)
    assert result.metrics == {"accuracy": 0.7, "nll": pytest.approx(0.3)}
    assert float(task.model["weight"].detach()) == pytest.approx(-0.02)  # two steps of Adam
    assert load_weights(tmp_path)["weight"].tolist() == task.model["weight"].tolist()


@pytest.mark.parametrize(("keep", "monitor", "epoch"), [("last", "nll", 2), ("best", "nll", 1)])
def test_which_weights_are_returned(tmp_path, keep, monitor, epoch):
    task = OneWeight([1.0], accuracies=[0.1, 0.7, 0.6])
    result = run(task, quick(max_epochs=3, keep=keep, monitor=monitor, schedule="constant"), tmp_path)
    assert result.epoch == epoch
    assert float(task.model["weight"].detach()) == pytest.approx(-0.01 * (epoch + 1))


def test_sparse_run_takes_its_best_after_the_ramp_only(tmp_path):
    task = OneWeight([1.0], accuracies=[0.9, 0.9, 0.3, 0.4, 0.2], has_penalty=True)
    result = run(task, quick(max_epochs=5, penalty_ramp=0.6, patience=1), tmp_path)
    assert (result.epoch, result.epochs) == (3, 5)


def test_averaged_weights_are_evaluated_and_kept(tmp_path, monkeypatch):
    settings = dataclasses.replace(sgd(monkeypatch), weight_averaging=0.5)
    task = OneWeight([1.0, 1.0])  # weights -1, -2; average (0.5 * 1 + 1 * 2) / 1.5
    run(task, settings, tmp_path)
    assert float(task.model["weight"].detach()) == pytest.approx(-2.5 / 1.5)


def test_evaluation_runs_in_eval_mode_without_gradients(tmp_path):
    seen = []

    class Watching(TinyTask):
        def evaluate(self, split):
            seen.append((split, self.model.training, torch.is_grad_enabled()))
            return super().evaluate(split)

        def loss(self, batch):
            assert self.model.training
            return super().loss(batch)

    run(Watching(), quick(evaluate_every=3), tmp_path)
    assert seen == [("valid", False, False)] * 2  # epochs 3 and 4: the last one always


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_loss_that_is_not_finite_stops_with_one_line(tmp_path, value):
    class Breaking(TinyTask):
        def loss(self, batch):
            loss = super().loss(batch)
            return loss * float(value) if len(self.losses) == 14 else loss

    task = Breaking()
    message = (
        rf"the loss is {value} at epoch 2, step 3 \(the last checkpoint is kept\): "
        r"lower the learning rate \(--set train.lr=0.0025\)"
    )
    with pytest.raises(UserError, match=message):
        run(task, quick(checkpoint_every_s=0.0), tmp_path)
    assert all(bool(weight.isfinite().all()) for weight in task.model.parameters())
    assert (tmp_path / "checkpoints" / "last.safetensors").exists()
    assert run(TinyTask(), quick(checkpoint_every_s=0.0), tmp_path, resume=True).epochs == 4


def test_weights_that_are_not_finite_never_reach_a_checkpoint(tmp_path, monkeypatch):
    task = OneWeight([1.0, 1.0])
    task.loss = lambda batch: (
        batch * task.model["weight"].sqrt()
    ).sum()  # 0 at 0, where its slope is infinite
    settings = dataclasses.replace(sgd(monkeypatch), checkpoint_every_s=0.0)
    with pytest.raises(UserError, match=r"the weights are no longer finite at epoch 1, step 1 \(there is no"):
        run(task, settings, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    """Stopped by an error in the third epoch instead of a kill; the kills are in test_kill_resume.py."""
    settings = quick(
        max_epochs=5, weight_averaging=0.9, grad_clip_norm=0.5, checkpoint_every_s=0.0, log_every=7
    )
    run(TinyTask(), settings, tmp_path / "whole")
    real = Fabric.backward

    def interrupt(self, loss):
        if len(task.losses) == 24:
            raise KeyboardInterrupt
        real(self, loss)

    task = TinyTask()
    monkeypatch.setattr(Fabric, "backward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(task, settings, tmp_path / "cut")
    monkeypatch.undo()
    torch.manual_seed(99)
    run(TinyTask(), settings, tmp_path / "cut", resume=True)
    for name in ("final.safetensors", "best.safetensors"):
        whole, cut = (tmp_path / folder / "checkpoints" / name for folder in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()
    for split in ("train", "valid"):
        whole, cut = (read_lines(tmp_path / folder, split) for folder in ("whole", "cut"))
        assert [line | {"seconds": 0} for line in whole] == [line | {"seconds": 0} for line in cut]


def test_finished_run_is_not_trained_again(tmp_path):
    first = run(TinyTask(), QUICK, tmp_path)
    task = TinyTask()
    again = run(task, QUICK, tmp_path, resume=True)
    assert task.losses == []
    assert again == dataclasses.replace(first, was_finished=True)
    assert torch.equal(task.model.output.weight, load_weights(tmp_path)["output.weight"])


def test_run_is_not_overwritten_without_resume(tmp_path):
    run(TinyTask(), QUICK, tmp_path)
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        run(TinyTask(), QUICK, tmp_path)


def test_resuming_with_another_recipe_names_the_field(tmp_path):
    run(TinyTask(), QUICK, tmp_path, recipe={"train": {"lr": 0.01}, "groups": ("a", "b")})
    with pytest.raises(UserError, match=r"another recipe: train\.lr was 0\.01 and is 0\.02 now"):
        run(TinyTask(), QUICK, tmp_path, resume=True, recipe={"train": {"lr": 0.02}, "groups": ("a", "b")})


def test_resuming_with_another_model_names_the_tensor(tmp_path):
    run(TinyTask(), QUICK, tmp_path)
    task = TinyTask()
    task.model.output = nn.Linear(8, 3)
    with pytest.raises(UserError, match=r"output.weight has shape \(2, 8\), this model needs \(3, 8\)"):
        run(task, QUICK, tmp_path, resume=True)


def test_other_number_of_threads_on_resume_is_said(tmp_path, capsys):
    class Stopping(TinyTask):
        def status(self):
            raise KeyboardInterrupt

    settings = quick(threads=0, checkpoint_every_s=0.0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with pytest.raises(KeyboardInterrupt):
            run(Stopping(), settings, tmp_path)
        torch.set_num_threads(2)
        fit(TinyTask(), settings, tmp_path, resume=True, tensorboard=False)
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "resuming at epoch 1, step 9"
    assert shown[1].startswith("the run began with 1 threads and goes on with 2:")
    assert shown[2].startswith("epoch 1/4  accuracy 0.")


def test_switches_of_torch_are_put_back(tmp_path):
    before = torch.get_num_threads()
    run(TinyTask(), quick(threads=before + 1), tmp_path)
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_full_disk_stops_with_one_line_and_the_checkpoint_resumes(tmp_path, monkeypatch):
    settings = quick(checkpoint_every_s=0.0)
    run(TinyTask(), settings, tmp_path / "whole")
    real, writes = Path.write_bytes, []

    def fill_up(self, data):
        writes.append(self.name)
        if len(writes) < 30:
            return real(self, data)
        real(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(UserError, match=r"the disk is full.*the one before it is intact") as error:
        run(TinyTask(), settings, tmp_path / "full")
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    run(TinyTask(), settings, tmp_path / "full", resume=True)
    whole, full = (tmp_path / folder / "checkpoints/final.safetensors" for folder in ("whole", "full"))
    assert whole.read_bytes() == full.read_bytes()


def test_file_in_the_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write into .*run: a part of this path is a file"):
        run(TinyTask(), QUICK, tmp_path / "run")


def test_folder_without_permission_is_one_line(tmp_path, monkeypatch):
    def refuse(self, *_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot write into .*run: permission denied"):
        run(TinyTask(), QUICK, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "16-mixed"}, "train.precision=16-mixed is not available on this cpu; use .*32-true"),
        (
            {"accelerator": "toaster"},
            "train.accelerator=toaster is not available here .* use train.accelerator=cpu",
        ),
    ],
)
def test_device_or_precision_that_is_missing(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(TinyTask(), quick(**changes), tmp_path)


def test_bfloat16_where_the_cpu_has_it(tmp_path):
    seen = []

    class Watching(TinyTask):
        def loss(self, batch):
            seen.append(self.model(batch[0]).dtype)
            return super().loss(batch)

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(UserError, match="bf16-mixed is not available on this cpu"):
            run(Watching(), quick(precision="bf16-mixed"), tmp_path)
        return
    run(Watching(), quick(precision="bf16-mixed"), tmp_path)
    assert set(seen) == {torch.bfloat16}
    assert load_weights(tmp_path)["output.weight"].dtype == torch.float32


def test_kill_between_checkpoint_and_best_weights(tmp_path, monkeypatch):
    """`last` names the weights of epoch 2 as the best, and they still have their temporary name."""
    settings = quick(schedule="constant", checkpoint_every_s=0.0)
    real, renames = Path.replace, []

    def stop(self, target):
        if self.name == "next-best.safetensors":
            renames.append(self)
            if len(renames) == 2:
                raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        run(OneWeight([1.0], accuracies=[0.1, 0.9]), settings, tmp_path)
    monkeypatch.undo()
    result = run(OneWeight([1.0], accuracies=[0.5, 0.4]), settings, tmp_path, resume=True)
    assert result.epoch == 1
    assert load_weights(tmp_path)["weight"].tolist() == pytest.approx([-0.02])


def test_kill_between_best_weights_and_checkpoint(tmp_path, monkeypatch):
    """The weights of epoch 2 are written, `last` does not know them; the repeated epoch 2 may be another one."""
    settings = quick(schedule="constant", checkpoint_every_s=0.0)
    real, writes = checkpoint.write_file, []

    def stop(path, tensors, info):
        writes.append(path.name)
        if writes.count("last.safetensors") == 2:
            raise KeyboardInterrupt
        real(path, tensors, info)

    monkeypatch.setattr(checkpoint, "write_file", stop)
    with pytest.raises(KeyboardInterrupt):
        run(OneWeight([1.0], accuracies=[0.1, 0.9]), settings, tmp_path)
    monkeypatch.undo()
    assert writes == ["next-best.safetensors", "last.safetensors"] * 2
    result = run(OneWeight([1.0], accuracies=[0.05, 0.04, 0.03]), settings, tmp_path, resume=True)
    assert result.epoch == 0
    assert load_weights(tmp_path)["weight"].tolist() == pytest.approx([-0.01])
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"best.safetensors", "final.safetensors", "last.safetensors"}
