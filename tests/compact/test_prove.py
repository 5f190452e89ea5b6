"""The proof accepts what is equal and refuses what is not, however small the part that was changed."""

import numpy as np
import pytest

from karui.compact.convert import to_spec
from karui.compact.prove import margins, proof_texts, prove
from karui.compact.shrink import shrink
from karui.errors import UserError
from karui.runtime.format import encode
from tests.compact.build import random_model, torch_logits

WORDS = [f"w{i}" for i in range(25)]


@pytest.fixture
def case():
    model = random_model("lstm", density=0.6, seed=5, n_classes=3, embedding_dim=4, hidden_size=3)
    spec = shrink(to_spec(model, WORDS, list("abc")))
    random = np.random.default_rng(0)
    valid = [" ".join(random.choice([*WORDS, "other"], size=random.integers(1, 30))) for _ in range(60)]
    samples = proof_texts(valid, spec.words)
    return spec, samples, torch_logits(model, WORDS, [text.split() for text in samples])


def test_equal_answers_are_proven(case):
    spec, samples, reference = case
    proof = prove(encode(spec), reference, samples, exact=True)
    assert proof.documents == len(samples) > 60
    assert proof.max_error <= 1e-5
    assert proof.label_agreement == 1.0


@pytest.mark.parametrize(
    "part", ["embedding", "output_weight", "output_bias", "word_scores", "bias", "weight_hh"]
)
def test_a_changed_weight_is_found(case, part):
    spec, samples, reference = case
    home = spec if hasattr(spec, part) else spec.layers[0].directions[1]
    array = getattr(home, part)
    place = np.unravel_index(np.abs(array).argmax(), array.shape)
    array[place] *= 1.01
    with pytest.raises(UserError, match="not written: the file's logits differ"):
        prove(encode(spec), reference, samples, exact=True)


@pytest.mark.parametrize("part", ["weight_ih", "weight_r", "weight_phi", "weight_o", "bias", "alphas"])
def test_a_changed_statistic_is_found(part):
    options = {"num_stats": 4, "recur_size": 3, "alphas": (0.0, 0.5, 0.9), "activation": "tanh"}
    sizes = {"embedding_dim": 4, "hidden_size": 3, "options": options}
    model = random_model("statistical-ru", density=1.0, seed=6, n_classes=3, **sizes)
    spec = shrink(to_spec(model, WORDS, list("abc")))
    samples = proof_texts([" ".join(WORDS[i:]) for i in range(20)], spec.words)
    reference = torch_logits(model, WORDS, [text.split() for text in samples])
    prove(encode(spec), reference, samples, exact=True)
    array = getattr(spec.layers[0].directions[1], part)
    array[np.unravel_index(np.abs(array).argmax(), array.shape)] *= 1.1
    with pytest.raises(UserError, match="not written: the file's logits differ"):
        prove(encode(spec), reference, samples, exact=True)


def test_a_dropped_word_is_found(case):
    spec, samples, reference = case
    spec.words[3] = "gone"
    with pytest.raises(UserError, match="not written"):
        prove(encode(spec), reference, samples, exact=True)


def test_a_missing_unit_or_class_is_found(case):
    spec, samples, reference = case
    with pytest.raises(UserError, match=r"answers \(67, 3\), the masked model \(67, 2\)"):
        prove(encode(spec), reference[:, :2], samples, exact=True)


def test_a_reference_that_is_not_finite_proves_nothing(case):
    spec, samples, reference = case
    reference[7, 1] = np.nan
    with pytest.raises(UserError, match="not written"):
        prove(encode(spec), reference, samples, exact=True)


def test_rounding_is_reported_and_refused_when_labels_change(case):
    spec, samples, reference = case
    proof = prove(encode(spec, values="fp16"), reference, samples, exact=False)
    assert 0.95 <= proof.label_agreement <= 1.0
    assert 1e-6 < proof.max_error < 0.05
    with pytest.raises(UserError, match=r"keep only .* of the labels, needed 90%"):
        prove(encode(spec, values="int8", levels=1), reference, samples, exact=False)


def test_texts_hold_what_breaks_careless_code():
    found = proof_texts([f"text {i}" for i in range(1000)], ["alpha", "beta"])
    assert len(found) == 407
    assert "" in found
    assert "alpha" in found
    assert "alpha beta" in found
    assert max(len(text.split()) for text in found) >= 5000
    assert {"text 0", "text 999"} <= set(found)
    assert len(proof_texts([], [])) == 7


def test_margins():
    np.testing.assert_allclose(margins(np.array([[0.5], [-2.0]])), [0.5, 2.0])
    np.testing.assert_allclose(margins(np.array([[1.0, 3.0, 2.5]])), [0.5])
