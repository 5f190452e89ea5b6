"""The rivals: what they reach, that their bytes are real, and that the decoded file answers as the fitted one."""

import json
import random
import types
from pathlib import Path

import numpy as np
import pytest

from karui.report.schema import load_run
from karui.tasks import baseline, fasttext_baseline, linear_baseline
from karui.tasks.linear_file import LinearModel, best_label, code_ngrams, decode, encode, quantize
from karui.tasks.ngrams import NgramIndex, scaled

GOOD, BAD = ["great", "superb", "lovely", "fine"], ["awful", "dull", "poor", "weak"]
FILLER = ["film", "the", "a", "plot", "with", "actor", "scene", "music", "and", "it's", "été", "東"]


def part(texts, labels, names):
    return types.SimpleNamespace(texts=texts, labels=np.array(labels), label_names=names)


def reviews(n, seed, *, classes=2, noise=0.05):
    """Texts whose label hangs on words in any order; for two classes "not" before a word turns it round."""
    rng = random.Random(seed)
    groups = [BAD, GOOD, ["goal", "match"], ["bank", "share"]][:classes]
    texts, labels = [], []
    for _ in range(n):
        label = rng.randrange(classes)
        flipped = classes == 2 and rng.random() < 0.4
        word = rng.choice(groups[1 - label if flipped else label])
        clue = f"not {word}" if flipped else word
        texts.append(
            " ".join([*rng.choices(FILLER, k=rng.randrange(3, 12)), clue, *rng.choices(FILLER, k=4)])
        )
        labels.append(rng.randrange(classes) if rng.random() < noise else label)
    names = ["neg", "pos", "sport", "trade"][:classes]
    return part(texts, labels, names)


def make_splits(classes=2, n=600):
    parts = [reviews(size, seed, classes=classes) for seed, size in enumerate((n, 200, 300))]
    return types.SimpleNamespace(train=parts[0], valid=parts[1], test=parts[2])


@pytest.fixture(scope="module")
def splits():
    return make_splits()


@pytest.fixture(scope="module")
def points(splits):
    return baseline.linear_points(splits, max_bytes=[60, 120, 400], seed=0)


def test_the_linear_model_reaches_what_it_must(points):
    assert [point.artifact_bytes for point in points] == sorted(point.artifact_bytes for point in points)
    assert all(point.artifact_bytes <= 400 for point in points)
    # "not great" needs pairs of words: single words stay near 60 %, and the noise leaves about 97.5 %
    accuracies = [point.test_accuracy or 0.0 for point in points]
    assert accuracies[-1] > 0.94
    assert accuracies[0] < accuracies[-1]
    assert points[-1].us_per_document > 0


def test_points_say_what_their_bytes_do(splits):
    """The figure of a point equals that of its decoded bytes on raw texts, and the bytes are the file's length."""
    path = linear_baseline.LinearPath(splits.train, splits.valid, seed=0)
    candidates = list(path.candidates(max_bytes=300))
    chosen = linear_baseline.pick(candidates, [150, 300])
    counted = path.index.counts(splits.test.texts)
    for candidate in chosen:
        model = decode(candidate.data)
        by_text = float((model.predict(splits.test.texts) == splits.test.labels).mean())
        assert path.accuracy(candidate.data, *counted, splits.test.labels) == by_text
        valid = float((model.predict(splits.valid.texts) == splits.valid.labels).mean())
        assert candidate.valid_accuracy == pytest.approx(valid, abs=1e-9)
        assert len(model.ngrams) == candidate.settings["ngrams"]
        assert encode(model) == candidate.data


@pytest.mark.parametrize("classes", [3, 4])
def test_more_than_two_labels(classes):
    splits = make_splits(classes, n=400)
    points = baseline.linear_points(splits, max_bytes=[2000], seed=0)
    assert len(points) == 1
    assert (points[0].test_accuracy or 0.0) > 0.9


def test_each_budget_gets_the_file_that_is_best_on_validation():
    made = [
        linear_baseline.Candidate(bytes(size), accuracy)
        for size, accuracy in [(10, 0.6), (12, 0.7), (14, 0.7), (20, 0.65), (30, 0.9)]
    ]
    picked = linear_baseline.pick(made, [5, 11, 20, 25, 100])
    assert [(len(one.data), one.valid_accuracy) for one in picked] == [(10, 0.6), (12, 0.7), (30, 0.9)]


def test_a_set_without_test_split_or_with_one_label():
    splits = make_splits(n=200)
    splits.test = None
    points = baseline.baselines(splits, max_bytes=[500], seed=0, fasttext=False)
    assert points[0].test_accuracy is None
    assert points[0].valid_accuracy > 0.8
    splits.train.labels[:] = 1
    assert baseline.baselines(splits, seed=0, fasttext=False) == []


def test_a_label_that_the_train_split_lacks():
    train = reviews(300, 0, classes=3)
    keep = [k for k, label in enumerate(train.labels) if label != 1]
    lacking = part([train.texts[k] for k in keep], train.labels[keep], train.label_names)
    splits = types.SimpleNamespace(
        train=lacking, valid=reviews(100, 1, classes=3), test=reviews(200, 2, classes=3)
    )
    (point,) = baseline.linear_points(splits, max_bytes=[2000], seed=0)
    assert 0.5 < (point.test_accuracy or 0.0) < 0.75  # the two labels it knows, and nothing else


def test_saved_points_are_read_back_by_the_report(points, tmp_path):
    (tmp_path / "config.json").write_text('{"name": "x"}')
    baseline.save_baselines(tmp_path, points, seed=3)
    saved = load_run(tmp_path).baselines
    assert saved is not None
    assert saved["seed"] == 3
    assert saved["points"][-1]["artifact_bytes"] == points[-1].artifact_bytes
    assert saved["notes"][0].startswith("fastText: not ")
    assert json.loads((tmp_path / "baselines.json").read_text())["points"][0]["name"] == baseline.LINEAR


def hand_made(classes=2):
    n_scores = 1 if classes == 2 else classes
    ngrams = sorted(["film", "not great", "great", "été", "東", "don't", "a", "!"])
    weights = np.random.default_rng(0).integers(-127, 128, (len(ngrams), n_scores)).astype(np.int8)
    labels = [f"label {k}" for k in range(classes)]
    return LinearModel(ngrams, weights, 0.0125, np.linspace(-1, 1, n_scores, dtype=np.float32), labels, 0.25)


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_the_file_holds_everything(classes):
    model = hand_made(classes)
    read = decode(encode(model))
    assert (read.ngrams, read.labels, read.length_power) == (model.ngrams, model.labels, model.length_power)
    assert np.array_equal(read.weights, model.weights)
    assert read.scale == pytest.approx(model.scale, rel=1e-7)
    assert np.array_equal(read.bias, model.bias)


def test_no_ngrams_is_a_file_too():
    model = LinearModel([], np.zeros((0, 1), np.int8), 1.0, np.array([0.5], np.float32), ["a", "b"], 0.0)
    assert decode(encode(model)).predict(["anything", ""]).tolist() == [1, 1]


def test_a_score_by_hand():
    model = LinearModel(
        ["great", "not great"],
        np.array([[100], [-120]], np.int8),
        0.01,
        np.array([0.1], np.float32),
        ["n", "p"],
        0.5,
    )
    words = 5
    great, not_great = 1.0 * (1 + np.log(2)), -1.2
    assert model.logits(["Great, not GREAT at all"])[0, 0] == pytest.approx(
        (great + not_great) / words**0.5 + 0.1
    )
    assert model.logits([""])[0, 0] == pytest.approx(0.1)


def test_packing_is_tight():
    """A sorted list of like words takes well under half of its text."""
    ngrams = sorted(
        f"{stem}{end}" for stem in ("act", "direct", "watch", "play") for end in ("", "ed", "ing", "or", "s")
    )
    assert len(code_ngrams(ngrams)[1]) < 0.45 * len("\n".join(ngrams))


def test_rounding_keeps_within_half_a_step():
    weights = np.random.default_rng(0).normal(size=(50, 3))
    rounded, scale = quantize(weights, 31)
    assert rounded.dtype == np.int8
    assert np.abs(rounded).max() == 31
    assert np.abs(rounded * scale - weights).max() <= scale / 2 * (1 + 1e-6)
    assert quantize(np.zeros((2, 1)), 127)[0].tolist() == [[0], [0]]


def test_counts_of_words_and_pairs():
    texts = ["a b a", "b a", "rare", "", "a rare b"]
    index = NgramIndex(texts, min_documents=2)
    names = index.names(np.arange(len(index)))
    assert sorted(names) == ["a", "b", "b a", "rare"]  # "a b" is in one text only, "a rare b" holds no "a b"
    assert index.columns(names).tolist() == list(range(len(index)))
    counts, lengths = index.counts(["a b a b a unseen", "b"])
    assert dict(zip(names, counts.toarray()[0], strict=True)) == {"a": 3, "b": 2, "b a": 2, "rare": 0}
    assert lengths.tolist() == [6, 1]
    assert scaled(counts, lengths, 0.5)[0, names.index("a")] == pytest.approx((1 + np.log(3)) / 6**0.5)
    with pytest.raises(KeyError, match="not in the index"):
        index.columns(["b rare"])
    with pytest.raises(ValueError, match="min_documents must be at least 1, got 0"):
        NgramIndex(texts, min_documents=0)


def test_the_path_begins_where_features_begin(splits):
    """Below `smallest_c` the L1 fit keeps nothing of any label, well above it something."""
    index = NgramIndex(splits.train.texts, min_documents=2)
    features = scaled(*index.counts(splits.train.texts), 0.0)
    least = linear_baseline.smallest_c(features, splits.train.labels, 2)
    kept = [
        np.count_nonzero(linear_baseline.fit_l1(features, splits.train.labels, 2, least * factor, 0)[0])
        for factor in (0.5, 5)
    ]
    assert kept[0] == 0
    assert kept[1] > 3


def test_best_label():
    assert best_label(np.array([[-1.0], [0.0], [2.0]])).tolist() == [0, 0, 1]
    assert best_label(np.array([[0.0, 2.0, 1.0]])).tolist() == [1]


class FakeFasttext:
    """Stands for the `fasttext` module: learns nothing, answers __label__1, writes files as large as the cut-off."""

    class Model:
        def __init__(self, size=9):
            self.size = size
            self.f = types.SimpleNamespace(predict=lambda *_: [(1.0, "__label__1")])

        def quantize(self, _path, *, cutoff, **_):
            self.size = cutoff

        def save_model(self, path):
            with Path(path).open("wb") as file:
                file.write(bytes(self.size))

        def test(self, path):
            with Path(path).open(encoding="utf-8") as file:
                lines = [line.split() for line in file]
            answered = [line for line in lines if len(line) > 1]  # fastText skips a line without words
            right = sum(line[0] == "__label__1" for line in answered)
            return len(answered), right / max(len(answered), 1), 0.0

    FastText = types.SimpleNamespace(eprint=None)

    def train_supervised(self, path, **settings):
        if settings["dim"] == 4:
            raise RuntimeError("Encountered NaN.")
        with Path(path).open(encoding="utf-8") as file:
            self.order = [line.split()[0] for line in file]
        return self.Model()

    def load_model(self, path):
        with Path(path).open("rb") as file:
            return self.Model(len(file.read()))


def test_fasttext_reads_the_same_words_and_counts_every_document(monkeypatch):
    fake = FakeFasttext()
    monkeypatch.setattr(fasttext_baseline.importlib, "import_module", lambda _: fake)
    sorted_by_label = part(["Good it's!"] * 30 + ["BAD"] * 30, [1] * 30 + [0] * 30, ["neg", "pos"])
    valid = part(["good", "bad", "..."], [1, 0, 1], ["neg", "pos"])  # the last has no word: counts as wrong
    splits = types.SimpleNamespace(train=sorted_by_label, valid=valid, test=None)
    points = baseline.fasttext_points(splits, max_bytes=[500, 1200, 2600], seed=0)
    assert [point.artifact_bytes for point in points] == [
        300
    ]  # equal on validation: the smallest stands for all
    assert points[0].valid_accuracy == pytest.approx(1 / 3)
    assert points[0].test_accuracy is None
    assert len(set(fake.order[:30])) == 2, "a set sorted by label must be shuffled"


def test_fasttext_absent_is_a_line(monkeypatch):
    monkeypatch.setattr(baseline, "installed", lambda: False)
    assert baseline.fasttext_note() == "fastText: not installed"
