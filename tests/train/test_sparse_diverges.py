"""A sparse run that diverges stops at once, in one line that names what broke and which rate to lower."""

import re

import pytest
import torch

from karui.errors import UserError
from karui.sparse import gate_parameters
from karui.tasks.adding import AddingTask
from karui.tasks.sequence_settings import AddingData, LayerSettings
from karui.tasks.settings import SparseSettings
from karui.train import TrainSettings, fit

DATA = AddingData(steps=4, examples=40, heldout_examples=8, batch_size=10)


def task(method, **sparse):
    settings = SparseSettings(method=method, target_density=0.3, **sparse)
    made = AddingTask(DATA, LayerSettings(recurrent="gru", hidden_size=4), settings, seed=0)
    made.hold()
    return made


def diverge(made, folder, **settings):
    chosen = {"max_epochs": 3, "monitor": "mse", "threads": 1, "grad_clip_norm": 0.0, **settings}
    with pytest.raises(UserError) as caught:
        fit(made, TrainSettings(**chosen), folder, quiet=True, tensorboard=False)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("method", ["l0", "vd", "magnitude"])
def test_a_rate_far_too_high_ends_in_the_first_epoch(tmp_path, method):
    line = diverge(task(method), tmp_path, lr=1e30)
    assert re.search(
        r"(the loss is (nan|inf)|no longer finite) at epoch 1, step \d \(there is no checkpoint", line
    )
    assert "lower the learning rate (--set train.lr=2.5e+29)" in line
    assert ("--set sparse.gate_lr=" in line) == (method != "magnitude")


@pytest.mark.parametrize("method", ["l0", "vd", "magnitude"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_weight_that_breaks_is_named_before_anything_is_ranked(tmp_path, method, step):
    """Behind step 3, the last of an epoch, the model is projected and evaluated: without the check a ValueError."""
    made = task(method, gate_lr=0.5)
    loss, count = made.loss, 0

    def breaking(batch):
        nonlocal count
        found = loss(batch)
        if count == step:
            parameter = (gate_parameters(made.model) or list(made.model.parameters()))[0]
            parameter.register_hook(lambda gradient: torch.full_like(gradient, torch.nan))
        count += 1
        return found

    made.loss = breaking
    line = diverge(made, tmp_path)
    at = rf"at epoch 1, step {min(step + 1, 3)} "
    assert re.search(rf"{at}\(there is no checkpoint yet; \S+ is not finite\)", line)
    assert ("--set sparse.gate_lr=0.125" in line) == (method != "magnitude")


def test_a_broken_constraint_is_told_from_a_broken_loss(tmp_path):
    made = task("l0")
    constraint = made.constraint
    made.constraint = lambda progress: constraint(progress) * float("inf")
    assert diverge(made, tmp_path).startswith("the constraint of the target is ")
