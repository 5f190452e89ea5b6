"""The language model: embedding, recurrent stack, output layer.

T time, B batch, V words, E features of a token, H hidden size.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.nn.registry import build_recurrent
from karui.output import registry
from karui.output.base import OutputLayer
from karui.output.flat import FlatOutput
from karui.sparse.joint import join_gates
from karui.sparse.layers import SparseLayer
from karui.sparse.outputs import SparseOutput
from karui.tasks.language_settings import LanguageModelSettings
from karui.tasks.sequence_model import set_gate_bias
from karui.tasks.settings import SparseSettings
from karui.tasks.sparse_task import make_sparse, sparse_method

SAMPLED = frozenset({"importance", "importance-target", "sampled", "nce", "negative", "blackout"})
FACTORISED = frozenset({"huffman", "class", "adaptive"})
"""Outputs without a (V, E) table of their own: they cannot share the embedding's."""

_BESIDE_AUTO = {
    "chunk_size": int,
    "n_clusters": int,
    "cutoffs": tuple,
    "unigram_power": float,
} | dict.fromkeys(("remove_accidental_hits", "head_bias"), bool)
"""What an output layer's option may be whose default, "auto" or None, does not tell."""

_KIND_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of whole numbers",
}

SPARSE_CLASSES = 50_000
"""From this many words up the embedding's gradient holds the rows that were read, as the output layers' does."""


class LanguageModel(nn.Module):
    """forward(ids (T, B), state=None) -> (hidden (T, B, E'), state); `output` turns hidden into a loss or words.

    E' is E where the table is tied (through `projection` where H differs from E), else H. `counts` (V,) are the
    occurrences of the words in the training text. The state is the recurrent layer's; None begins from zeros.
    Parameters: embedding.weight, recurrent.*, projection.* (tied and H != E), output.*.
    Raises ValueError on settings that do not go together.
    """

    def __init__(self, counts: Tensor, settings: LanguageModelSettings) -> None:
        super().__init__()
        self.settings = settings
        n_words, width = len(counts), settings.embedding_dim or settings.hidden_size
        if settings.one_hot:
            width = {"lstm": 4, "gru": 3}[settings.recurrent] * settings.hidden_size
        self.embedding = nn.Embedding(n_words, width, sparse=n_words >= SPARSE_CLASSES)
        bound = math.sqrt(3.0 / width) if settings.embedding_init == "sru" else 0.1
        nn.init.uniform_(self.embedding.weight, -bound, bound)
        self.recurrent = build_recurrent(
            settings.recurrent,
            width,
            settings.hidden_size,
            settings.num_layers,
            dropout=settings.dropout,
            options=settings.options(),
        )
        if settings.one_hot:
            read_gates(self.recurrent)
        if settings.gate_bias is not None:
            set_gate_bias(self.recurrent, settings.recurrent, settings.gate_bias)
        needs_projection = settings.tied and settings.hidden_size != width
        self.projection = nn.Linear(settings.hidden_size, width) if needs_projection else None
        self.output = self._build_output(settings.output, counts)
        self._finish: list[OutputLayer] = []  # in a list: its tensors are those of `output`, listed there
        if settings.output_finish is not None and settings.output_finish != settings.output:
            self._finish.append(self._build_finish(settings.output_finish, counts))

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """ids (T, B) to hidden (T, B, E') and the state behind the last step."""
        settings = self.settings
        x = self.embedding(ids)
        if self.training and settings.word_dropout:
            x = x * word_mask(ids, settings.word_dropout, x)
        x = self._dropped(x, settings.input_dropout)
        h, state = self.recurrent(x, state)
        if self.projection is not None:
            h = self.projection(h)
        return self._dropped(h, settings.output_dropout), state

    def output_of(self, *, finish: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss that training uses: the first output layer's, or that of the last share of the epochs."""
        if not finish or not self._finish:
            return self.output
        output: Any = self.output
        return output.loss_by(self._finish[0]) if isinstance(output, SparseOutput) else self._finish[0]

    def with_dense_gradients(self) -> "LanguageModel":
        """Let no table's gradient hold rows alone: where every weight is drawn, all are needed. Returns self."""
        self.embedding.sparse = False
        for layer in (self.output, *self._finish):
            if isinstance(layer, FlatOutput):
                layer.sparse = layer.sparse_grad = False
        return self

    def _dropped(self, x: Tensor, rate: float) -> Tensor:
        if not rate or not self.training:
            return x
        if not self.settings.shared_masks:
            return F.dropout(x, rate)
        return x * x.new_empty(1, *x.shape[1:]).bernoulli_(1.0 - rate).div_(1.0 - rate)

    def _build_output(self, name: str, counts: Tensor, *, weight: nn.Parameter | None = None) -> OutputLayer:
        settings = self.settings
        if settings.tied and name in FACTORISED:
            raise ValueError(f"tied must be false for {name}, whose weights are no table of the words")
        if settings.tied and weight is None:
            table = self.embedding.weight
            assert isinstance(table, nn.Parameter)
            weight = table
        width = self.embedding.embedding_dim if settings.tied else settings.hidden_size
        options = output_options(settings, name)
        try:
            return registry.build_output(name, width, counts, weight=weight, options=options)
        except ValueError as error:
            is_own = str(error).partition(" ")[0] in (settings.output_options or {})
            raise ValueError(f"output_options.{error}" if is_own else str(error)) from error

    def _build_finish(self, name: str, counts: Tensor) -> OutputLayer:
        if name in FACTORISED or self.settings.output in FACTORISED:
            raise ValueError(f"output_finish must be of the family of {self.settings.output}, got {name}")
        weight = self.output.weight
        assert isinstance(weight, nn.Parameter)
        layer = self._build_output(name, counts, weight=weight)
        layer.bias = self.output.bias
        return layer


def build_language_model(
    counts: Tensor, settings: LanguageModelSettings, sparse: SparseSettings
) -> LanguageModel:
    """The untrained model of a recipe, its layers sparse unless `sparse.method` is "none".

    Raises ValueError on settings that do not go together, UserError on groups that no layer has.
    """
    model = LanguageModel(counts, settings)
    if sparse.method == "none":
        return model
    if settings.tied:
        raise ValueError(
            "tied must be false for a sparse model: embedding and output each prune a table of their own"
        )
    if settings.output in FACTORISED:
        raise ValueError(
            f"output must be a layer with one table for a sparse model, such as full, not {settings.output}"
        )
    made = make_sparse(model.with_dense_gradients(), sparse, scope="layer")
    assert isinstance(made, LanguageModel)
    if settings.one_hot and "gate" in (sparse.groups or ()):
        _join_gates(made, sparse)
    return made


def _join_gates(model: LanguageModel, sparse: SparseSettings) -> None:
    """Let the columns that the first layer has for each word share its gates, as one matrix would."""
    table, recurrent = model.embedding, model.recurrent
    if not isinstance(table, SparseLayer):
        raise ValueError(  # noqa: TRY004  a setting is wrong
            "one_hot with the group gate needs weight, word or dimension too: the words' columns share the gates"
        )
    assert isinstance(recurrent, SparseLayer)
    join_gates(table, recurrent, "gate_l0", sparse_method(sparse, scope="layer").gate)


@torch.no_grad()
def read_gates(layer: nn.Module) -> None:
    """Let the first layer of an LSTM or GRU take its input as what the gates read: a fixed identity for its matrix.

    Then the table (V, G * H) before it holds the columns that the matrix has for each word.
    """
    width = len(layer.weight_ih_l0)  # type: ignore[arg-type]
    like = layer.weight_ih_l0
    assert isinstance(like, Tensor)
    del layer.weight_ih_l0
    layer.register_buffer(
        "weight_ih_l0", torch.eye(width, dtype=like.dtype, device=like.device), persistent=False
    )
    layer._init_flat_weights()  # type: ignore[operator]  # noqa: SLF001  torch's list of what its kernels read


def output_options(settings: LanguageModelSettings, name: str) -> dict[str, Any]:
    """Keyword arguments of an output layer's constructor, those that are settings of their own and the rest."""
    options: dict[str, Any] = {}
    if name in SAMPLED:
        options["num_samples"] = settings.num_samples
        if settings.noise != "auto":
            options["noise"] = settings.noise
    if name == settings.output:
        options |= _checked_options(name, settings.output_options or {})
    return options


def _checked_options(name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse options that the output layer does not have, and values of another type than it takes."""
    known = registry.output_options(name)
    for word, value in given.items():
        if word not in known:
            has = ", ".join(sorted(known)) or "none"
            raise ValueError(f"output_options: {name} has no option {word!r}; it has {has}")
        kind = _BESIDE_AUTO.get(word, type(known[word]))
        kinds = {float: (int, float), tuple: (tuple, list)}.get(kind, kind)
        is_kind = isinstance(value, kinds) and (kind is bool or not isinstance(value, bool))
        if not is_kind and not (known[word] == value == "auto"):
            raise ValueError(f"output_options.{word} must be {_KIND_WORDS[kind]}, got {value!r}")
    return given


def word_mask(ids: Tensor, rate: float, like: Tensor) -> Tensor:
    """(T, B, 1): zero for all occurrences of the share `rate` of the words in `ids`, 1 / (1 - rate) for the others."""
    found, inverse = ids.unique(return_inverse=True)
    kept = torch.empty(len(found), dtype=like.dtype, device=like.device).bernoulli_(1.0 - rate)
    return (kept / (1.0 - rate))[inverse].unsqueeze(-1)
