"""Answers with the artifact of a language model: numpy and the native engine, no torch. `karui.load(path)` makes one.

V words. Log-probabilities are natural logarithms. The state is zero at the beginning of a text, and the model first
reads the end of a line; from then on every token is predicted from all tokens before it, over line ends.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from karui import _native
from karui.errors import ArtifactError, UserError
from karui.runtime.language_output import AdaptiveOutput, ClassOutput, FullOutput, Output, TreeOutput
from karui.runtime.language_spec import LanguageModelSpec, check_spec
from karui.runtime.language_tokens import END, join_tokens, text_lines, tokenise_line
from karui.runtime.layers import ACTIVATIONS, CODES, FIELDS, RecurrentLayer

_BLOCK_LINES = 4096  # of a text that is measured, at a time


class TokenScore(NamedTuple):
    """A token of a text, its log-probability after the tokens before it, and whether the model has this word."""

    token: str
    log_prob: float
    is_known: bool


class TextScore(NamedTuple):
    """Log-probability of a text and of its tokens, the ends of lines among them."""

    log_prob: float
    tokens: list[TokenScore]


class Perplexity(NamedTuple):
    """Figures of a text; `oovs` counts the tokens that are not in the word list (a listed "<unk>" is a word)."""

    log_prob_of_known: float
    log_prob_of_oovs: float
    tokens: int
    oovs: int
    lines: int

    @property
    def log_prob(self) -> float:
        """Of all tokens."""
        return self.log_prob_of_known + self.log_prob_of_oovs

    @property
    def perplexity(self) -> float:
        """exp of minus the mean log-probability of all tokens; infinite if one of them is impossible."""
        return _perplexity(self.log_prob, self.tokens)

    @property
    def perplexity_without_oovs(self) -> float:
        """The same over the tokens that are in the word list; NaN if none is."""
        return _perplexity(self.log_prob_of_known, self.tokens - self.oovs)

    @property
    def bits_per_token(self) -> float:
        """Mean of minus log2 of the probability; per character (BPC) where the tokens are characters."""
        return -self.log_prob / self.tokens / math.log(2.0) if self.tokens else math.nan


def _perplexity(log_prob: float, tokens: int) -> float:
    if not tokens:
        return math.nan
    mean = -log_prob / tokens
    return math.exp(mean) if mean < 700 else math.inf


class LanguageModel:
    """A language model that answers. `threads` is the number of OpenMP threads; answers do not depend on it."""

    def __init__(self, spec: LanguageModelSpec, *, name: str = "model") -> None:
        check_spec(spec)
        self.name = name
        self.words = spec.words
        """V words; the id of a word is its place."""

        self.eos, self.unk = spec.eos, spec.unk
        self.tokenisation, self.lower = spec.tokenisation, spec.lower
        self.provenance = dict(spec.provenance)
        self._ids = {word: number for number, word in enumerate(spec.words)}
        tied = isinstance(spec.output, FullOutput) and spec.output.weight is None
        projection = spec.projection_weight, spec.projection_bias
        self._engine = _native.LanguageEngine(
            n_words=len(spec.words), embedding=None if tied else _plain(spec.embedding),
            embedding_dim=spec.embedding.shape[1], layers=[_layer_parts(layer) for layer in spec.layers],
            projection=None if projection[0] is None else tuple(map(_plain, projection)),
            **_output_parts(spec.output, spec.embedding),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, {len(self.words)} words, {self.tokenisation})"

    def tokens(self, line: str) -> list[str]:
        """Tokens of one line, without the end that follows."""
        return tokenise_line(line, self.tokenisation, lower=self.lower)

    def id_of(self, token: str) -> int:
        """Id of a token, that of unknown words if it is not in the list, or -1 if there is none."""
        number = self._ids.get(self.words[self.eos] if token == END else token)
        return number if number is not None else -1 if self.unk is None else self.unk

    def encode(self, lines: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids, int32 (T,), of the tokens of all lines, each with its end, -1 where there is none; which are listed."""
        tokens: list[str] = []
        end = self.words[self.eos]
        for line in lines:
            tokens += self.tokens(line)
            tokens.append(end)
        ids = np.fromiter((self._ids.get(token, -1) for token in tokens), np.int32, len(tokens))
        known = ids >= 0
        if self.unk is not None:
            ids[~known] = self.unk
        return ids, known

    def stream(self, *, threads: int = 1) -> "LanguageStream":
        """A text that arrives token by token."""
        return LanguageStream(self, threads=threads)

    def score(self, text: str, *, threads: int = 1) -> TextScore:
        """Log-probability of a text, all its lines ended; of an empty text, that of an empty line."""
        lines = text_lines(_checked(text))
        names = [token for line in lines for token in [*self.tokens(line), END]]
        ids, known = self.encode(lines)
        found = self.stream(threads=threads).score_ids(ids)
        scores = [TokenScore(*each) for each in zip(names, found.tolist(), known.tolist(), strict=True)]
        return TextScore(float(found.sum()), scores)

    def perplexity(self, lines: Iterable[str], *, threads: int = 1) -> Perplexity:
        """Figures of a text given as lines; the state is carried over their ends.

        Raises:
            UserError: there is no line.
        """
        if isinstance(lines, str):
            raise TypeError("lines must be several str, got one; give text_lines(text) or an open file")
        stream, waiting = self.stream(threads=threads), []
        found = Perplexity(0.0, 0.0, 0, 0, 0)
        for line in lines:
            waiting.append(line.removesuffix("\n").removesuffix("\r"))
            if len(waiting) == _BLOCK_LINES:
                found = self._with_lines(found, stream, waiting)
                waiting = []
        found = self._with_lines(found, stream, waiting)
        if not found.lines:
            raise UserError(f"{self.name}: there is no text to measure, not even an empty line")
        return found

    def _with_lines(self, found: Perplexity, stream: "LanguageStream", lines: list[str]) -> Perplexity:
        ids, known = self.encode(lines)
        log_prob = stream.score_ids(ids).astype(np.float64)
        return Perplexity(
            found.log_prob_of_known + float(log_prob[known].sum()),
            found.log_prob_of_oovs + float(log_prob[~known].sum()),
            found.tokens + len(ids),
            found.oovs + int((~known).sum()),
            found.lines + len(lines),
        )

    def next(self, text: str = "", k: int = 10, *, threads: int = 1) -> list[tuple[str, float]]:
        """The k most probable tokens after a text and their probabilities, best first; `END` ends a line."""
        return self.stream(threads=threads).feed_text(text).topk(k)

    def sample(
        self, prompt: str = "", *, tokens: int = 100, temperature: float = 1.0, top_k: int = 0, seed: int = 0,
        stop_at_end: bool = False, threads: int = 1,
    ) -> str:  # fmt: skip
        """Continue a prompt by drawn tokens; returns what follows the prompt.

        Each token takes one number of `numpy.random.Generator(PCG64(seed))` and inverts the distribution
        softmax(log_prob / temperature) over the words in the order of their ids, or with top_k over the top_k most
        probable ones, best first. temperature 0 takes the most probable one. stop_at_end: the first end of a line is
        the last token. The same seed gives the same text.
        """
        check_draws(tokens, temperature, top_k, len(self.words))
        random = np.random.Generator(np.random.PCG64(seed))
        stream, drawn = self.stream(threads=threads).feed_text(prompt), []
        for _ in range(tokens):
            number = stream.draw(random.random(), temperature=temperature, top_k=top_k)
            drawn.append(END if number == self.eos else self.words[number])
            stream.feed_id(number)
            if stop_at_end and number == self.eos:
                break
        return join_tokens(drawn, self.tokenisation)

    def finite(self, values: np.ndarray) -> np.ndarray:
        """Return the values; `ArtifactError` if one is not a finite number."""
        if not np.isfinite(values).all():
            raise ArtifactError(
                f"{self.name}: its answer is not a finite number; make the file again with `karui compact`"
            )
        return values


class LanguageStream:
    """A text token by token: reads tokens, tells how probable each next one is; the end of a line is read already."""

    def __init__(self, model: LanguageModel, *, threads: int = 1) -> None:
        self.model, self.threads = model, threads
        self._native = _native.LanguageStream(model._engine)  # noqa: SLF001 - one class in two halves
        self.feed_id(model.eos)

    def reset(self) -> "LanguageStream":
        """Begin a new text."""
        self._native.reset()
        return self.feed_id(self.model.eos)

    def copy(self) -> "LanguageStream":
        """Another stream that stands at the same place; each goes its own way."""
        other = object.__new__(LanguageStream)
        other.__dict__.update(self.__dict__)
        other._native = _native.LanguageStream(self.model._engine, self._native)  # noqa: SLF001
        return other

    __copy__ = copy

    def feed(self, token: str) -> "LanguageStream":
        """Read one token, `END` at the end of a line; an unknown one is passed over if the model has no word for it."""
        number = self.model.id_of(_checked(token))
        return self.feed_id(number) if number >= 0 else self

    def feed_id(self, number: int) -> "LanguageStream":
        """Read the word of an id."""
        self._native.feed(_id_array([number]), self.threads)
        return self

    def feed_text(self, text: str) -> "LanguageStream":
        """Read a text; its last line is not ended unless it ends in a line feed."""
        text = _checked(text)
        lines = text_lines(text)
        tokens = [token for line in lines for token in [*self.model.tokens(line), END]]
        if not text.endswith("\n"):
            tokens.pop()
        ids = [number for number in map(self.model.id_of, tokens) if number >= 0]
        self._native.feed(_id_array(ids), self.threads)
        return self

    def score_ids(self, ids: np.ndarray) -> np.ndarray:
        """Log-probability of each id, float32 (T,), and reads them; -1 is impossible (-inf) and not read."""
        ids = np.ascontiguousarray(ids, np.int32)
        out = np.full(len(ids), -np.inf, np.float32)
        known = np.flatnonzero(ids >= 0)
        for run in np.split(known, np.flatnonzero(np.diff(known) != 1) + 1):
            if len(run):
                out[run] = self.model.finite(self._native.score(ids[run], self.threads))
        return out

    def log_prob(self, token: str) -> float:
        """Log-probability that this token comes next."""
        number = self.model.id_of(_checked(token))
        if number < 0:
            return -math.inf
        return float(self.model.finite(np.asarray(self._native.log_prob(number, self.threads))))

    def log_probs(self) -> np.ndarray:
        """Log-probability of each word, float32 (V,)."""
        return self.model.finite(self._native.log_probs(self.threads))

    def topk(self, k: int = 10) -> list[tuple[str, float]]:
        """The k most probable next tokens and their probabilities, best first, equal ones by id; exact."""
        ids, log_prob = self._topk(k)
        words, eos = self.model.words, self.model.eos
        return [
            (END if number == eos else words[number], math.exp(value))
            for number, value in zip(ids.tolist(), log_prob.tolist(), strict=True)
        ]

    def draw(self, number: float, *, temperature: float = 1.0, top_k: int = 0) -> int:
        """Id of the word that a number from 0 to 1 falls on; see `LanguageModel.sample`."""
        if temperature == 0:
            return int(self._topk(1)[0][0])
        ids, log_prob = self._topk(top_k) if top_k else (None, self.log_probs())
        place = place_drawn(log_prob, number, temperature)
        return place if ids is None else int(ids[place])

    def _topk(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        if not 1 <= k <= len(self.model.words):
            raise UserError(f"k must be from 1 to {len(self.model.words)}, the number of words, got {k}")
        ids, log_prob = self._native.topk(k, self.threads)
        if len(ids) < k:
            self.model.finite(np.full(1, np.nan))
        return ids, log_prob


def check_draws(tokens: int, temperature: float, top_k: int, n_words: int) -> None:
    """Raise `UserError` for the first number of a sample that is out of range."""
    for name, value, expectation, is_met in (
        ("tokens", tokens, "at least 0", tokens >= 0),
        ("temperature", temperature, "finite and at least 0", 0 <= temperature < math.inf),
        ("top_k", top_k, f"from 0 to {n_words}, the number of words", 0 <= top_k <= n_words),
    ):
        if not is_met:
            raise UserError(f"{name} must be {expectation}, got {value}")


def place_drawn(log_prob: np.ndarray, number: float, temperature: float) -> int:
    """Place in log_prob (K,) that a number from 0 to 1 falls on, with the shares softmax(log_prob / temperature)."""
    with np.errstate(over="ignore"):  # a temperature near 0: what is less probable than the best has no share
        shares = np.exp((log_prob.astype(np.float64) - float(log_prob.max())) / temperature)
    upto = np.cumsum(shares)
    return min(int(np.searchsorted(upto, number * upto[-1], side="right")), len(upto) - 1)


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, got {type(text).__name__}: {text!r:.80}")
    return text


def _id_array(ids: Sequence[int]) -> np.ndarray:
    return np.asarray(ids, np.int32)


def _plain(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.ascontiguousarray(array, dtype=np.float32)


def _layer_parts(layer: RecurrentLayer) -> tuple[int, int, int, bool, dict[str, np.ndarray]]:
    found = {name: _plain(getattr(layer.directions[0], name)) for name in (*FIELDS, "alphas")}
    parts = {name: array for name, array in found.items() if array is not None}
    return CODES[layer.kind], ACTIVATIONS.index(layer.activation), layer.window, layer.output_gate, parts


def _output_parts(output: Output, embedding: np.ndarray) -> dict[str, object]:
    """Head, clusters and tree as the engine takes them."""
    if isinstance(output, TreeOutput):
        tree = np.ascontiguousarray(output.children, np.int32), _plain(output.weight), _plain(output.bias)
        return {"head": None, "clusters": [], "tree": tree}
    clusters = []
    if isinstance(output, FullOutput):
        weight = embedding if output.weight is None else output.weight
        head = weight, output.bias, np.arange(len(output.bias))
    elif isinstance(output, ClassOutput):
        head = output.class_weight, output.class_bias, np.zeros(0)
        order = np.argsort(output.classes, kind="stable")
        ends = np.cumsum(np.bincount(output.classes, minlength=len(output.class_bias)))
        clusters = [
            (None, output.weight[rows], output.bias[rows], rows) for rows in np.split(order, ends[:-1])
        ]
    else:
        assert isinstance(output, AdaptiveOutput)
        head = output.weight, output.bias, np.flatnonzero(output.tail_of == 0)
        clusters = [
            (tail.projection, tail.weight, tail.bias, np.flatnonzero(output.tail_of == number))
            for number, tail in enumerate(output.tails, 1)
        ]

    def parts(*arrays: np.ndarray | None) -> tuple[np.ndarray | None, ...]:
        return (*map(_plain, arrays[:-1]), np.ascontiguousarray(arrays[-1], np.int32))

    return {"head": parts(*head), "clusters": [parts(*each) for each in clusters], "tree": None}
