"""Gradient descent with Nesterov's momentum, as wide residual networks are trained."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from karui.errors import UserError
from karui.train import TrainSettings, fit
from karui.train.device import make_optimizer
from tests.support.stopping import fit_until
from tests.support.tiny_task import TinyTask

SETTINGS = TrainSettings(
    max_epochs=3, lr=0.1, optimizer="sgd", momentum=0.9, weight_decay=5e-4, checkpoint_every_s=0.0, threads=1
)


def test_two_steps_are_those_of_nesterov():
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make_optimizer([{"params": [weight]}], dataclasses.replace(SETTINGS, weight_decay=0.0))
    expected, velocity = weight.detach().clone(), torch.zeros(2)
    for gradient in (torch.tensor([0.5, 0.25]), torch.tensor([-1.0, 0.5])):
        weight.grad = gradient.clone()
        optimizer.step()
        velocity = 0.9 * velocity + gradient
        expected -= 0.1 * (gradient + 0.9 * velocity)
    assert torch.allclose(weight.detach(), expected)


def test_a_group_with_a_rule_of_its_own_is_refused():
    weight = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(
        UserError, match=r"train.momentum must be 0 where weights follow row-adagrad, got 0.9"
    ):
        make_optimizer([{"params": [weight], "rule": "row-adagrad"}], SETTINGS)


def test_a_stopped_run_goes_on_with_its_velocity(tmp_path):
    whole = fit(TinyTask(), SETTINGS, tmp_path / "whole", quiet=True, tensorboard=False)
    fit_until((1, 4), TinyTask(), SETTINGS, tmp_path / "cut", quiet=True, tensorboard=False)
    resumed = fit(TinyTask(), SETTINGS, tmp_path / "cut", resume=True, quiet=True, tensorboard=False)
    assert resumed.metrics == whole.metrics
    ours, theirs = load_file(resumed.weights), load_file(whole.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
