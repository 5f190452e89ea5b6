"""From a trained language model to the bytes of a file that is proven to answer alike.

V words, E embedding width, D inputs of the output layer, T tokens.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from karui.compact.describe import plain_array, recurrent_layers
from karui.compact.language_shrink import shrink_language
from karui.errors import UserError
from karui.output.adaptive import AdaptiveSoftmax
from karui.output.class_softmax import ClassSoftmax
from karui.output.flat import FlatOutput
from karui.output.hierarchical import HierarchicalSoftmax
from karui.runtime.format import VALUES
from karui.runtime.language import LanguageModel as RuntimeModel
from karui.runtime.language_format import (
    AdaptiveOutput,
    ClassOutput,
    FullOutput,
    LanguageModelSpec,
    Tail,
    TreeOutput,
    encode_language_model,
    in_preorder,
)
from karui.runtime.language_output import Output
from karui.runtime.model import load_language_model
from karui.tasks.language_model import LanguageModel

TOLERANCE = 1e-5  # of the log-probabilities of fp32 files, times their size where that is above 1
# Share by which rounded values may change the perplexity of a sparse model: 0.1 %, less than the third digit shows.
# int8 with a scale a row, a quarter of the bytes, stays within it.
PERPLEXITY_TOLERANCE = 1e-3
PROOF_TOKENS = 20_000
_STEPS = 2048
SPECIAL_LINES = ("", " \t ", "qxzqxzqxz", "qxzqxzqxz qxzqxzqxz")  # nothing, blanks, words that no list holds
LogProbs = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LanguageProof:
    """How far the file's log-probabilities are from the model's, token by token, on held-out text."""

    tokens: int
    max_error: float
    """Largest difference of a log-probability, over its size where that is above 1."""

    perplexity: float
    """Of the trained model on these tokens."""


@dataclass(frozen=True)
class LanguageCandidate:
    """One file, and the perplexity of the first `PROOF_TOKENS` held-out tokens with it."""

    values: str
    data: bytes = field(repr=False)
    perplexity: float
    change: float
    """Share by which the perplexity differs from that of the fp32 file."""


@dataclass(frozen=True)
class CompactedLanguage:
    """A file and what is known about it."""

    data: bytes
    spec: LanguageModelSpec
    """The shrunk description, before rounding."""

    chosen: LanguageCandidate
    tried: list[LanguageCandidate]
    proof: LanguageProof
    """Of the same description stored as fp32: shrinking, encoding and engine change nothing."""


def to_language_spec(
    model: LanguageModel,
    words: Sequence[str],
    *,
    eos: int,
    unk: int | None,
    tokenisation: str,
    lower: bool = False,
) -> LanguageModelSpec:
    """Describe a trained model with all its words; the id of a word is its place in `words`.

    What a layer adds to its scores to be exact, as negative sampling does, is part of the bias.

    Raises:
        ValueError: the words do not fit the model, or a part of it has no place in a file.
        UserError: a weight is not finite.
    """
    V = model.embedding.num_embeddings
    if len(words) != V:
        raise ValueError(f"words must be {V} for this model, got {len(words)}")
    projection = model.projection
    spec = LanguageModelSpec(
        words=list(words), eos=eos, unk=unk, tokenisation=tokenisation, lower=lower,
        embedding=plain_array(model.embedding.weight), layers=recurrent_layers(model.recurrent),
        output=output_of(model.output),
        projection_weight=None if projection is None else plain_array(projection.weight),
        projection_bias=None if projection is None else plain_array(projection.bias),
    )  # fmt: skip
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(f"the model's {name} holds NaN or infinity: train again with a lower lr")
    return spec


def output_of(layer: object) -> Output:
    """Describe an output layer; `ValueError` for one that a file has no place for."""
    if isinstance(layer, FlatOutput):
        state = layer.softmax_state_dict()
        bias = plain_array(state["bias"]) if "bias" in state else np.zeros(layer.n_classes, np.float32)
        return FullOutput(None if layer.tied else plain_array(layer.weight), bias)
    if isinstance(layer, AdaptiveSoftmax):
        return _adaptive(layer)
    if isinstance(layer, ClassSoftmax):
        rank, bias = layer.rank.cpu().numpy(), _bias(layer.bias, layer.n_classes)
        cluster = layer.cluster
        return ClassOutput(
            classes=layer.cluster_of.cpu().numpy()[rank],
            class_weight=plain_array(cluster.weight),
            class_bias=_bias(cluster.bias, cluster.out_features),
            weight=plain_array(layer.weight)[rank],
            bias=bias[rank],
        )
    if isinstance(layer, HierarchicalSoftmax):
        children, old = in_preorder(layer.tree.branches.cpu().numpy().astype(np.int64))
        weight, bias = plain_array(layer.weight), _bias(layer.bias, layer.n_classes - 1)
        return TreeOutput(children, weight[old], bias[old])
    raise ValueError(f"cannot describe {type(layer).__name__}: expected an output layer of karui.output")


def model_log_probs(model: LanguageModel, eos: int) -> LogProbs:
    """Return a function from ids (T,) to their log-probabilities (T,) by a trained model; the state is carried."""

    @torch.no_grad()
    def answer(ids: np.ndarray) -> np.ndarray:
        stream = torch.from_numpy(np.concatenate([[eos], ids])).long().unsqueeze(1)
        state, found = None, [np.zeros(0)]
        for start in range(0, len(ids), _STEPS):
            piece = stream[start : start + _STEPS + 1]
            hidden, state = model(piece[:-1], state)
            found.append(-model.output.nll(hidden, piece[1:], reduction="none").squeeze(1).double().numpy())
        return np.concatenate(found)

    return answer


def _bias(parameter: object, size: int) -> np.ndarray:
    return np.zeros(size, np.float32) if parameter is None else plain_array(parameter)  # type: ignore[arg-type]


def _adaptive(layer: AdaptiveSoftmax) -> AdaptiveOutput:
    """Words by rank to words by id: in the head and in each tail they stand in the order of their ids."""
    order = layer.order.cpu().numpy()
    parts = [order[first:end] for first, end in itertools.pairwise([0, *layer.cutoffs, layer.n_classes])]
    tail_of = np.zeros(layer.n_classes, np.int64)
    for number, part in enumerate(parts):
        tail_of[part] = number
    head, count = layer.head, layer.head.out_features
    rows = np.concatenate([np.argsort(parts[0]), np.arange(len(parts[0]), count)])
    tails = []
    for part, (projection, words) in zip(parts[1:], layer.tail, strict=True):  # type: ignore[misc]
        by_id = np.argsort(part)
        bias = _bias(words.bias, len(part))[by_id]
        tails.append(Tail(plain_array(projection.weight), plain_array(words.weight)[by_id], bias))
    return AdaptiveOutput(tail_of, plain_array(head.weight)[rows], _bias(head.bias, count)[rows], tails)


def prove_language(data: bytes, ids: np.ndarray, reference: np.ndarray) -> LanguageProof:
    """Compare a file of fp32 values with the model's log-probabilities (T,) of words given by its ids.

    Raises:
        UserError: one differs by more than 1e-5, times its size where that is above 1.
    """
    found = load_language_model(data).stream().score_ids(ids).astype(np.float64)
    errors = np.abs(found - reference) / np.maximum(1.0, np.abs(reference))
    worst = float(errors.max(initial=0.0))
    if not worst <= TOLERANCE:  # NaN fails as well
        place = int(np.nan_to_num(errors, nan=np.inf).argmax())
        raise UserError(
            f"not written: the file's log-probabilities differ from the model's by {worst:.2e}, allowed is "
            f"{TOLERANCE:.0e} (token {place}); please report this with the run folder"
        )
    return LanguageProof(len(ids), worst, _perplexity(reference))


def compact_language(
    spec: LanguageModelSpec, lines: Sequence[str], log_probs: LogProbs, *,
    values: str | None = None, max_bytes: int | None = None, tolerance: float = PERPLEXITY_TOLERANCE,
) -> CompactedLanguage:  # fmt: skip
    """Shrink the description, prove that it answers as the model does, and choose the stored values on held-out text.

    lines: held-out text, of which `PROOF_TOKENS` tokens are used. log_probs: the model's log-probabilities (T,) of ids
    (T,), those of `spec`, from a zero state that has read the end of a line. values: "fp32", "fp16", "int8", or None:
    the smallest file whose perplexity differs from that of the fp32 file by at most the share `tolerance`, or, with
    max_bytes, the closest one within this budget.

    Raises:
        UserError: the answers differ, or no file fits the budget.
    """
    spec = shrink_language(spec)
    exact = encode_language_model(spec, values="fp32")
    model = load_language_model(exact)
    chosen_lines = _first_lines(lines, model)
    ids = model.encode(chosen_lines)[0]
    ids = ids[ids >= 0]
    own = {word: number for number, word in enumerate(spec.words)}
    to_spec = np.array([own[word] for word in model.words], np.int64)
    proof = prove_language(exact, ids, log_probs(to_spec[ids]))
    tried = [LanguageCandidate("fp32", exact, _perplexity(model.stream().score_ids(ids)), 0.0)]
    for name in VALUES[1::-1]:  # fp16, int8
        if values in (None, name):
            data = encode_language_model(spec, values=name)
            perplexity = _perplexity(load_language_model(data).stream().score_ids(ids))
            tried.append(
                LanguageCandidate(name, data, perplexity, abs(perplexity / tried[0].perplexity - 1.0))
            )
    chosen = _choose(tried, values, max_bytes, tolerance)
    return CompactedLanguage(chosen.data, spec, chosen, tried, proof)


def _first_lines(lines: Sequence[str], model: RuntimeModel) -> list[str]:
    """Those that break careless code, and the first of the text."""
    chosen: list[str] = [*SPECIAL_LINES]
    count = 0
    for line in lines:
        if count >= PROOF_TOKENS:
            break
        chosen.append(line)
        count += 1 + len(model.tokens(line))
    return chosen


def _choose(
    tried: list[LanguageCandidate], values: str | None, max_bytes: int | None, tolerance: float
) -> LanguageCandidate:
    if values is not None:
        named = next(each for each in tried if each.values == values)
        if max_bytes is not None and len(named.data) > max_bytes:
            raise UserError(
                f"no file of {max_bytes:,} bytes: with {values} values it has {len(named.data):,}"
            )
        return named
    if max_bytes is None:
        return min((each for each in tried if each.change <= tolerance), key=lambda each: len(each.data))
    fitting = [each for each in tried if len(each.data) <= max_bytes]
    if not fitting:
        least = min(len(each.data) for each in tried)
        raise UserError(f"no file of {max_bytes:,} bytes: the smallest has {least:,}; train a smaller model")
    return min(fitting, key=lambda each: each.change)


def _perplexity(log_probs: np.ndarray) -> float:
    mean = -float(np.mean(log_probs, dtype=np.float64)) if len(log_probs) else math.nan
    return math.exp(mean) if not mean >= 700 else math.inf
