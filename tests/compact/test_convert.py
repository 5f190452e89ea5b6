"""A plain model and its description answer alike, dense and after random pruning, for every kind of model."""

import itertools

import numpy as np
import pytest
import torch

from karui.compact.convert import to_spec
from karui.compact.shrink import shrink
from karui.compact.weights import named_arrays
from karui.errors import UserError
from karui.nn.registry import RECURRENT
from karui.sparse import SparseVariationalDropout, harden, sparsify
from karui.tasks.text_classifier import TextClassifier
from tests.compact.build import random_model, texts, torch_logits
from tests.compact.forward import logits

POOLINGS = ("last", "mean", "max", "mean+max")
MODELS = list(itertools.product(RECURRENT, (1, 2), (1, 2), (True, False)))
WORDS = [f"w{i}" for i in range(25)]


def assert_same_answers(model, spec, documents):
    """Compare with torch; return the answers of the description in fp64."""
    expected, found = torch_logits(model, WORDS, documents), logits(spec, documents)
    assert float(np.abs(found - expected).max()) <= 1e-5 * max(1.0, float(np.abs(expected).max()))
    return found


@pytest.mark.parametrize(("kind", "layers", "directions", "scores"), MODELS)
def test_random_masks_on_every_model(kind, layers, directions, scores):
    """Densities from 2 to 40 %, both classes of sizes (SRU with 3 and 4 blocks), all poolings, 2 and 3 classes."""
    number = MODELS.index((kind, layers, directions, scores))
    documents = texts(WORDS, seed=number)
    for case, density in enumerate((0.02, 0.1, 0.4)):
        width, hidden = ((6, 6 // directions), (5, 4))[(case + number) % 2]
        model = random_model(
            kind,
            density=density,
            seed=10 * number + case,
            n_classes=2 + (case + number) % 2,
            embedding_dim=width,
            hidden_size=hidden,
            num_layers=layers,
            directions=directions,
            pooling=POOLINGS[(case + number) % 4],
            word_scores=scores,
            activation=("identity", "tanh")[number // 2 % 2],
        )
        full = to_spec(model, WORDS, [str(i) for i in range(max(2, model.n_outputs))])
        small = shrink(full)
        before = assert_same_answers(model, full, documents)
        after = assert_same_answers(model, small, documents)
        folds = kind in ("statistical-ru", "qrnn")  # constants move into float32 weights
        np.testing.assert_allclose(after, before, rtol=0, atol=2e-6 if folds else 1e-12)
        assert sum(array.size for _, array in named_arrays(small)) <= sum(
            a.size for _, a in named_arrays(full)
        )


def test_both_forms_of_the_skip_were_tried():
    three = random_model("sru", density=1.0, seed=0, n_classes=2, embedding_dim=6, hidden_size=3)
    four = random_model("sru", density=1.0, seed=0, n_classes=2, embedding_dim=5, hidden_size=4)
    assert three.recurrent.gate_blocks(0) == 3
    assert four.recurrent.gate_blocks(0) == 4
    forward, reverse = to_spec(three, WORDS, ["a", "b"]).layers[0].directions
    scale = np.float32(three.recurrent.skip_scale)
    np.testing.assert_array_equal(forward.weight_ih[9:], scale * np.eye(3, 6, dtype=np.float32))
    np.testing.assert_array_equal(reverse.weight_ih[9:], scale * np.eye(3, 6, 3, dtype=np.float32))


def test_a_recurrence_without_skip():
    from karui.nn import SRU

    model = random_model("sru", density=1.0, seed=1, n_classes=2, embedding_dim=6, hidden_size=3)
    weights = model.recurrent.state_dict()
    model.recurrent = SRU(6, 3, bidirectional=True, has_skip_term=False)
    model.recurrent.load_state_dict(weights)
    assert_same_answers(model, shrink(to_spec(model, WORDS, ["a", "b"])), texts(WORDS))


VARIANTS = [
    ("sru", {"variant": "v1", "activation": "tanh"}),
    ("sru", {"activation": "relu"}),
    ("sru", {"input_rank": 2, "rescale": 1.5}),
    ("sru", {"bias": False}),
    ("lstm", {"bias": False}),
    ("gru", {"bias": False}),
    ("statistical-ru", {"num_stats": 5, "recur_size": 0, "alphas": (0.99,)}),
    ("statistical-ru", {"num_stats": 3, "recur_size": 2, "learn_alphas": True, "activation": "elu"}),
    ("statistical-ru", {"num_stats": 3, "recur_size": 2, "bias": False, "activation": "tanh"}),
    ("qrnn", {"window": 1, "output_gate": False}),
    ("qrnn", {"window": 2, "bias": False}),
    ("mingru", {}),
]


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_variants_of_the_layers(kind, options):
    for layers, directions in ((1, 2), (2, 1)):
        model = random_model(
            kind,
            density=0.7,
            seed=3,
            n_classes=2,
            embedding_dim=6,
            hidden_size=4,
            num_layers=layers,
            directions=directions,
            options=options,
        )
        full = to_spec(model, WORDS, ["no", "yes"])
        assert_same_answers(model, full, texts(WORDS))
        assert_same_answers(model, shrink(full), texts(WORDS))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {"layer_norm": "pre"}) for kind in RECURRENT),
        ("statistical-ru", {"linear_output": True}),
        ("statistical-ru", {"include_input": True}),
        ("qrnn", {"zoneout": 0.1}),
    ],
)
def test_what_an_artifact_cannot_hold_is_refused_by_name(kind, options):
    model = TextClassifier(25, 2, recurrent=kind, options=options)
    [(name, value)] = options.items()
    with pytest.raises(
        ValueError, match=f"cannot describe {type(model.recurrent).__name__} with {name}={value!r}"
    ):
        to_spec(model, WORDS, ["no", "yes"])


def test_other_modules_are_refused_by_name():
    model = TextClassifier(25, 2)
    model.recurrent = torch.nn.RNN(16, 16)
    with pytest.raises(ValueError, match="cannot describe RNN: expected a layer of"):
        to_spec(model, WORDS, ["no", "yes"])
    model.recurrent = torch.nn.LSTM(16, 16, proj_size=2)
    with pytest.raises(ValueError, match="cannot describe LSTM with proj_size=2: train without it"):
        to_spec(model, WORDS, ["no", "yes"])


def test_no_recurrence():
    model = random_model("none", density=0.3, seed=2, n_classes=4, biases=1.0)
    small = shrink(to_spec(model, WORDS, list("abcd")))
    assert small.layers == []
    assert_same_answers(model, small, texts(WORDS))


def test_the_masked_model_of_sparse_training():
    torch.manual_seed(3)
    model = TextClassifier(25, 3, embedding_dim=5, hidden_size=4)
    sparsify(model, SparseVariationalDropout(groups=("word", "neuron")))
    with torch.no_grad():  # noise of all sizes: about half of the weights pass the threshold
        for name, parameter in model.named_parameters():
            if name.endswith("log_sigma2"):
                parameter.uniform_(-6.0, 2.0)
    masked = harden(model).eval()
    small = shrink(to_spec(masked, WORDS, list("abc")))
    assert 0 < len(small.words) < 25
    assert_same_answers(masked, small, texts(WORDS))


def test_limit_of_tokens_and_labels_travel():
    model = random_model("gru", density=1.0, seed=4, n_classes=2, embedding_dim=3, hidden_size=2)
    small = shrink(to_spec(model, WORDS, ["bad", "good"], max_tokens=4))
    assert (small.labels, small.max_tokens, small.normalisation) == (["bad", "good"], 4, "words-v1")


def test_wrong_arguments():
    model = random_model("gru", density=1.0, seed=4, n_classes=2, embedding_dim=3, hidden_size=2)
    with pytest.raises(ValueError, match="words must be 25 for this model, got 3"):
        to_spec(model, ["a", "b", "c"], ["x", "y"])
    with pytest.raises(ValueError, match="labels must be 2 for this model, got 1"):
        to_spec(model, WORDS, ["x"])
    with torch.no_grad():
        model.output.bias[0] = torch.nan
    with pytest.raises(UserError, match="output_bias holds NaN or infinity"):
        to_spec(model, WORDS, ["x", "y"])
    sparse = sparsify(TextClassifier(25, 2), SparseVariationalDropout())
    with pytest.raises(ValueError, match=r"call harden\(model\) first"):
        to_spec(sparse, WORDS, ["x", "y"])
