"""W+G+N with one-hot words: one variable for a word's column and the recurrent row that one pre-activation adds up."""

import copy
from typing import Any

import pytest
import torch

from karui.sparse import (
    METHODS,
    expected_kept,
    gate_parameters,
    harden,
    keep_mask,
    kept_parameters,
    penalty,
    project,
    prunable_parameters,
    sparse_layers,
)
from karui.sparse.flops import FlopCount
from karui.sparse.joint import join_gates
from karui.tasks.language_model import build_language_model
from karui.tasks.language_settings import LanguageModelSettings
from karui.tasks.settings import SparseSettings

H, V = 5, 11
IDS = torch.arange(12).view(6, 2) % V


def make(method, recurrent="lstm", groups=("weight", "input", "gate")):
    torch.manual_seed(0)
    settings = LanguageModelSettings(
        recurrent=recurrent, hidden_size=H, num_layers=1, tied=False, one_hot=True
    )
    target = {"target_density": 0.5} if method == "magnitude" else {}
    sparse = SparseSettings(method=method, groups=groups, **target)
    return build_language_model(torch.ones(V, dtype=torch.int64), settings, sparse)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("recurrent", "gates"), [("lstm", 4 * H), ("gru", 3 * H)])
def test_there_is_one_gate_for_both_and_masks_agree(method, recurrent, gates):
    model = make(method, recurrent)
    assert list(model.embedding.shared_gates()) == ["gate_l0"]
    assert model.recurrent.shared_gates() == {}
    gate = model.embedding.shared_gates()["gate_l0"]
    assert gate.units == (gates,)
    with torch.no_grad():
        for parameter in gate_parameters(model):
            parameter.add_(torch.randn_like(parameter))
    kept = project(model, keep=prunable_parameters(model) // 3)
    assert kept == kept_parameters(model) == prunable_parameters(model) // 3
    masks, closed = keep_mask(model), ~gate.keep_mask()
    assert not masks["embedding.weight"][:, closed].any()
    assert not masks["recurrent.weight_hh_l0"][closed].any()
    model.eval()
    with torch.no_grad():
        assert (harden(model)(IDS)[0] - model(IDS)[0]).abs().max() < 1e-6
        other = make(method, recurrent)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other.eval()(IDS)[0], model(IDS)[0])


def test_one_draw_serves_both_layers_and_each_step_has_a_new_one():
    model = make("l0", groups=("word", "gate")).train()
    table: Any = model.embedding
    [(gate, slot)] = table.lends
    base, seen = model.recurrent.base.weight_hh_l0.detach(), []
    for _ in range(3):
        table(IDS)
        drawn = slot.value.detach().clone()
        current = model.recurrent.current()["weight_hh_l0"].detach()
        assert torch.allclose(current, base * drawn[:, None])
        assert slot.value is None
        seen.append(drawn)
    assert not torch.equal(seen[0], seen[1])
    hidden, _ = model(IDS)
    hidden.square().sum().backward()
    assert gate.log_alpha.grad.count_nonzero() > 0
    copied = copy.deepcopy(model)
    assert copied.embedding.lends[0][1] is copied.recurrent.borrows[0][1] is not slot
    assert copied.embedding.lends[0][0] is copied.embedding.shared_gates()["gate_l0"]


def test_the_gate_counts_once_in_the_penalty_and_for_all_its_weights():
    model = make("vd")
    parts = [state.penalty(mean) for _, layer in sparse_layers(model) for _, mean, state in layer.states()]
    gate = model.embedding.shared_gates()["gate_l0"]
    assert float(penalty(model).detach()) == pytest.approx(float((sum(parts) + gate.penalty()).detach()))
    model = make("l0", groups=("gate", "word"))
    before = float(expected_kept(model).detach())
    gate = model.embedding.shared_gates()["gate_l0"]
    probability = float(gate.open_probability()[0].detach())
    with torch.no_grad():
        gate.log_alpha[0] = -10.0
    words = float(model.embedding.weights["weight"].row.open_probability().sum().detach())
    assert before - float(expected_kept(model).detach()) == pytest.approx(probability * (words + H), rel=1e-3)
    assert FlopCount.of_step(model).free_layers(model) == frozenset()


def test_what_cannot_share_is_refused():
    with pytest.raises(ValueError, match="one_hot with the group gate needs weight, word or dimension"):
        make("l0", groups=("input", "gate"))
    model = make("l0", groups=("weight",))
    with pytest.raises(ValueError, match="LSTM has no gate 'gate_l0' to share"):
        join_gates(model.embedding, model.recurrent, "gate_l0", METHODS["l0"]().gate)
