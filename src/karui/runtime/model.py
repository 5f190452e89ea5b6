"""Answers with an artifact: numpy and the native engine, no torch. `karui.load(path)` is `load` of this file."""

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from karui import _native
from karui.errors import ArtifactError, UserError
from karui.runtime.language import LanguageModel
from karui.runtime.layers import ACTIVATIONS, CODES, FIELDS, Direction
from karui.runtime.pairs import find_pairs, pair_keys
from karui.runtime.reader import read_any, read_artifact
from karui.runtime.spec import POOLINGS, ClassifierSpec, check_spec
from karui.runtime.tokenise import settled_length

_CHUNK_TOKENS = 1 << 20  # ids of the texts with one word left out, at a time


class Contribution(NamedTuple):
    """Influence of one word on the answer: how much its logit falls when the word is not known."""

    word: str
    start: int
    end: int
    weight: float


def load(path: str | os.PathLike[str] | bytes) -> Any:
    """Model of an artifact, given by path or as bytes: a `Classifier`, or a `LanguageModel`.

    `ArtifactError` says in one line what is wrong with the file.
    """
    name = "artifact" if isinstance(path, bytes) else os.fspath(path)
    spec = read_any(path).spec
    if isinstance(spec, ClassifierSpec):
        return Classifier(spec, name=name)
    return LanguageModel(spec, name=name)


def load_classifier(path: str | os.PathLike[str] | bytes) -> "Classifier":
    """Like `load`, where only a text classifier will do."""
    name = "artifact" if isinstance(path, bytes) else os.fspath(path)
    return Classifier(read_artifact(path).spec, name=name)


def load_language_model(path: str | os.PathLike[str] | bytes) -> LanguageModel:
    """Like `load`, where only a language model will do."""
    model = load(path)
    if not isinstance(model, LanguageModel):
        raise ArtifactError(
            f"{model.name}: this is a text classifier, not a language model; give a file of another task"
        )
    return model


class Classifier:
    """A text classifier that answers. C labels, C' logits (1 for two labels, else C).

    `texts` is one str or a list of str; one str answers with one row less. `threads` is the number of OpenMP threads.
    """

    def __init__(self, spec: ClassifierSpec, *, name: str = "model") -> None:
        check_spec(spec)
        self.spec = spec
        self.name = name
        self._engine = _native.Engine(
            spec.words, embedding=_plain(spec.embedding), pooling=POOLINGS.index(spec.pooling),
            layers=[
                (
                    CODES[layer.kind], ACTIVATIONS.index(layer.activation), layer.window, layer.output_gate,
                    [_parts(direction) for direction in layer.directions],
                )
                for layer in spec.layers
            ],
            output_weight=_plain(spec.output_weight), output_bias=_plain(spec.output_bias),
            word_scores=_plain(spec.word_scores), max_tokens=spec.max_tokens, **_pair_parts(spec),
        )  # fmt: skip

    @property
    def words(self) -> list[str]:
        """Kept words, sorted; word i has id i + 1."""
        return self.spec.words

    @property
    def labels(self) -> list[str]:
        """Names of the classes."""
        return self.spec.labels

    def __repr__(self) -> str:
        return f"Classifier({self.name!r}, {len(self.words)} words, labels={self.labels})"

    def logits(self, texts: str | Iterable[str], *, threads: int = 1) -> np.ndarray:
        """Logits, float32 (n, C'); (C',) for one str."""
        if isinstance(texts, str):
            return self._finite(self._engine.logits([texts], threads))[0]
        return self._finite(self._engine.logits(_text_list(texts), threads))

    def logits_ids(self, ids: Sequence[np.ndarray], *, threads: int = 1) -> np.ndarray:
        """Logits, float32 (n, C'), of documents given as word ids (0 .. number of words); without `max_tokens`."""
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum([len(document) for document in ids], out=offsets[1:])
        flat = np.concatenate(
            [np.zeros(0, np.int64), *(np.asarray(document) for document in ids if len(document))]
        )
        if not np.issubdtype(flat.dtype, np.integer):
            raise TypeError(f"word ids must be integers, got {flat.dtype}")
        outside = (flat < 0) | (flat > len(self.words))
        if outside.any():
            raise ValueError(f"a word id must be in 0 .. {len(self.words)}, got {flat[outside][0]}")
        return self._finite(self._engine.logits_ids(flat.astype(np.int32), offsets, threads))

    def predict_proba(self, texts: str | Iterable[str], *, threads: int = 1) -> np.ndarray:
        """Probabilities, float32 (n, C); (C,) for one str."""
        return _probabilities(self.logits(texts, threads=threads))

    def predict(self, texts: str | Iterable[str], *, threads: int = 1) -> str | list[str]:
        """The most probable label of each text; one label for one str."""
        logits = self.logits(texts, threads=threads)
        if logits.ndim == 1:
            return self.labels[_best(logits)]
        return [self.labels[_best(row)] for row in logits]

    def stream(self) -> "Stream":
        """Reader of a text that arrives in pieces; needs a model with one direction."""
        if not self._engine.one_way:
            raise UserError(
                f"{self.name}: a stream needs a model that reads in one direction; train with one direction"
            )
        return Stream(self)

    def contributions(self, text: str, label: str | None = None) -> list[Contribution]:
        """Each word of a text with its influence on the logit of a label (default: the predicted one).

        The weight is exact: logit of the text minus logit of the text in which this word is not known. Only the score
        of a pair, which is lost with either of its words, counts half for each. Words that are not in the list weigh
        0. With two labels the logit of labels[0] is minus that of labels[1].
        """
        ids, spans = self._engine.spans(text)
        base = self.logits_ids([ids])[0]
        number = _best(base) if label is None else self._label_number(label)
        sign, column = ((1.0 if number else -1.0), 0) if len(base) == 1 else (1.0, number)
        known = np.flatnonzero(ids)
        weights = np.zeros(len(ids))
        step = max(1, _CHUNK_TOKENS // len(ids))
        for begin in range(0, len(known), step):
            places = known[begin : begin + step]
            without = np.repeat(ids[None], len(places), axis=0)
            without[np.arange(len(places)), places] = 0
            weights[places] = sign * (base[column] - self.logits_ids(list(without))[:, column])
        weights -= sign * self._pair_halves(ids)[:, column]
        return [
            Contribution(text[start:end], int(start), int(end), float(weight))
            for (start, end), weight in zip(spans.reshape(-1, 2), weights, strict=True)
            if end
        ]

    def _pair_halves(self, ids: np.ndarray) -> np.ndarray:
        """(T, C'): half of the scores of the pairs that each token of a text is in."""
        halves = np.zeros((len(ids), len(self.spec.output_bias)))
        pairs, scores = self.spec.pairs, self.spec.pair_scores
        if pairs is not None and scores is not None and len(pairs):
            wanted = pair_keys(np.stack([ids[:-1], ids[1:]], axis=1), len(self.words))
            rows = find_pairs(pairs, len(self.words), wanted)
            found = np.where(rows[:, None] >= 0, scores[rows], 0.0)
            halves[:-1] += found / 2
            halves[1:] += found / 2
        return halves / math.sqrt(len(ids))

    def _label_number(self, label: str) -> int:
        if label not in self.labels:
            raise UserError(
                f"{self.name}: there is no label {label!r}; the labels are {', '.join(self.labels)}"
            )
        return self.labels.index(label)

    def _finite(self, logits: np.ndarray) -> np.ndarray:
        finite = math.isfinite(logits.item()) if logits.size == 1 else np.isfinite(logits).all()
        if not finite:
            raise ArtifactError(
                f"{self.name}: its answer is not a finite number; make the file again with `karui compact`"
            )
        return logits


class Stream:
    """A text in pieces; after each piece the answer equals that of the text so far."""

    def __init__(self, model: Classifier) -> None:
        self._model = model
        self._stream = _native.Stream(model._engine)  # noqa: SLF001 - one class in two halves
        self._rest = ""

    def feed(self, piece: str) -> "Stream":
        """Read on. The end of the piece may be half a word: it waits for the next piece."""
        if not isinstance(piece, str):
            raise TypeError(f"a text must be a str, got {type(piece).__name__}: {piece!r}")
        text = self._rest + piece
        cut = settled_length(text)
        self._stream.feed(text[:cut])
        self._rest = text[cut:]
        return self

    def logits(self) -> np.ndarray:
        """Logits of the text so far, float32 (C',)."""
        return self._model._finite(self._stream.logits(self._rest))  # noqa: SLF001

    def predict_proba(self) -> np.ndarray:
        """Probabilities of the text so far, float32 (C,)."""
        return _probabilities(self.logits())

    def predict(self) -> str:
        """Most probable label of the text so far."""
        return self._model.labels[_best(self.logits())]


def _plain(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.ascontiguousarray(array, dtype=np.float32)


def _pair_parts(spec: ClassifierSpec) -> dict[str, np.ndarray | None]:
    if spec.pairs is None:
        return {}
    return {"pairs": np.ascontiguousarray(spec.pairs, np.int32), "pair_scores": _plain(spec.pair_scores)}


def _parts(direction: Direction) -> dict[str, np.ndarray]:
    parts = {name: _plain(getattr(direction, name)) for name in (*FIELDS, "alphas")}
    return {name: array for name, array in parts.items() if array is not None}


def _text_list(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, bytes):
        raise TypeError(f"a text must be a str, got bytes: {texts[:40]!r}")
    try:
        return list(texts)
    except TypeError:
        raise TypeError(
            f"texts must be a str or a list of str, got {type(texts).__name__}: {texts!r}"
        ) from None


def _best(logits: np.ndarray) -> int:
    return int(logits.item() > 0) if len(logits) == 1 else int(np.argmax(logits))


def _probabilities(logits: np.ndarray) -> np.ndarray:
    if logits.shape == (1,):  # one text, two labels: numpy's calls would take longer than the model
        e = math.exp(-min(abs(logits.item()), 700.0))
        high, low = 1 / (1 + e), e / (1 + e)
        return np.array([low, high] if logits.item() > 0 else [high, low], dtype=np.float64).astype(
            np.float32
        )
    if logits.shape[-1] == 1:
        with np.errstate(over="ignore", under="ignore"):
            positive = 1 / (1 + np.exp(-logits.astype(np.float64)))
            negative = 1 / (1 + np.exp(logits.astype(np.float64)))
        return np.concatenate([negative, positive], axis=-1).astype(np.float32)
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
