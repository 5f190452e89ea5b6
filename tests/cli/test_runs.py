"""The dense model of a sparse run: every weight at the value that its method would deploy it with."""

import pytest
import torch

from karui.cli.runs import TrainedRun
from karui.recipes.classification import ClassificationRecipe
from karui.sparse import harden, project, sparse_layers
from karui.tasks.classification import build_model
from karui.tasks.settings import ModelSettings, SparseSettings

MODEL = ModelSettings(embedding_dim=6, hidden_size=4)
METHODS = ("l0", "vd", "magnitude")


def run_of(tmp_path, method: str, *, keep: int | None) -> TrainedRun:
    torch.manual_seed(3)
    sparse = SparseSettings(method=method, groups=("weight",), target_density=0.1)
    model = build_model(30, 2, MODEL, sparse)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("log_alpha", "log_sigma2")):
                parameter.copy_(torch.linspace(-9.0, 4.0, parameter.numel()).view_as(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter))
    if keep is not None:
        project(model, keep=keep)
    recipe = ClassificationRecipe(model=MODEL, sparse=sparse)
    return TrainedRun(tmp_path, recipe, model.eval(), [f"w{i}" for i in range(30)], ["a", "b"])


def weights_of(model: torch.nn.Module, run: TrainedRun) -> dict[str, torch.Tensor]:
    """Weights of the hardened model that could have been pruned, the row of unknown words left out."""
    plain = dict(model.named_parameters())
    found = {}
    for name, layer in sparse_layers(run.model):
        for parameter, _, state in layer.states():
            value = plain[f"{name}.{parameter}"]
            found[f"{name}.{parameter}"] = value if state.zero_row is None else value[1:]
    return found


@pytest.mark.parametrize("keep", [None, 40, 0])
@pytest.mark.parametrize("method", METHODS)
def test_a_dense_model_has_every_weight_whatever_was_pruned(tmp_path, method, keep):
    run = run_of(tmp_path, method, keep=keep)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    masked = weights_of(run.masked(), run)
    dense = weights_of(run.dense(), run)
    assert all((value != 0).all() for value in dense.values())
    for name, value in masked.items():  # what is kept has one value in both
        kept = value != 0
        torch.testing.assert_close(dense[name][kept], value[kept], rtol=0, atol=0)
    if keep is not None:
        assert sum(int((value != 0).sum()) for value in masked.values()) == keep
    for name, value in run.model.state_dict().items():  # the run itself is as it was
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("method", ["vd", "magnitude"])
def test_noise_and_masks_leave_the_mean_as_the_dense_value(tmp_path, method):
    run = run_of(tmp_path, method, keep=40)
    for name, layer in sparse_layers(run.model):
        for parameter, mean, state in layer.states():
            found = dict(run.dense().named_parameters())[f"{name}.{parameter}"]
            wanted = mean.detach().clone()
            if state.zero_row is not None:
                wanted[state.zero_row] = 0.0
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("keep", [None, 40])
def test_a_gate_that_the_test_time_closes_has_its_mean_in_the_dense_model(tmp_path, keep):
    run = run_of(tmp_path, "l0", keep=keep)
    dense = dict(run.dense().named_parameters())
    model = run.model
    torch.manual_seed(0)
    for name, layer in sparse_layers(model):
        for parameter, mean, state in layer.states():
            [(gate, _)] = state.gates()
            drawn = gate.sample(shape=(10_000,)).mean(0)
            low = gate.log_alpha < -2.4  # its test gate is zero, its draws are not
            assert low.any()
            if state.zero_row is not None:
                low[state.zero_row] = False
            found = dense[f"{name}.{parameter}"] / mean
            torch.testing.assert_close(found[low], drawn[low], rtol=0, atol=0.02)
            assert (found[low] > 0).all()


def test_a_dense_run_is_its_own_dense_model(tmp_path):
    torch.manual_seed(0)
    model = build_model(30, 2, MODEL, SparseSettings())
    run = TrainedRun(tmp_path, ClassificationRecipe(model=MODEL), model.eval(), ["w"], ["a", "b"])
    for name, value in harden(model).state_dict().items():
        torch.testing.assert_close(run.dense().state_dict()[name], value, rtol=0, atol=0)
