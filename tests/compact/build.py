"""Descriptions and models that the tests of this folder share; weights are written by hand or drawn with a seed."""

import numpy as np
import torch

from karui.runtime.format import FIELDS, ClassifierSpec, Direction, RecurrentLayer
from karui.tasks.linear_scores import LinearScores
from karui.tasks.text_classifier import TextClassifier

GATES = {"sru": (4, 2), "lstm": (4, 4), "gru": (3, 4), "qrnn": (3, 3), "mingru": (2, 2)}
ALPHAS = (0.0, 0.5, 0.9)
OPTIONS = {
    "statistical-ru": {"num_stats": 4, "recur_size": 3, "alphas": ALPHAS},
    "qrnn": {"window": 2},
    "mingru": {"bias": True},
}


def zeros(kind, inputs, units, *, stats=3, recur=2, window=1):
    """A direction whose weights are all zero; a Statistical Recurrent Unit has three scales."""
    if kind == "statistical":
        states = len(ALPHAS) * stats
        return Direction(
            weight_ih=np.zeros((stats, inputs), np.float32),
            weight_hh=None,
            bias=np.zeros(stats + recur + units, np.float32),
            weight_r=np.zeros((recur, states), np.float32),
            weight_phi=np.zeros((stats, recur), np.float32),
            weight_o=np.zeros((units, states), np.float32),
            alphas=np.array(ALPHAS, np.float32),
        )
    inputs *= window
    weights, biases = GATES[kind]
    return Direction(
        weight_ih=np.zeros((weights * units, inputs), np.float32),
        weight_hh=np.zeros((weights * units, units), np.float32) if kind in ("lstm", "gru") else None,
        bias=np.zeros(biases * units, np.float32),
        weight_c=np.zeros(2 * units, np.float32) if kind == "sru" else None,
    )


def drawn(kind, inputs, units, *, seed=0, **sizes):
    """A direction without a single zero."""
    random, direction = np.random.default_rng(seed), zeros(kind, inputs, units, **sizes)
    for name in FIELDS:
        array = getattr(direction, name)
        if array is not None:
            array[...] = random.uniform(0.2, 1.0, array.shape) * random.choice([-1, 1], array.shape)
    if kind == "statistical":
        direction.weight_r *= 0.1  # the feedback is not bounded by a gate
    return direction


def rows(kind, array, gate, unit):
    """Row of a gate of a unit, in any stacked weight, bias or weight_c."""
    blocks = GATES[kind][array.ndim == 1]
    return array[gate * (len(array) // blocks) + unit]


def describe(layers, *, words=3, width=2, outputs=1, pooling="mean", scores=False, seed=0):
    """A description around hand-made layers: every embedding entry and output weight is non-zero."""
    random = np.random.default_rng(seed)

    def values(*shape):
        return (random.uniform(0.2, 1.0, shape) * random.choice([-1, 1], shape)).astype(np.float32)

    def with_zero_row(array):
        array[0] = 0.0
        return array

    features = sum(layers[-1].hidden_sizes) if layers else width
    return ClassifierSpec(
        words=[f"w{i}" for i in range(words)],
        labels=[f"label{i}" for i in range(max(outputs, 2))],
        normalisation="words-v1",
        max_tokens=0,
        embedding=with_zero_row(values(words + 1, width)),
        layers=layers,
        pooling=pooling,
        output_weight=values(outputs, features * (2 if pooling == "mean+max" else 1)),
        output_bias=values(outputs),
        word_scores=with_zero_row(values(words + 1, outputs)) if scores else None,
    )


def layer(kind, *directions, activation="tanh", window=1):
    if kind in ("qrnn", "mingru"):
        activation = "identity"
    return RecurrentLayer(kind=kind, activation=activation, directions=list(directions), window=window)


def sizes(spec):
    """Words, embedding columns, and for each layer the units of its directions."""
    return len(spec.words), spec.embedding.shape[1], [list(each.hidden_sizes) for each in spec.layers]


def texts(words, *, seed=0, count=8):
    """Lists of words: nothing, one word, unknown words only, a long one, and mixtures."""
    random = np.random.default_rng(seed)
    known = [*words, "unknown"] if words else ["unknown"]
    mixed = [
        [known[i] for i in random.integers(len(known), size=random.integers(1, 12))] for _ in range(count)
    ]
    return [[], ["unknown"], ["unknown"] * 7, known[:1], [known[0]] * 40, *mixed]


def random_scores(n_words, outputs, *, seed, pairs=40):
    """A linear model of words and pairs, a third of its weights zero."""
    random = np.random.default_rng(seed)

    def values(*shape):
        return (random.normal(size=shape) * (random.random(shape) < 0.67)).astype(np.float32)

    words = np.concatenate([np.zeros((1, outputs), np.float32), values(n_words, outputs)])
    chosen = np.sort(random.permutation(n_words**2)[:pairs])
    keys = (chosen // n_words + 1) * (n_words + 1) + chosen % n_words + 1
    return LinearScores(words, keys, values(pairs, outputs), values(outputs), np.zeros(32, np.uint8))


def random_model(kind, *, density, seed, n_words=25, biases=0.5, **choices):
    """A TextClassifier whose weights are kept with probability `density`, its biases with `biases`."""
    generator = torch.Generator().manual_seed(seed)
    choices.setdefault("options", OPTIONS.get(kind))
    model = TextClassifier(n_words, recurrent=kind, **choices).eval()
    if model.linear is not None:
        model.linear.load(random_scores(n_words, model.n_outputs, seed=seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
            keep = density if parameter.dim() == 2 else biases
            parameter.mul_(torch.rand(parameter.shape, generator=generator) < keep)
        model.embedding.weight[0] = 0.0
        for name, parameter in model.named_parameters():
            if ".weight_r_" in name:
                parameter *= 0.1
    return model


def torch_logits(model, words, documents):
    """(n, C) of lists of words, all in one padded batch."""
    ids = {word: i + 1 for i, word in enumerate(words)}
    encoded = [[ids.get(word, 0) for word in document] or [0] for document in documents]
    lengths = torch.tensor([len(each) for each in encoded])
    padded = torch.zeros(len(encoded), int(lengths.max()), dtype=torch.int64)
    for row, each in zip(padded, encoded, strict=True):
        row[: len(each)] = torch.tensor(each)
    with torch.no_grad():
        return model(padded, lengths).numpy()
