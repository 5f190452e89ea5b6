"""The linear model of words and pairs: what it learns, what is kept of it, its file, and its part of an answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from karui.data import Splits, TextDataset
from karui.data.batching import EncodedDataset
from karui.errors import UserError
from karui.sparse import SparseVariationalDropout, harden, penalty, sparsify
from karui.tasks import linear_scores
from karui.tasks.classification import LINEAR_FILE, ClassificationTask
from karui.tasks.linear_scores import LinearScores, fingerprint, fit_scores, load_scores
from karui.tasks.ngrams import pair_counts
from karui.tasks.pair_scores import PairScores
from karui.tasks.settings import DataSettings, ModelSettings, SparseSettings
from karui.tasks.text_classifier import TextClassifier
from karui.train import TrainSettings, fit
from tests.support.stopping import fit_until

WORDS = 4


def encoded(documents: list[list[int]], labels: list[int]) -> EncodedDataset:
    offsets = np.cumsum([0, *map(len, documents)])
    return EncodedDataset(np.concatenate(documents).astype(np.int32), offsets, np.asarray(labels))


def by_order(copies: int = 20) -> EncodedDataset:
    """1 2 and 3 4 have label 1, 1 4 and 3 2 label 0: no word alone says anything, each pair everything."""
    return encoded([[1, 2], [3, 4], [1, 4], [3, 2]] * copies, [1, 1, 0, 0] * copies)


def answers(fitted: LinearScores, documents: EncodedDataset) -> np.ndarray:
    """Logits (N, C) by a loop."""
    base, rows = len(fitted.words), []
    table = dict(zip(fitted.keys.tolist(), fitted.pairs, strict=True))
    for k in range(len(documents)):
        ids = documents.document(k)
        total = fitted.words[ids].sum(axis=0)
        for a, b in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
            total = total + table.get(a * base + b, 0.0)
        rows.append(total / np.sqrt(len(ids)) + fitted.bias)
    return np.array(rows)


def test_pairs_learn_what_words_cannot() -> None:
    fitted = fit_scores(by_order(), n_words=WORDS, n_classes=2, weights=100)
    assert np.abs(fitted.words).max() < 1e-3
    assert fitted.keys.tolist() == [7, 9, 17, 19]
    assert (np.sign(fitted.pairs[:, 0]) == [1, -1, -1, 1]).all()
    assert ((answers(fitted, by_order())[:, 0] > 0) == by_order().labels).all()
    assert all(array.dtype == np.float32 for array in (fitted.words, fitted.pairs, fitted.bias))


@pytest.mark.parametrize("weights", [1, 3, 10, 1000])
def test_only_the_largest_weights_are_kept(weights: int) -> None:
    rng = np.random.default_rng(0)
    documents = encoded(
        [rng.integers(0, 9, 12).tolist() for _ in range(200)], rng.integers(0, 3, 200).tolist()
    )
    whole = fit_scores(documents, n_words=8, n_classes=3, weights=10**6)
    found = fit_scores(documents, n_words=8, n_classes=3, weights=weights)
    kept = np.concatenate([found.words[1:].ravel(), found.pairs.ravel()])
    everything = np.abs(np.concatenate([whole.words[1:].ravel(), whole.pairs.ravel()]))
    assert np.count_nonzero(kept) == min(weights, np.count_nonzero(everything))
    assert np.abs(kept[kept != 0]).min() == np.sort(everything)[::-1][: np.count_nonzero(kept)].min()
    assert found.pairs.any(axis=1).all()
    assert not found.words[0].any()
    assert (np.diff(found.keys) > 0).all()
    assert (found.keys % 9 > 0).all()  # no pair reaches over an unknown word


def test_rare_pairs_and_those_beyond_the_cap_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = encoded(
        [[1, 2, 3], [1, 2, 0, 3], [1, 2, 4], [3, 2], [3, 2]] * 2 + [[4, 4]], [1, 0, 1, 0, 1] * 2 + [0]
    )
    full = fit_scores(documents, n_words=WORDS, n_classes=2, weights=100)
    assert full.keys.tolist() == [7, 13, 14, 17]  # 4 4 occurs in one text only
    monkeypatch.setattr(linear_scores, "MAX_PAIRS", 2)
    assert fit_scores(documents, n_words=WORDS, n_classes=2, weights=100).keys.tolist() == [7, 17]
    monkeypatch.setattr(linear_scores, "LARGE_SET", 5)
    assert fit_scores(documents, n_words=WORDS, n_classes=2, weights=100).keys.tolist() == [7]


def test_labels_that_are_missing_and_sets_without_anything_to_learn() -> None:
    two_of_three = fit_scores(by_order(), n_words=WORDS, n_classes=3, weights=100)
    logits = answers(two_of_three, by_order())
    assert (logits.argmax(axis=1) == by_order().labels).all()
    one_label = fit_scores(
        replace(by_order(), labels=np.ones(80, np.int64)), n_words=WORDS, n_classes=2, weights=9
    )
    assert not one_label.words.any()
    assert len(one_label.keys) == 0
    unknown = fit_scores(encoded([[0], [0, 0]], [0, 1]), n_words=WORDS, n_classes=3, weights=9)
    assert unknown.words.shape == (5, 3)
    assert not unknown.bias.any()


def test_the_file_brings_everything_back(tmp_path: Path) -> None:
    fitted, path = fit_scores(by_order(), n_words=WORDS, n_classes=2, weights=100), tmp_path / "linear.npz"
    fitted.save(path)
    back = load_scores(path, n_words=WORDS, n_classes=2)
    for name in ("words", "keys", "pairs", "bias", "origin"):
        assert np.array_equal(getattr(back, name), getattr(fitted, name))
    for wrong in ({"n_words": WORDS + 1, "n_classes": 2}, {"n_words": WORDS, "n_classes": 3}):
        with pytest.raises(
            UserError, match=r"linear.npz: is no linear model of [45] words; delete it and resume"
        ):
            load_scores(path, **wrong)
    replace(fitted, keys=fitted.keys[::-1].copy()).save(path)
    with pytest.raises(UserError, match="is no linear model"):
        load_scores(path, n_words=WORDS, n_classes=2)
    np.savez(path, words=np.asarray([{}], object))
    for content in (path.read_bytes(), path.read_bytes()[:50], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no readable linear model"):
            load_scores(path, n_words=WORDS, n_classes=2)
    with pytest.raises(UserError, match="no readable linear model"):
        load_scores(tmp_path / "none.npz", n_words=WORDS, n_classes=2)


def classifier(share: float, **options: object) -> TextClassifier:
    torch.manual_seed(1)
    model = TextClassifier(WORDS, 2, embedding_dim=3, hidden_size=2, linear_share=share, **options)  # type: ignore[arg-type]
    if model.linear is not None:
        model.linear.load(fit_scores(by_order(), n_words=WORDS, n_classes=2, weights=100))
    return model


def batch() -> tuple[Tensor, Tensor]:
    return torch.tensor([[1, 2, 3, 4], [1, 0, 2, 0], [0, 0, 0, 0], [3, 4, 0, 0]]), torch.tensor([4, 3, 1, 2])


def test_the_answer_is_the_average_and_training_is_the_networks() -> None:
    mixed, alone = classifier(0.25).eval(), classifier(0.0).eval()
    (ids, lengths), scores = batch(), fit_scores(by_order(), n_words=WORDS, n_classes=2, weights=100)
    documents = encoded([row[:n] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)], [0] * 4)
    linear = torch.from_numpy(answers(scores, documents)).float()
    assert (mixed(ids, lengths) - (0.75 * alone(ids, lengths) + 0.25 * linear)).abs().max() < 1e-6
    assert torch.equal(mixed.train()(ids, lengths), alone.train()(ids, lengths))
    assert mixed.linear is not None
    assert mixed.linear.pairs().tolist() == [[1, 2], [1, 4], [3, 2], [3, 4]]
    one = mixed.eval()(ids[:1, :1], torch.tensor([1]))
    assert one.shape == (1, 1)
    mixed(ids, lengths).sum().backward()  # the tables have no gradient to take
    assert not any(part.requires_grad for part in mixed.linear.state_dict().values())


def test_sparsifying_hardening_and_the_state_leave_it_as_it_is() -> None:
    mixed, plain = classifier(0.5).eval(), classifier(0.0)
    ids, lengths = batch()
    method = SparseVariationalDropout()
    sparse, other = sparsify(mixed, method), sparsify(plain, method)
    assert torch.equal(penalty(sparse), penalty(other))
    assert [name for name, _ in sparse.named_parameters()] == [name for name, _ in other.named_parameters()]
    before = sparse.eval()(ids, lengths)
    assert torch.equal(harden(sparse)(ids, lengths), before)
    fresh = sparsify(classifier(0.5), method)
    nn.init.zeros_(fresh.linear.bias)  # type: ignore[union-attr, arg-type]
    fresh.load_state_dict(sparse.state_dict())
    assert torch.equal(fresh.eval()(ids, lengths), before)


def test_sizes_and_shares_are_checked() -> None:
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
            PairScores(3, 1, share=share)
    with pytest.raises(ValueError, match=r"scores of shape \(5, 1\), expected \(4, 1\)"):
        PairScores(3, 1, share=0.5).load(fit_scores(by_order(), n_words=WORDS, n_classes=2, weights=9))
    assert "words=3, pairs=0, share=0.5" in repr(PairScores(3, 1, share=0.5))


def test_a_fingerprint_tells_what_was_fitted() -> None:
    documents = by_order()
    others = [
        replace(documents, labels=1 - documents.labels),
        replace(documents, ids=documents.ids[::-1].copy()),
        replace(documents, offsets=np.concatenate([[0, 3], documents.offsets[2:]])),
    ]
    found = [
        fingerprint(documents, 9),
        fingerprint(documents, 8),
        *(fingerprint(other, 9) for other in others),
    ]
    assert len({each.tobytes() for each in found}) == 5
    assert np.array_equal(fingerprint(by_order(), 9), found[0])


def test_pairs_are_counted_by_their_words() -> None:
    texts = ["a b a b", "b a, b", "a x b"]
    assert pair_counts(texts, ["b", "a"], np.asarray([[1, 2], [2, 1]])) == {"b a": 2, "a b": 3}
    assert pair_counts(texts, ["b", "a"], np.zeros((0, 2), np.int64)) == {}


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = ["a fine film", "a dull film", "not dull", "not fine"] * 15, np.asarray([1, 0, 1, 0] * 15)
    part = TextDataset(texts, labels, ["no", "yes"], "toy")

    def prepared(folder: Path) -> ClassificationTask:
        sizes = {"embedding_dim": 3, "hidden_size": 2}
        settings = ModelSettings(recurrent="gru", linear_share=0.5, linear_weights=9, **sizes)
        task = ClassificationTask(
            DataSettings(name="toy", batch_size=16),
            settings,
            SparseSettings(method="vd"),
            seed=0,
            splits=Splits(part, part, None, ["no", "yes"], "toy"),
        )
        task.save_artifacts(folder)
        return task

    often = TrainSettings(
        max_epochs=3, checkpoint_every_s=0.0, penalty_weight=0.1, weight_averaging=0.9, threads=1
    )
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    expected = fit(prepared(whole), often, whole, quiet=True, tensorboard=False).weights
    fit_until((1, 2), prepared(stopped), often, stopped, quiet=True, tensorboard=False)
    monkeypatch.setattr("karui.tasks.classification.fit_scores", None)  # it is read, not fitted again
    resumed = fit(prepared(stopped), often, stopped, resume=True, quiet=True, tensorboard=False).weights
    assert resumed.read_bytes() == expected.read_bytes()
    assert (stopped / LINEAR_FILE).read_bytes() == (whole / LINEAR_FILE).read_bytes()
