"""The classification task: pure batches, soft targets, vocabulary from the training part alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from karui.data import Splits, TextDataset
from karui.errors import UserError
from karui.sparse import penalty
from karui.tasks.classification import (
    LINEAR_FILE,
    TEACHER_FILE,
    ClassificationTask,
    cross_entropy,
    load_linear,
    load_run_model,
    predictions,
)
from karui.tasks.settings import DataSettings, ModelSettings, SparseSettings
from karui.tasks.teacher import linear_teacher
from karui.train.settings import TrainSettings

GOOD, BAD = "a fine and lovely film", "a dull and awful film"


def splits(copies: int = 30) -> Splits:
    """Two classes told apart by one word each, and words that only valid and test know."""

    def part(extra: str, n: int) -> TextDataset:
        texts = [f"{GOOD} {extra} {i % 7}" for i in range(n)] + [f"{BAD} {extra} {i % 5}" for i in range(n)]
        return TextDataset(texts, np.repeat([1, 0], n), ["negative", "positive"], "toy")

    return Splits(
        part("", copies), part("validword", 8), part("testword", 8), ["negative", "positive"], "toy"
    )


def task(*, sparse: str = "vd", seed: int = 0, share: float = 0.0, **data: object) -> ClassificationTask:
    settings = DataSettings(name="toy", batch_size=16, **data)
    model = ModelSettings(embedding_dim=4, hidden_size=3, linear_share=share, linear_weights=20)
    return ClassificationTask(settings, model, SparseSettings(method=sparse), seed=seed, splits=splits())


def test_batches_are_a_pure_function_of_seed_epoch_and_step() -> None:
    one, two, other = task(), task(), task(seed=1)
    assert one.steps_per_epoch(0) == 4
    for step in (3, 0):  # any order
        assert all(torch.equal(a, b) for a, b in zip(one.batch(1, step), two.batch(1, step), strict=True))

    def order(t: ClassificationTask, epoch: int) -> torch.Tensor:
        return torch.cat([t.batch(epoch, s)[2] for s in range(4)])

    assert not torch.equal(order(one, 0), order(one, 1))
    assert not torch.equal(order(one, 0), order(other, 0))


def test_one_very_long_text_is_a_batch_of_its_own() -> None:
    parts = splits()
    parts.train.texts[3] = "long " * 100_000
    toy = ClassificationTask(
        DataSettings(name="toy", batch_size=16), ModelSettings(), SparseSettings(), seed=0, splits=parts
    )
    shapes = [toy.batch(0, step)[0].shape for step in range(toy.steps_per_epoch(0))]
    assert (1, 100_000) in shapes
    assert sum(shape[0] for shape in shapes) == 60
    assert max(shape[0] * shape[1] for shape in shapes if shape[0] > 1) < 1000


def test_vocabulary_never_sees_valid_or_test() -> None:
    words = set(task().vocabulary.words)
    assert "lovely" in words
    assert not words & {"validword", "testword"}


def test_it_learns_and_reports() -> None:
    torch.manual_seed(0)
    toy = task()
    optimizer = torch.optim.Adam(toy.parameter_groups(TrainSettings(lr=0.02)), lr=0.02)
    for epoch in range(25):
        for step in range(toy.steps_per_epoch(epoch)):
            optimizer.zero_grad()
            (toy.loss(toy.batch(epoch, step)) + 0.2 * toy.penalty() / toy.num_examples).backward()
            optimizer.step()
    toy.model.eval()
    with torch.no_grad():
        figures = {name: toy.evaluate(name) for name in ("valid", "test")}
    assert figures["valid"]["accuracy"] == figures["test"]["accuracy"] == 1.0
    assert figures["test"]["nll"] < 0.3
    assert 0 < toy.status()["density"] < 1
    assert 1 <= toy.status()["words_kept"] <= len(toy.vocabulary)


def test_dense_task_has_no_penalty() -> None:
    dense = task(sparse="none")
    assert dense.penalty() is None
    assert dense.status() == {}
    assert torch.equal(task().penalty(), penalty(task().model))


def test_teacher_is_out_of_fold_kept_in_the_run_and_mixed_in(tmp_path: Path) -> None:
    taught = task(teacher="linear", teacher_share=0.4)
    taught.save_artifacts(tmp_path)
    opinion = np.load(tmp_path / TEACHER_FILE)
    targets = taught.targets()
    labels = torch.from_numpy(taught.train_set.labels)
    assert torch.allclose(
        targets, 0.4 * torch.from_numpy(opinion) + 0.6 * torch.nn.functional.one_hot(labels, 2)
    )
    assert torch.allclose(targets.sum(1), torch.ones(len(labels)))
    assert torch.equal(taught.batch(0, 0)[2].argmax(1), labels[taught.buckets.batches(0)[0]])
    again = task(teacher="linear", teacher_share=0.4)
    (tmp_path / TEACHER_FILE).write_bytes((tmp_path / TEACHER_FILE).read_bytes())
    again.save_artifacts(tmp_path)
    assert torch.equal(again.targets(), targets)
    np.save(tmp_path / TEACHER_FILE, opinion[:3])
    with pytest.raises(UserError, match=r"teacher.npy: has shape \(3, 2\), expected \(60, 2\)"):
        task(teacher="linear").save_artifacts(tmp_path)


def test_teacher_does_not_judge_what_it_learned() -> None:
    """With random labels an honest out-of-fold opinion is right half of the time; an in-sample one nearly always."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcdefghijklmnopqrst"), 6)) for _ in range(300)]
    labels = random.integers(0, 2, 300)
    opinion = linear_teacher(texts, labels, 2, seed=0)
    assert 0.35 < (opinion.argmax(1) == labels).mean() < 0.65
    three = linear_teacher([GOOD, BAD, "an odd thing"] * 20, np.arange(60) % 3, 3, seed=0)
    assert three.shape == (60, 3)
    assert (three.argmax(1) == np.arange(60) % 3).all()
    assert np.abs(three.sum(1) - 1).max() < 1e-5


def test_soft_and_hard_targets_agree() -> None:
    logits = torch.randn(5, 3)
    labels = torch.tensor([0, 2, 1, 1, 0])
    shares = torch.nn.functional.one_hot(labels, 3).float()
    assert torch.allclose(cross_entropy(logits, labels), cross_entropy(logits, shares))
    one, two = torch.randn(5, 1), labels.clamp(max=1)
    shares = torch.nn.functional.one_hot(two, 2).float()
    assert torch.allclose(cross_entropy(one, two), cross_entropy(one, shares))
    padded = torch.cat([torch.zeros_like(one), one], 1)
    assert torch.allclose(cross_entropy(one, two), cross_entropy(padded, two))
    assert torch.equal(predictions(one), predictions(padded))


def test_a_run_folder_rebuilds_the_model(tmp_path: Path) -> None:
    toy = task()
    toy.save_artifacts(tmp_path)
    model, words, labels = load_run_model(
        tmp_path, ModelSettings(embedding_dim=4, hidden_size=3), SparseSettings(method="vd")
    )
    model.load_state_dict(toy.model.state_dict())
    assert words == toy.vocabulary.words
    assert labels == ["negative", "positive"]
    with pytest.raises(UserError, match="no readable vocabulary"):
        load_run_model(tmp_path / "none", ModelSettings(), SparseSettings())


@pytest.mark.parametrize("sparse", ["vd", "none"])
def test_the_linear_part_is_fitted_once_and_kept_in_the_run(
    sparse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = task(sparse=sparse, share=0.5)
    first.save_artifacts(tmp_path)
    state, content = first.model.state_dict(), (tmp_path / LINEAR_FILE).read_bytes()
    assert int((state["linear.word_scores"] != 0).sum() + (state["linear.pair_scores"] != 0).sum()) == 20
    own = task(sparse=sparse, share=0.5)
    own.parameter_groups(TrainSettings())  # without a folder it is fitted where the loop begins
    assert all(torch.equal(value, state[name]) for name, value in own.model.state_dict().items())
    other = task(sparse=sparse, share=0.5)
    other.train_set.labels[:] = np.roll(other.train_set.labels, 1)
    other.save_artifacts(tmp_path)  # the file of other documents is not taken
    assert (tmp_path / LINEAR_FILE).read_bytes() != content
    (tmp_path / LINEAR_FILE).write_bytes(content)
    monkeypatch.setattr("karui.tasks.classification.fit_scores", None)
    resumed = task(sparse=sparse, share=0.5)
    resumed.save_artifacts(tmp_path)
    assert all(torch.equal(value, state[name]) for name, value in resumed.model.state_dict().items())
    assert (tmp_path / LINEAR_FILE).read_bytes() == content
    settings = ModelSettings(embedding_dim=4, hidden_size=3, linear_share=0.5)
    model, _, _ = load_run_model(tmp_path, settings, SparseSettings(method=sparse))
    model.load_state_dict(state)
    without = task(sparse=sparse)
    assert not hasattr(without.model.linear, "keys")
    names = {name for name in state if not name.startswith("linear.")}
    assert set(without.model.state_dict()) == names
    assert all(torch.equal(without.model.state_dict()[name], state[name]) for name in names)
    (tmp_path / LINEAR_FILE).unlink()
    with pytest.raises(UserError, match="linear.npz: no readable linear model"):
        load_run_model(tmp_path, settings, SparseSettings(method=sparse))
    with pytest.raises(TypeError, match="build it with linear_share"):
        load_linear(without.model, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("linear_share", 1.0), ("linear_share", -0.1), ("linear_weights", 0)]
)
def test_settings_of_the_linear_part_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        ModelSettings(**{name: value})


def test_a_vocabulary_without_words_is_refused() -> None:
    with pytest.raises(UserError, match="no word occurs 500 times"):
        task(min_count=500)
