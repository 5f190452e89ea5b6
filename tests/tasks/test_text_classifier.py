"""The text classifier: its equation by hand, and what padding, order of the batch and unknown words may change."""

from typing import Any

import pytest
import torch
from torch import Tensor

from karui.nn.registry import RECURRENT
from karui.tasks.classification import build_model
from karui.tasks.settings import ModelSettings, SparseSettings
from karui.tasks.text_classifier import POOLINGS, TextClassifier

LENGTHS = torch.tensor([6, 3, 1])


def documents() -> Tensor:
    ids = torch.randint(1, 12, (3, 6), generator=torch.Generator().manual_seed(3))
    return ids * (torch.arange(6) < LENGTHS[:, None])


def build(**options: Any) -> TextClassifier:
    torch.manual_seed(1)
    model = TextClassifier(11, options.pop("n_classes", 3), embedding_dim=4, hidden_size=5, **options).eval()
    with torch.no_grad():
        model.embedding.weight[1:].normal_()
    return model


@pytest.mark.parametrize("recurrent", RECURRENT)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("directions", [1, 2])
def test_each_text_alone_gives_the_numbers_it_has_in_a_batch(
    recurrent: str, pooling: str, directions: int
) -> None:
    model, ids = build(recurrent=recurrent, pooling=pooling, directions=directions), documents()
    together = model(ids, LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        alone = model(ids[b : b + 1, :n], torch.tensor([n]))
        assert (alone[0] - together[b]).abs().max() < 1e-5


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_and_scores_by_hand(pooling: str) -> None:
    model, ids = build(pooling=pooling), documents()
    together = model(ids, LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        rows = model.embedding.weight[ids[b, :n]]
        h, _ = model.recurrent(rows[:, None, :4])
        h = h[:, 0]
        pooled = {
            "last": torch.cat([h[-1, :5], h[0, 5:]]),
            "mean": h.mean(0),
            "max": h.amax(0),
            "mean+max": torch.cat([h.mean(0), h.amax(0)]),
        }[pooling]
        expected = model.output(pooled) + rows[:, 4:].sum(0) / n**0.5
        assert (together[b] - expected).abs().max() < 1e-5


def test_two_classes_take_one_output() -> None:
    model = build(n_classes=2)
    assert model(documents(), LENGTHS).shape == (3, 1)
    assert model.embedding.weight.shape == (12, 5)


def test_without_recurrence_it_is_the_linear_model() -> None:
    model, ids = build(recurrent="none"), documents()
    rows = model.embedding.weight[ids]
    expected = rows.sum(1) / LENGTHS[:, None] ** 0.5 + model.output_bias
    assert (model(ids, LENGTHS) - expected).abs().max() < 1e-6


def test_unknown_words_advance_the_state_with_zero() -> None:
    model = build(word_scores=False)
    short, long = torch.tensor([[3, 4]]), torch.tensor([[3, 0, 4]])
    assert (model(short, torch.tensor([2])) - model(long, torch.tensor([3]))).abs().max() > 1e-4
    assert model.embedding.weight[0].count_nonzero() == 0


def test_word_dropout_replaces_words_by_the_zero_row() -> None:
    model = build(recurrent="none", word_dropout=0.5).train()
    ids = torch.arange(1, 11).repeat(400, 1)
    seen = torch.stack([model(ids, torch.full((400,), 10)) for _ in range(5)]).mean((0, 1))
    full = model.eval()(ids[:1], torch.tensor([10]))[0]
    assert ((seen - 0.5 * full).abs() < 0.15).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 1}, "n_classes must be at least 2, got 1"),
        ({"pooling": "sum"}, "pooling must be one of .* got 'sum'"),
        ({"recurrent": "rnn"}, "recurrent must be one of .* got 'rnn'"),
        ({"recurrent": "none", "word_scores": False}, "leaves nothing to learn from"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_settings_reach_the_layer() -> None:
    def layer(**choices: Any) -> Any:
        model = build_model(11, 3, ModelSettings(**choices), SparseSettings())
        return model.recurrent

    statistical = layer(
        recurrent="statistical-ru", num_stats=7, recur_size=0, alphas=(0.5,), learn_alphas=True
    )
    assert (statistical.num_stats, statistical.recur_size, statistical.alphas) == (7, 0, (0.5,))
    assert statistical.learn_alphas
    assert statistical.activation == "relu", "the activation of the settings is sru's"
    assert layer(recurrent="qrnn", window=2).window == 2
    assert layer(activation="relu").activation == "relu"
    for wrong in ({"num_stats": 0}, {"recur_size": -1}, {"alphas": ()}, {"alphas": (1.5,)}, {"window": 3}):
        [name] = wrong
        with pytest.raises(ValueError, match=f"{name} must be"):
            ModelSettings(**wrong)
