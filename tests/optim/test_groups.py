import pytest
import torch
from torch import nn

from karui.optim import Optimizer, parameter_groups


class Output(nn.Module):
    """A layer whose table gets sparse gradients."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.bias = weight, nn.Parameter(torch.zeros(len(weight)))
        self.scale = nn.Parameter(torch.ones(()))

    def sparse_parameters(self):
        return [self.weight, self.bias]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 4, sparse=True)
        self.dense = nn.Embedding(20, 4)
        self.linear = nn.Linear(4, 4)
        self.variances = nn.Parameter(torch.zeros(4, 4))
        self.output = Output(self.embedding.weight)
        self.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)


def test_each_parameter_has_one_group_and_a_tied_table_one_place():
    model = Model()
    own = {"params": [model.variances], "lr": 0.5}
    groups = parameter_groups(model, lr=0.01, weight_decay=0.1, rule="adamw", sparse_lr=0.2, own=[own])
    words = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    assert words == [
        {"rule": "adamw", "lr": 0.01, "weight_decay": 0.1},
        {"rule": "adamw", "lr": 0.01, "weight_decay": 0.0},
        {"rule": "row-adagrad", "lr": 0.2, "weight_decay": 0.0},
        {"lr": 0.5},
    ]
    output = model.output
    wanted = [
        [model.dense.weight, model.linear.weight],
        [model.linear.bias, output.scale],
        [model.embedding.weight, output.bias],
        [model.variances],
    ]
    for group, parameters in zip(groups, wanted, strict=True):
        assert {id(p) for p in group["params"]} == {id(p) for p in parameters}
        assert len(group["params"]) == len(parameters)
    Optimizer(groups)


def test_empty_groups_are_left_out():
    groups = parameter_groups(nn.Linear(2, 2, bias=False), lr=0.1)
    assert [(group["rule"], len(group["params"])) for group in groups] == [("adam", 1)]


def test_unknown_rules_are_named():
    with pytest.raises(ValueError, match=r"rule must be one of .*, got 'lion'"):
        parameter_groups(nn.Linear(1, 1), lr=0.1, rule="lion")
    with pytest.raises(ValueError, match=r"sparse_rule must be one of .*, got 'adam'"):
        parameter_groups(nn.Linear(1, 1), lr=0.1, sparse_rule="adam")
