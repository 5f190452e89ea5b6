"""A run of `karui train lm` read back: figures of a text, and text from a prompt."""

import json

import numpy as np
import pytest
import torch

from karui.cli.language_runs import open_language_run
from karui.compact.language import to_language_spec
from karui.errors import UserError
from karui.recipes.base import save
from karui.recipes.language import LanguageRecipe
from karui.runtime.language import LanguageModel as RuntimeModel
from karui.runtime.language_tokens import END, join_tokens
from karui.tasks.language_settings import LanguageData, LanguageModelSettings
from karui.train import TrainSettings, fit
from tests.support.language_sets import task

MODEL = {"hidden_size": 8, "num_layers": 1, "num_samples": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    settings = TrainSettings(max_epochs=2, lr=0.02, monitor="nll", threads=1)
    made = task()
    made.save_artifacts(folder)
    recipe = LanguageRecipe(
        data=LanguageData(name="tiny"), model=LanguageModelSettings(**MODEL), train=settings
    )
    save(recipe, folder / "config.json")
    fit(made, settings, folder, quiet=True, tensorboard=False)
    return folder, made


def lines_of(made, split):
    text = " ".join(made.corpus.words[k] for k in made.corpus.split(split))
    return [line.strip() for line in text.split(END)]


def test_figures_are_those_of_the_task(run):
    folder, made = run
    found = open_language_run(folder)[0].perplexity(lines_of(made, "test"))
    # the last line has no end in the part, but one in a text: the same tokens and one more
    assert found.tokens == len(made.corpus.test) + 1
    whole = np.append(made.corpus.test, np.int32(made.corpus.eos))
    with torch.no_grad():
        stream = torch.from_numpy(np.append(np.int32(made.corpus.eos), whole)).long().unsqueeze(1)
        hidden, _ = made.model(stream[:-1])
        expected = float(made.model.output.nll(hidden, stream[1:], reduction="sum"))
    assert -found.log_prob == pytest.approx(expected, rel=1e-6)
    assert found.oovs == 0
    assert found.perplexity == found.perplexity_without_oovs


def test_words_outside_the_list_are_counted_and_weighed_apart(run):
    model = open_language_run(run[0])[0]
    found = model.perplexity(["a b zebra", "<unk>"])
    assert (found.tokens, found.oovs, found.lines) == (6, 1, 2)  # a written <unk> is in the list
    log_prob = model.model.output.log_prob(
        model.model(torch.tensor([[0], [1], [2], [11], [0], [11]]))[0]
    ).detach()[:, 0]
    each = log_prob.gather(1, torch.tensor([[1], [2], [11], [0], [11], [0]])).flatten()
    assert found.log_prob == pytest.approx(float(each.sum()), rel=1e-6)
    assert found.log_prob_of_oovs == pytest.approx(float(each[2]), rel=1e-6)
    assert found.perplexity_without_oovs == pytest.approx(
        float(torch.exp(-(each.sum() - each[2]) / 5)), rel=1e-5
    )


def test_no_text(run):
    with pytest.raises(UserError, match="there is no text to measure"):
        open_language_run(run[0])[0].perplexity([])


def test_temperature_zero_is_greedy_and_near_zero_too(run):
    model = open_language_run(run[0])[0]
    greedy = model.sample("a b", tokens=12, temperature=0)
    ids, state = torch.tensor([[0], [1], [2]]), None
    words = []
    for _ in range(12):
        hidden, state = model.model(ids, state)
        ids = model.model.output.predict(hidden[-1:])
        words.append(model.words[int(ids)])
    assert greedy == join_tokens(words, "blank-v1")
    assert model.sample("a b", tokens=12, temperature=1e-4, seed=5) == greedy
    assert model.sample("a b", tokens=12, top_k=1, seed=3) == greedy


def test_samples_follow_the_seed_the_prompt_and_top_k(run):
    model = open_language_run(run[0])[0]
    texts = {model.sample("a", tokens=30, seed=seed) for seed in (0, 1, 2)}
    assert len(texts) == 3
    assert model.sample("a", tokens=30, seed=1) in texts
    hidden, _ = model.model(torch.tensor([[0], [1]]))
    best = {model.words[k] for k in model.model.output.topk(hidden[-1, 0], 2)[1].tolist()}
    drawn = {model.sample("a", tokens=1, top_k=2, temperature=3.0, seed=seed) for seed in range(40)}
    assert drawn == {word.replace(END, "\n") for word in best}
    assert model.sample("a", tokens=0) == ""


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_k": 3}, {"temperature": 0.5}])
def test_a_run_and_its_file_say_the_same(run, options):
    trained = open_language_run(run[0])[0]
    spec = to_language_spec(
        trained.model,
        trained.words,
        eos=trained.eos,
        unk=trained.unk,
        tokenisation=trained.tokenisation,
        lower=trained.lower,
    )
    file = RuntimeModel(spec)
    for seed in range(3):
        expected = trained.sample("a b\nc", tokens=20, seed=seed, **options)
        assert file.sample("a b\nc", tokens=20, seed=seed, **options) == expected
    lines = ["a b c zebra", "", "d"]
    ours, theirs = trained.perplexity(lines), file.perplexity(lines)
    assert theirs[2:] == ours[2:]
    assert theirs.log_prob == pytest.approx(ours.log_prob, rel=1e-6)
    assert theirs.perplexity_without_oovs == pytest.approx(ours.perplexity_without_oovs, rel=1e-6)


def test_draws_have_the_model_s_probabilities(run):
    model = open_language_run(run[0])[0]
    hidden, _ = model.model(torch.tensor([[0], [3]]))
    expected = model.model.output.log_prob(hidden[-1, 0]).exp().detach().double().numpy()
    random = np.random.default_rng(0)
    count = 3000
    with torch.no_grad():
        drawn = [model._draw(hidden[-1, 0], random.random(), 1.0, 0) for _ in range(count)]
    found = np.bincount(drawn, minlength=len(expected)) / count
    assert np.abs(found - expected).max() < 4.5 * np.sqrt(0.25 / count)


@pytest.mark.parametrize(
    "wrong", [{"tokens": -1}, {"temperature": -0.5}, {"top_k": 13}, {"temperature": float("nan")}]
)
def test_sample_refuses(run, wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"^{name} must be"):
        open_language_run(run[0])[0].sample("a", **wrong)


def test_damaged_folders(run, tmp_path):
    with pytest.raises(UserError, match="there is no"):
        open_language_run(tmp_path)
    config = (run[0] / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(UserError, match="no readable vocabulary"):
        open_language_run(tmp_path)
    kept = json.loads((run[0] / "vocabulary.json").read_text(encoding="utf-8"))
    (tmp_path / "vocabulary.json").write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(UserError, match="holds no finished run"):
        open_language_run(tmp_path)
