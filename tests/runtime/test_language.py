"""The engine of language models against its equations in float64, and what the model tells about texts."""

import copy
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import karui
from karui.errors import ArtifactError, UserError
from karui.runtime.language import LanguageModel
from karui.runtime.language_format import FullOutput, LanguageModelSpec, TreeOutput, encode_language_model
from karui.runtime.language_tokens import END
from karui.runtime.layers import KINDS
from tests.runtime.language_specs import OUTPUTS, expected_log_probs, random_model

ALLOWED = 2e-5


def scored(spec: LanguageModelSpec, ids: list[int]) -> np.ndarray:
    """Log-probability of each id after those before it."""
    return LanguageModel(spec).stream().score_ids(np.asarray(ids, np.int32))


def wanted_scores(spec: LanguageModelSpec, ids: list[int]) -> np.ndarray:
    return expected_log_probs(spec, ids)[np.arange(len(ids)), ids]


def random_ids(spec: LanguageModelSpec, length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, len(spec.words), length).tolist()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_engine_equals_the_equations(kind: str, output: str) -> None:
    for seed, (layers, projection) in enumerate([(1, None), (2, 6), (0, None)]):
        spec = random_model(kind, output, layers=layers, projection=projection, seed=seed)
        for length in (1, 2, 29):
            ids = random_ids(spec, length)
            assert np.abs(scored(spec, ids) - wanted_scores(spec, ids)).max() <= ALLOWED
        stream = LanguageModel(spec).stream()
        for number in ids[:3]:
            stream.feed_id(number)
        assert np.abs(stream.log_probs() - expected_log_probs(spec, ids)[3]).max() <= ALLOWED
        assert abs(np.exp(stream.log_probs().astype(float)).sum() - 1) <= 1e-5


@pytest.mark.parametrize(("hidden", "width"), [(16, 1), (33, 40), (1, 17)])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind: str, hidden: int, width: int) -> None:
    spec = random_model(kind, hidden=hidden, width=width, layers=2, seed=1)
    ids = random_ids(spec, 15)
    assert np.abs(scored(spec, ids) - wanted_scores(spec, ids)).max() <= ALLOWED


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_without_columns_reads_as_zeros(kind: str) -> None:
    """The engine once took it for a table that the output shares, and wrote its rows over its memory."""
    spec = random_model(kind, width=1, layers=2, seed=1)
    spec.embedding[:] = 0.0
    wanted = scored(spec, random_ids(spec, 15))
    direction = spec.layers[0].directions[0]
    direction.weight_ih = direction.weight_ih[:, :0]
    assert np.array_equal(
        scored(replace(spec, embedding=spec.embedding[:, :0]), random_ids(spec, 15)), wanted
    )


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_are_read_in_blocks(kind: str) -> None:
    spec = random_model(kind, layers=2, seed=1)
    ids = random_ids(spec, 600)
    whole = scored(spec, ids)
    assert np.abs(whole - wanted_scores(spec, ids)).max() <= ALLOWED
    stream = LanguageModel(spec).stream()
    pieces = [stream.score_ids(np.asarray(ids[a:b])) for a, b in [(0, 1), (1, 257), (257, 257), (257, 600)]]
    assert np.abs(np.concatenate(pieces) - whole).max() <= 1e-6


@pytest.mark.parametrize("output", OUTPUTS)
def test_more_words_than_a_block(output: str) -> None:
    spec = random_model("sru", output, n_words=3000, seed=2)
    ids = random_ids(spec, 9)
    assert np.abs(scored(spec, ids) - wanted_scores(spec, ids)).max() <= ALLOWED
    two = LanguageModel(spec).stream(threads=2).score_ids(np.asarray(ids))
    assert two.tolist() == scored(spec, ids).tolist()


def test_one_word() -> None:
    nothing = np.zeros((0, 6), np.float32)
    for output in (
        FullOutput(None, np.zeros(1, np.float32)),
        TreeOutput(np.zeros((0, 2), int), nothing, nothing[:, 0]),
    ):
        spec = random_model("sru", output="full")
        spec.words, spec.unk, spec.eos, spec.embedding, spec.output = (
            ["</s>"],
            None,
            0,
            spec.embedding[:1],
            output,
        )
        model = karui.load(encode_language_model(spec))
        assert model.score("").log_prob == 0.0
        assert model.next(k=1) == [(END, 1.0)]
        assert model.stream().log_probs().tolist() == [0.0]


@pytest.mark.parametrize("output", OUTPUTS)
def test_topk_equals_a_full_sort(output: str) -> None:
    spec = random_model("lstm", output, n_words=500, seed=3)
    stream = LanguageModel(spec).stream()
    for number in random_ids(spec, 20):
        log_prob = stream.log_probs()
        order = np.lexsort((np.arange(500), -log_prob))
        for k in (1, 7, 500):
            found = stream.topk(k)
            assert [word for word, _ in found][:5] == [spec.words[i] for i in order[:k]][:5]
            assert np.abs([p for _, p in found] - np.exp(log_prob[order[:k]])).max() <= 1e-6
        stream.feed_id(number)


def test_equal_words_are_ranked_by_id() -> None:
    spec = random_model("sru", n_words=12)
    spec.output = FullOutput(np.zeros((12, 6), np.float32), np.repeat([0.0, 1.0], 6).astype(np.float32))
    assert [word for word, _ in LanguageModel(spec).stream().topk(4)] == spec.words[6:10]


def test_a_stream_can_be_copied_and_reset() -> None:
    model = LanguageModel(random_model("qrnn", seed=1))
    stream = model.stream().feed("z0").feed("y1")
    other = copy.copy(stream)
    before = stream.log_probs()
    other.feed("y1").feed(END)
    assert stream.log_probs().tolist() == before.tolist()
    assert other.log_probs().tolist() != before.tolist()
    assert other.reset().feed("z0").feed("y1").log_probs().tolist() == before.tolist()
    assert stream.log_prob("y1") == pytest.approx(before[model.id_of("y1")])


def test_scores_of_a_text() -> None:
    model = LanguageModel(random_model("gru"))
    found = model.score("z0 y1\n\nnew z4")
    assert [each.token for each in found.tokens] == ["z0", "y1", END, END, "new", "z4", END]
    assert [each.is_known for each in found.tokens] == [True] * 4 + [False] + [True] * 2
    assert found.log_prob == pytest.approx(sum(each.log_prob for each in found.tokens))
    assert found.tokens[4].log_prob == pytest.approx(model.stream().feed_text("z0 y1\n\n").log_prob("<unk>"))
    assert model.score("") == model.score("\n")
    figures = model.perplexity(["z0 y1\n", "\n", "new z4"])
    assert (figures.tokens, figures.oovs, figures.lines) == (7, 1, 3)
    assert figures.log_prob == pytest.approx(found.log_prob)
    assert figures.perplexity == pytest.approx(math.exp(-found.log_prob / 7))
    known = found.log_prob - found.tokens[4].log_prob
    assert figures.perplexity_without_oovs == pytest.approx(math.exp(-known / 6))
    assert figures.bits_per_token == pytest.approx(-found.log_prob / 7 / math.log(2))


def test_without_a_word_for_unknown_ones_they_are_impossible() -> None:
    spec = random_model("sru")
    spec.unk = None
    model = LanguageModel(spec)
    found = model.score("z0 new y1")
    assert found.tokens[1].log_prob == -math.inf
    assert [each.log_prob for each in found.tokens if each.is_known] == pytest.approx(
        [each.log_prob for each in model.score("z0 y1").tokens]
    )
    figures = model.perplexity(["z0 new y1"])
    assert figures.perplexity == math.inf
    assert math.isfinite(figures.perplexity_without_oovs)
    assert model.stream().log_prob("new") == -math.inf
    assert math.isnan(LanguageModel(spec).perplexity(["new"])._replace(tokens=1).perplexity_without_oovs)


def test_figures_do_not_depend_on_how_lines_come(tmp_path: Path) -> None:
    model = LanguageModel(random_model("sru"))
    lines = [f"z{4 * (k % 9)} y1" for k in range(5000)]
    path = tmp_path / "text"
    path.write_text("\n".join(lines) + "\n")
    with path.open() as file:
        assert model.perplexity(file) == model.perplexity(iter(lines))
    with pytest.raises(UserError, match="there is no text to measure"):
        model.perplexity([])
    with pytest.raises(TypeError, match="lines must be several str"):
        model.perplexity("z0")


def test_next_words_after_a_text() -> None:
    model = LanguageModel(random_model("lstm", "tied"))
    assert model.next("z0 y1", 3) == model.stream().feed("z0").feed("y1").topk(3)
    assert model.next("z0\n", 3) == model.stream().feed("z0").feed(END).topk(3)
    assert model.next("", 3) == model.stream().topk(3)
    with pytest.raises(UserError, match="k must be from 1 to 40, the number of words, got 41"):
        model.next("z0", 41)


def test_sampling_follows_the_distribution() -> None:
    model = LanguageModel(random_model("sru", "adaptive", n_words=8))
    stream, random = model.stream(), np.random.default_rng(0)
    for temperature, top_k in ((1.0, 0), (0.5, 0), (2.0, 3)):
        counts = np.bincount(
            [stream.draw(random.random(), temperature=temperature, top_k=top_k) for _ in range(4000)],
            minlength=8,
        )
        shares = np.exp(stream.log_probs().astype(float) / temperature)
        if top_k:
            shares[np.argsort(-shares)[top_k:]] = 0.0
        wanted = 4000 * shares / shares.sum()
        assert not counts[wanted == 0].any()
        chosen = wanted > 0
        assert (
            np.square(counts - wanted)[chosen] / wanted[chosen]
        ).sum() < 30  # chi-square, 7 degrees: 1 in 10,000
    assert stream.draw(0.3, temperature=0) == int(np.argmax(stream.log_probs()))


def test_samples() -> None:
    model = LanguageModel(random_model("sru"))
    assert model.sample("z0", tokens=30, seed=4) == model.sample("z0", tokens=30, seed=4)
    assert model.sample("z0", tokens=30, seed=4) != model.sample("z0", tokens=30, seed=5)
    assert model.sample("z0", tokens=0) == ""
    greedy = model.sample("z0", tokens=3, temperature=0).replace("\n", f" {END} ").split()
    assert greedy[0] == model.next("z0", 1)[0][0]
    assert "\n" not in model.sample("z0", tokens=400, stop_at_end=True).removesuffix("\n")
    with pytest.raises(UserError, match="temperature must be finite and at least 0, got -1"):
        model.sample("z0", tokens=5, temperature=-1)
    with pytest.raises(UserError, match="top_k must be from 0 to 40"):
        model.sample("z0", top_k=41)


def test_characters() -> None:
    spec = random_model("sru", n_words=6, tokenisation="chars-v1")
    spec.words = ["a", "b", " ", "_", "<unk>", "</s>"]
    model = karui.load(encode_language_model(spec))
    assert [each.token for each in model.score("a b\n_").tokens] == ["a", " ", "b", END, "_", END]
    assert set(model.sample("a", tokens=50)) <= set("ab _\n<unk>")


def test_wrong_input() -> None:
    model = LanguageModel(random_model())
    with pytest.raises(TypeError, match="a text must be a str, got bytes"):
        model.score(b"z0")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"a word id must be in 0 .. 39, got 40"):
        model.stream().feed_id(40)
    with pytest.raises(ValueError, match="threads must be in"):
        model.stream(threads=0)


def test_answers_that_overflow_are_refused() -> None:
    spec = random_model("mingru")
    spec.embedding *= np.float32(1e30)
    spec.layers[0].directions[0].weight_ih *= np.float32(1e30)
    with pytest.raises(ArtifactError, match="not a finite number"):
        LanguageModel(spec).score("z0 y1")
    with pytest.raises(ArtifactError, match="not a finite number"):
        LanguageModel(spec).next("z0 y1")


def test_runs_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.karui"
    path.write_bytes(encode_language_model(random_model(seed=1), values="int8"))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import karui; model = karui.load(sys.argv[1])\n"
        "print(model.score('z0 y1').log_prob, model.sample('z0', tokens=5), model.next('z0', 2))"
    )
    environment = os.environ | {"KARUI_ISA_MAX": "generic"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, check=True, env=environment
    )
    assert float(done.stdout.split()[0]) == pytest.approx(karui.load(path).score("z0 y1").log_prob, abs=1e-4)


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_instruction_sets_agree(tmp_path: Path, isa: str) -> None:
    paths = []
    for number, output in enumerate(OUTPUTS):
        paths.append(tmp_path / f"{output}.karui")
        paths[-1].write_bytes(encode_language_model(random_model("lstm", output, n_words=70, seed=number)))
    code = (
        "import sys, karui; print([karui.load(path).score('z0 y1 x z4').log_prob for path in sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, check=True,
        env=os.environ | {"KARUI_ISA_MAX": isa},
    )  # fmt: skip
    found = [float(number) for number in done.stdout.decode().strip(" []\n").split(",")]
    assert found == pytest.approx([karui.load(path).score("z0 y1 x z4").log_prob for path in paths], abs=1e-4)
