"""Random descriptions of language models, and the answer of each in float64."""

from typing import Any

import numpy as np

from karui.runtime.language_format import (
    AdaptiveOutput,
    ClassOutput,
    FullOutput,
    LanguageModelSpec,
    Tail,
    TreeOutput,
    in_preorder,
)
from karui.runtime.language_output import Output
from karui.runtime.layers import KIND_ACTIVATIONS, RecurrentLayer
from tests.runtime.conftest import random_direction
from tests.runtime.test_engine import RUNS, run_torch

OUTPUTS = ("full", "tied", "classes", "adaptive", "tree")


def random_tree(n_words: int, rng: np.random.Generator) -> np.ndarray:
    """Children (V - 1, 2) of a tree that joins two parts at a time, in preorder."""
    parts, rows = [-1 - int(word) for word in rng.permutation(n_words)], []
    while len(parts) > 1:
        first, second = (parts.pop(int(rng.integers(0, min(6, len(parts))))) for _ in range(2))
        parts.append(len(rows))
        rows.append((first, second))
    children = np.asarray(rows[::-1], np.int64).reshape(-1, 2)
    return in_preorder(np.where(children >= 0, len(rows) - 1 - children, children))[0]


def random_output(kind: str, n_words: int, inputs: int, seed: int = 0) -> Output:
    """An output layer; "tied" shares the table of the embedding."""
    rng = np.random.default_rng(seed)

    def array(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / (np.sqrt(shape[1]) if len(shape) == 2 else 1.0)).astype(np.float32)

    if kind == "tied":
        return FullOutput(None, array(n_words))
    if kind == "full":
        return FullOutput(array(n_words, inputs), array(n_words))
    if kind == "classes":
        count = max(1, n_words // 4)
        classes = rng.permutation(np.arange(n_words) % count)
        return ClassOutput(
            classes, array(count, inputs), array(count), array(n_words, inputs), array(n_words)
        )
    if kind == "adaptive":
        tail_of = rng.permutation(np.minimum(2, np.arange(n_words) * 4 // n_words))
        sizes = np.bincount(tail_of, minlength=3)
        tails = [Tail(array(3, inputs), array(sizes[k], 3), array(sizes[k])) for k in (1, 2)]
        return AdaptiveOutput(tail_of, array(sizes[0] + 2, inputs), array(sizes[0] + 2), tails)
    return TreeOutput(random_tree(n_words, rng), array(n_words - 1, inputs), array(n_words - 1))


def random_model(
    kind: str = "sru", output: str = "full", *, n_words: int = 40, width: int = 6, hidden: int = 6,
    layers: int = 1, projection: int | None = None, seed: int = 0, **more: Any,
) -> LanguageModelSpec:  # fmt: skip
    """A language model whose last two words are the unknown one and the end of a line."""
    rng = np.random.default_rng(seed)

    def array(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / (np.sqrt(shape[1]) if len(shape) == 2 and shape[1] else 1.0)).astype(
            np.float32
        )

    built, inputs = [], width
    choices = KIND_ACTIVATIONS[kind] if kind in ("sru", "statistical") else ("identity",)
    window, gate = (1 + seed % 2, seed % 3 > 0) if kind == "qrnn" else (1, True)
    for _ in range(layers):
        direction = random_direction(kind, array, inputs, hidden, window=window, gates=3 if gate else 2)
        built.append(RecurrentLayer(kind, [direction], choices[seed % len(choices)], window, gate))
        inputs = hidden
    D = inputs if projection is None else projection
    return LanguageModelSpec(
        words=[*(f"{'zyäb'[number % 4]}{number}" for number in range(n_words - 2)), "<unk>", "</s>"],
        eos=n_words - 1, unk=n_words - 2, embedding=array(n_words, width), layers=built,
        output=random_output(output, n_words, D, seed),
        projection_weight=None if projection is None else array(projection, inputs),
        projection_bias=None if projection is None else array(projection), **more,
    )  # fmt: skip


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def expected_log_probs(spec: LanguageModelSpec, ids: list[int]) -> np.ndarray:
    """(T + 1, V): of the word after the end of a line, and after each id; the model of docs/format.md in float64."""
    x = spec.embedding[[spec.eos, *ids]].astype(float)
    for layer in spec.layers:
        x = RUNS.get(layer.kind, run_torch)(layer, layer.directions[0], x)
    if spec.projection_weight is not None and spec.projection_bias is not None:
        x = x @ spec.projection_weight.astype(float).T + spec.projection_bias
    return of_output(spec.output, x, spec.embedding)


def of_output(output: Output, x: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """(T, D) to (T, V)."""
    found = np.full((len(x), len(embedding)), np.nan)
    if isinstance(output, FullOutput):
        weight = embedding if output.weight is None else output.weight
        return log_softmax(x @ weight.astype(float).T + output.bias)
    scores = x @ output.weight.astype(float).T + output.bias
    if isinstance(output, ClassOutput):
        above = log_softmax(x @ output.class_weight.astype(float).T + output.class_bias)
        for number in range(above.shape[1]):
            members = output.classes == number
            found[:, members] = above[:, [number]] + log_softmax(scores[:, members])
    elif isinstance(output, AdaptiveOutput):
        head, n_head = log_softmax(scores), int((output.tail_of == 0).sum())
        found[:, output.tail_of == 0] = head[:, :n_head]
        for number, tail in enumerate(output.tails):
            inside = log_softmax(
                (x @ tail.projection.astype(float).T) @ tail.weight.astype(float).T + tail.bias
            )
            found[:, output.tail_of == number + 1] = head[:, [n_head + number]] + inside
    else:
        above = np.zeros((len(x), len(scores[0])))
        for node, pair in enumerate(output.children.tolist()):
            for child, s in zip(pair, (scores[:, node], -scores[:, node]), strict=True):
                log_prob = above[:, node] - np.log1p(np.exp(-s))
                if child >= 0:
                    above[:, child] = log_prob
                else:
                    found[:, -1 - child] = log_prob
        if len(embedding) == 1:
            found[:] = 0.0
    return found
