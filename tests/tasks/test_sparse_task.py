"""Sparse models of the tasks: groups of parameters, penalties, tables of language models, the published recipes."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from karui.errors import UserError
from karui.recipes.language import PTB_SPARSE
from karui.sparse import gate_parameters, harden, kept_parameters, penalty, project
from karui.sparse.hard_concrete import HardConcreteGate
from karui.sparse.magnitude import MagnitudeGate, MagnitudeWeight
from karui.tasks.adding import AddingTask
from karui.tasks.language import LanguageTask
from karui.tasks.language_model import build_language_model
from karui.tasks.language_settings import LanguageModelSettings
from karui.tasks.sequence_settings import AddingData, LayerSettings
from karui.tasks.settings import DENSE, SparseSettings
from karui.tasks.sparse_task import GATE_RATE
from karui.train import TrainSettings, fit
from tests.support.language_sets import corpus

COUNTS = torch.arange(1, 31)
DATA = AddingData(steps=5, examples=40, heldout_examples=10)


def adding(**sparse):
    return AddingTask(DATA, LayerSettings(hidden_size=4), SparseSettings(**sparse), seed=0)


def language_model(method, **settings):
    torch.manual_seed(0)
    sparse = SparseSettings(method=method, target_density=0.1 if method == "magnitude" else None)
    settings = {"hidden_size": 6, "num_layers": 1, "tied": False, "recurrent": "lstm", **settings}
    return build_language_model(COUNTS, LanguageModelSettings(**settings), sparse)


def test_gates_have_a_rate_of_their_own_and_no_decay():
    settings = TrainSettings(lr=1e-3, weight_decay=0.1)
    task = adding(method="l0")
    rest, gates = task.parameter_groups(settings)
    assert {id(p) for p in gates["params"]} == {id(p) for p in gate_parameters(task.model)}
    assert (gates["lr"], gates["weight_decay"]) == (GATE_RATE["l0"] * 1e-3, 0.0)
    assert len(rest["params"]) + len(gates["params"]) == len(list(task.model.parameters()))
    assert adding(method="l0", gate_lr=0.3).parameter_groups(settings)[1]["lr"] == 0.3
    assert len(adding(method="magnitude", target_density=0.1).parameter_groups(settings)) == 1
    assert len(AddingTask(DATA, LayerSettings(), seed=0).parameter_groups(settings)) == 1


def test_the_temperature_falls_over_the_run_and_a_file_answers_the_same():
    task = adding(method="l0", beta_end=0.2)
    gates = [module for module in task.model.modules() if isinstance(module, HardConcreteGate)]
    seen = []
    for progress in (0.0, 0.5, 1.0):
        assert task.constraint(progress) is None
        seen.append(gates[0].beta)
    assert seen == pytest.approx([2 / 3, (2 / 3 * 0.2) ** 0.5, 0.2])
    assert all(gate.beta == gates[0].beta for gate in gates)
    project(task.model, keep=kept_parameters(task.model) // 2)
    with torch.no_grad():
        for gate in gates:
            gate.log_alpha.sub_(
                8.0
            )  # kept, although their own rule would close them: by the mean of the gate
    other = adding(method="l0", beta_end=0.2)  # its temperature is that of the start
    other.model.load_state_dict(task.model.state_dict())
    x = torch.ones(5, 2, 2)
    assert torch.equal(task.model.eval()(x), other.model.eval()(x))


def test_magnitude_ranks_each_layer_of_a_language_model_apart_unless_told_otherwise():
    def by_rank(model):
        return {module.by_rank for module in model.modules() if isinstance(module, MagnitudeGate)}

    assert by_rank(language_model("magnitude")) == {True}
    held = {"method": "magnitude", "target_density": 0.1}
    assert by_rank(adding(**held).model) == {False}
    assert by_rank(adding(**held, scope="layer").model) == {True}
    settings = LanguageModelSettings(hidden_size=6, num_layers=1, tied=False)
    told = build_language_model(COUNTS, settings, SparseSettings(**held, scope="global", regrow=True))
    assert by_rank(told) == {False}
    assert {m.regrow for m in told.modules() if isinstance(m, MagnitudeWeight)} == {True}


def test_what_lowers_the_rate_of_the_gates():
    settings = TrainSettings(lr=1e-3)
    assert adding(method="l0").gate_remedy(settings) == "--set sparse.gate_lr=0.005"
    assert adding(method="vd", gate_lr=0.2).gate_remedy(settings) == "--set sparse.gate_lr=0.05"
    assert adding(method="magnitude", target_density=0.1).gate_remedy(settings) == ""
    for bad, message in (
        ({"beta_end": 0.0}, "beta_end must be"),
        ({"l0_lambdas": {"a": -1.0}}, "l0_lambdas"),
    ):
        with pytest.raises(ValueError, match=message):
            SparseSettings(method="l0", **bad)


def test_a_target_takes_the_place_of_the_penalty():
    free, held = adding(method="l0"), adding(method="l0", target_density=0.5)
    assert float(free.penalty().detach()) > 0
    assert held.penalty() is None
    assert held.constraint(0.0) is None  # until it is held
    held.hold()
    assert held.constraint(0.0) is not None
    assert adding(method="magnitude", target_density=0.1).penalty() is None
    with held.deployed():
        assert held.status()["density"] == 0.5


def test_what_no_layer_offers_is_refused():
    with pytest.raises(UserError, match="^sparse: .*offers the group 'word'"):
        adding(method="l0", groups=("word",))
    with pytest.raises(ValueError, match="tied must be false for a sparse model"):
        language_model("vd", tied=True)
    with pytest.raises(ValueError, match="output must be a layer with one table .* not adaptive"):
        language_model("l0", output="adaptive")
    with pytest.raises(ValueError, match="one_hot must be false, or lstm or gru"):
        LanguageModelSettings(one_hot=True, recurrent="sru", tied=False)


@pytest.mark.parametrize("output", ["full", "sampled"])
@pytest.mark.parametrize("recurrent", ["lstm", "gru", "sru"])
@pytest.mark.parametrize("method", ["l0", "vd", "magnitude"])
def test_a_sparse_language_model_learns_and_equals_its_plain_twin(method, recurrent, output):
    finish = {"output_finish": "full"} if output == "sampled" else {}
    model = language_model(method, recurrent=recurrent, output=output, num_samples=5, **finish)
    ids, targets = torch.randint(0, 30, (2, 5, 3)).unbind(0)
    for is_last in (False, True):
        hidden, _ = model(ids)
        (model.output_of(finish=is_last)(hidden, targets) + penalty(model) / 1000).backward()
    assert model.output.base.weight.grad.abs().sum() > 0
    assert model.embedding.base.weight.grad.abs().sum() > 0
    model.eval()
    assert project(model, keep=80) == kept_parameters(model) == 80
    plain = harden(model).eval()
    (hidden, _), (wanted, _) = model(ids), plain(ids)
    assert torch.equal(hidden, wanted)
    assert torch.equal(model.output.nll(hidden, targets), plain.output.nll(wanted, targets))
    assert torch.equal(model.output.log_prob(hidden), plain.output.log_prob(wanted))
    assert torch.equal(model.output.topk(hidden, 3)[1], plain.output.topk(wanted, 3)[1])
    assert torch.equal(model.output.softmax_state_dict()["weight"], plain.output.weight)


@pytest.mark.parametrize(("recurrent", "gates"), [("lstm", 4), ("gru", 3)])
def test_one_hot_is_a_matrix_that_reads_one_hot_words(recurrent, gates):
    torch.manual_seed(0)
    settings = LanguageModelSettings(
        recurrent=recurrent, hidden_size=6, num_layers=2, tied=False, one_hot=True, gate_bias=1.0
    )
    model = build_language_model(COUNTS, settings, DENSE).eval()
    assert model.embedding.weight.shape == (30, gates * 6)
    assert "weight_ih_l0" not in dict(model.recurrent.named_parameters())
    kind = torch.nn.LSTM if recurrent == "lstm" else torch.nn.GRU
    other = kind(30, 6, 2)
    weights = dict(model.recurrent.named_parameters())
    other.load_state_dict({**weights, "weight_ih_l0": model.embedding.weight.t().detach()})
    ids = torch.randint(0, 30, (7, 3))
    with torch.no_grad():
        wanted, _ = other(F.one_hot(ids, 30).float())
        assert (model(ids)[0] - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("recipe", PTB_SPARSE, ids=lambda recipe: recipe.name)
def test_published_recipes_start_step_and_go_on(recipe, tmp_path):
    model = dataclasses.replace(recipe.model, hidden_size=6)
    data = dataclasses.replace(recipe.data, batch_size=4, bptt_len=60)
    train = dataclasses.replace(recipe.train, max_epochs=2, threads=1)

    def task():
        return LanguageTask(data, model, recipe.sparse, seed=0, max_epochs=2, corpus=corpus())

    whole = fit(task(), train, tmp_path / "whole", quiet=True, tensorboard=False)
    assert {"nll", "perplexity", "density"} <= set(whole.metrics)
    stopped = task()
    loss, count = stopped.loss, 0

    def until(batch):
        nonlocal count
        count += 1
        if count > 6:
            raise KeyboardInterrupt
        return loss(batch)

    stopped.loss = until
    often = dataclasses.replace(train, checkpoint_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, often, tmp_path / "part", quiet=True, tensorboard=False, recipe={})
    fit(task(), often, tmp_path / "part", resume=True, quiet=True, tensorboard=False, recipe={})
    found, wanted = (tmp_path / run / "checkpoints/final.safetensors" for run in ("part", "whole"))
    assert found.read_bytes() == wanted.read_bytes()
