"""The language model: shapes, tying, dropouts, first values, every layer and every output."""

import math

import pytest
import torch

from karui.nn.registry import RECURRENT
from karui.output.registry import OUTPUTS
from karui.tasks.language_model import FACTORISED, LanguageModel, word_mask
from karui.tasks.language_settings import LanguageModelSettings

COUNTS = torch.tensor([9, 7, 5, 5, 3, 2, 2, 1, 1, 0, 4, 6])
V, T, B = len(COUNTS), 5, 3
IDS = torch.randint(0, V, (T, B), generator=torch.Generator().manual_seed(1))


def model(**settings):
    torch.manual_seed(0)
    values = {"hidden_size": 8, "num_layers": 2, "num_samples": 4, **settings}
    return LanguageModel(COUNTS, LanguageModelSettings(**values))


@pytest.mark.parametrize("recurrent", RECURRENT)
def test_every_layer_carries_its_state(recurrent):
    made = model(recurrent=recurrent).eval()
    hidden, _ = made(IDS)
    assert hidden.shape == (T, B, 8)
    first, state = made(IDS[:2])
    second, _ = made(IDS[2:], state)
    torch.testing.assert_close(torch.cat([first, second]), hidden)


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_trains_and_answers(output):
    made = model(output=output, tied=output not in FACTORISED)
    hidden, _ = made(IDS)
    made.output(hidden, IDS).backward()
    assert all(p.grad is not None for p in made.parameters())
    torch.testing.assert_close(made.output.log_prob(hidden).exp().sum(-1), torch.ones(T, B))


@pytest.mark.parametrize("output", sorted(FACTORISED))
def test_outputs_without_a_table_cannot_be_tied(output):
    with pytest.raises(ValueError, match=f"tied must be false for {output}"):
        model(output=output, tied=True)
    with pytest.raises(ValueError, match="output_finish must be of the family"):
        model(output=output, tied=False, output_finish="full")


def test_tied_table_is_one_parameter_with_a_projection_where_sizes_differ():
    made = model(hidden_size=6, embedding_dim=4)
    assert made.output.weight is made.embedding.weight
    assert made.projection.weight.shape == (4, 6)
    assert made(IDS)[0].shape == (T, B, 4)
    names = {name.partition(".")[0] for name, _ in made.named_parameters()}
    assert names == {"embedding", "recurrent", "projection", "output"}
    loose = model(hidden_size=6, embedding_dim=4, tied=False)
    assert loose.output.weight.shape == (V, 6)
    assert loose.projection is None


def test_the_finishing_output_shares_every_number():
    made = model(output="sampled", output_finish="full")
    finish = made.output_of(finish=True)
    assert finish is not made.output
    assert finish.weight is made.embedding.weight
    assert finish.bias is made.output.bias
    assert made.output_of(finish=False) is made.output
    assert set(made.state_dict()) == set(model(output="sampled").state_dict())
    assert set(made.state_dict()) == set(model(output="full").state_dict())  # the family shares its names
    hidden, _ = made(IDS)
    torch.testing.assert_close(finish(hidden, IDS), made.output.nll(hidden, IDS))


def test_first_values():
    table = model(hidden_size=12).embedding.weight
    assert table.abs().max() <= 0.5  # sqrt(3 / 12)
    assert table.abs().max() > 0.4
    assert model(embedding_init="uniform").embedding.weight.abs().max() <= 0.1
    share = COUNTS.clamp(min=1) / COUNTS.clamp(min=1).sum()
    torch.testing.assert_close(model().output.bias.exp(), share)
    torch.testing.assert_close(
        model(output="nce", output_options={"log_z_init": 2.0}).output.bias.exp(), share * math.exp(2.0)
    )


def test_word_mask_takes_all_occurrences_of_a_word():
    torch.manual_seed(3)
    ids = torch.randint(0, 500, (40, 20))
    mask = word_mask(ids, 0.25, torch.zeros(()))
    assert mask.shape == (40, 20, 1)
    for word in ids.unique():
        assert len(mask[ids == word].unique()) == 1
    values = torch.tensor([mask[ids == word].flatten()[0] for word in ids.unique()])
    assert values.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert abs(float((values == 0).float().mean()) - 0.25) < 4 * (0.25 * 0.75 / len(values)) ** 0.5


@pytest.mark.parametrize("shared", [True, False])
def test_masks_of_input_and_output(shared):
    made = model(shared_masks=shared, output_dropout=0.5, hidden_size=64)
    hidden, _ = made(IDS)
    dropped = (hidden == 0).float()
    same = bool((dropped == dropped[:1]).all())
    assert same == shared
    assert 0.3 < float(dropped.mean()) < 0.7
    assert not (made.eval()(IDS)[0] == 0).any()


@pytest.mark.parametrize(
    "name", ["word_dropout", "input_dropout", "output_dropout", "dropout", "recurrent_dropout"]
)
def test_dropouts_act_in_training_only(name):
    made = model(**{name: 0.5})
    plain = model()
    assert torch.equal(made.eval()(IDS)[0], made(IDS)[0])
    if name not in {"recurrent_dropout", "dropout"}:  # these two also scale the first weights
        torch.testing.assert_close(made(IDS)[0], plain.eval()(IDS)[0])
    made.train()
    assert not torch.equal(made(IDS)[0], made(IDS)[0])


def test_sru_options_reach_the_layer():
    made = model(variant="v1", highway_bias=-3.0, layer_norm="pre", rescale=False)
    assert made.recurrent.variant == "v1"
    assert not any("weight_c" in name for name, _ in made.recurrent.named_parameters())
    model(recurrent="lstm", layer_norm="none")
    with pytest.raises(ValueError, match="gate_bias must be none"):
        model(recurrent="statistical-ru", gate_bias=1.0)


def test_settings_out_of_range():
    for wrong in ({"word_dropout": 1.0}, {"num_samples": 0}, {"finish_share": 1.5}, {"embedding_dim": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LanguageModelSettings(**wrong)


def test_a_large_vocabulary_has_sparse_gradients(monkeypatch):
    monkeypatch.setattr("karui.tasks.language_model.SPARSE_CLASSES", 10)
    torch.manual_seed(0)
    made = model(output="sampled", word_dropout=0.2)
    assert made.embedding.sparse
    hidden, _ = made(IDS)
    hidden.sum().backward()
    assert made.embedding.weight.grad.is_sparse
