"""Trained language models become files that answer alike: every output layer, every recurrent layer."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from karui.compact.language import compact_language, model_log_probs, prove_language, to_language_spec
from karui.errors import UserError
from karui.runtime.language_format import FullOutput, encode_language_model
from karui.runtime.model import load_language_model
from karui.tasks.language_model import LanguageModel
from karui.tasks.language_settings import LanguageModelSettings

WORDS = ["the", "</s>", *(f"w{k}" for k in range(27)), "<unk>"]
EOS, UNK = 1, 29
FACTORISED = ("huffman", "class", "adaptive")
FLAT = ("full", "importance-target", "sampled", "nce", "negative", "blackout", "self-normalized")


def trained(**settings: Any) -> LanguageModel:
    """A model with weights drawn as large as training makes them; counts not sorted, some equal, some zero."""
    torch.manual_seed(0)
    counts = torch.tensor([(7 * k * k) % 31 for k in range(len(WORDS))]) ** 2
    options = {"cutoffs": [6, 15]} if settings.get("output") == "adaptive" else None
    sizes = {"hidden_size": 8, "num_samples": 5, "num_layers": 2, "output_options": options} | settings
    model = LanguageModel(counts, LanguageModelSettings(**sizes)).eval()
    with torch.no_grad():
        # the feedback of a Statistical Recurrent Unit is not bounded by a gate
        size = 0.02 if settings.get("recurrent") == "statistical-ru" else 0.4
        for parameter in model.parameters():
            parameter += size * torch.randn_like(parameter)
    return model


def lines(count: int = 60) -> list[str]:
    random = np.random.default_rng(1)
    return [" ".join(random.choice([*WORDS[2:], "other"], random.integers(0, 15))) for _ in range(count)]


def described(model: LanguageModel) -> Any:
    return to_language_spec(model, WORDS, eos=EOS, unk=UNK, tokenisation="blank-v1")


@pytest.mark.parametrize(
    ("output", "tied"), [*((name, True) for name in FLAT), *((name, False) for name in (*FACTORISED, "full"))]
)
def test_every_output_answers_alike(output: str, tied: bool) -> None:
    model = trained(output=output, tied=tied, embedding_dim=6)
    made = compact_language(described(model), lines(), model_log_probs(model, EOS), values="fp32")
    assert made.proof.tokens > 300
    assert made.proof.max_error <= 1e-5
    file = load_language_model(made.data)
    hidden, _ = model(torch.tensor([[EOS]]))
    wanted = model.output.log_prob(hidden)[0, 0].detach().exp().numpy()
    found = dict(file.next("", len(WORDS)))
    assert [found[word] for word in WORDS] == pytest.approx(wanted.tolist(), rel=1e-4)


@pytest.mark.parametrize("recurrent", ["sru", "lstm", "gru", "statistical-ru", "qrnn", "mingru"])
def test_every_layer_answers_alike(recurrent: str) -> None:
    model = trained(recurrent=recurrent, embedding_dim=5)
    made = compact_language(described(model), lines(), model_log_probs(model, EOS), values="int8")
    assert made.proof.max_error <= 1e-5
    assert [each.values for each in made.tried] == ["fp32", "int8"]
    assert made.chosen.values == "int8"
    assert made.chosen.change < 0.05


def test_values_are_chosen_by_the_perplexity() -> None:
    model = trained()
    spec, answer = described(model), model_log_probs(model, EOS)
    exact = compact_language(spec, lines(), answer, tolerance=0.0)
    assert exact.chosen.values == "fp32"
    half = compact_language(spec, lines(), answer, tolerance=1e-4)
    assert half.chosen.values == "fp16"
    assert half.chosen.change <= 1e-4
    assert compact_language(spec, lines(), answer, tolerance=0.1).chosen.values == "int8"
    sizes = [len(each.data) for each in half.tried]
    assert sizes == sorted(sizes, reverse=True)
    assert compact_language(spec, lines(), answer, max_bytes=sizes[0]).chosen.values == "fp32"
    assert compact_language(spec, lines(), answer, max_bytes=sizes[0] - 1).chosen.values == "fp16"
    with pytest.raises(UserError, match=rf"no file of {sizes[2] - 1:,} bytes: the smallest has {sizes[2]:,}"):
        compact_language(spec, lines(), answer, max_bytes=sizes[2] - 1)
    with pytest.raises(UserError, match=r"no file of 100 bytes: with fp16 values it has"):
        compact_language(spec, lines(), answer, max_bytes=100, values="fp16")


def test_by_default_a_thousandth_of_the_perplexity_may_change() -> None:
    """int8 changes that of this model by more than the four digits that were once asked for."""
    model = trained()
    made = compact_language(described(model), lines(), model_log_probs(model, EOS))
    assert made.chosen.values == "int8"
    assert 5e-5 < made.chosen.change <= 1e-3


def test_without_held_out_text_the_special_lines_are_compared() -> None:
    model = trained()
    assert compact_language(described(model), [], model_log_probs(model, EOS)).proof.tokens == 7


def test_a_changed_weight_is_found() -> None:
    model = trained()
    spec = described(model)
    output = spec.output
    assert isinstance(output, FullOutput)
    changed = replace(
        spec, output=FullOutput(output.weight, output.bias + np.eye(30, dtype=np.float32)[4] * 0.01)
    )
    with pytest.raises(
        UserError, match=r"not written: the file's log-probabilities differ from the model's by .*e-"
    ):
        compact_language(changed, lines(), model_log_probs(model, EOS))
    ids = np.arange(5)
    with pytest.raises(UserError, match="not written"):
        prove_language(encode_language_model(spec), ids, np.full(5, np.nan))


def test_what_cannot_be_described() -> None:
    with pytest.raises(ValueError, match="words must be 30 for this model, got 3"):
        to_language_spec(trained(), WORDS[:3], eos=EOS, unk=UNK, tokenisation="blank-v1")
    model = trained()
    with torch.no_grad():
        model.embedding.weight[3, 2] = math.nan
    with pytest.raises(UserError, match=r"embedding.weight holds NaN or infinity"):
        described(model)
