"""From a plain TextClassifier to the deployable description, every weight kept.

E embedding width, H hidden size, D directions, G gate blocks, C outputs, V words.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from karui.compact.weights import check_finite
from karui.nn import SRU
from karui.runtime.format import ClassifierSpec, Direction, RecurrentLayer
from karui.tasks.text_classifier import TextClassifier

NORMALISATION = "words-v1"


def to_spec(
    model: TextClassifier, words: Sequence[str], labels: Sequence[str], *, max_tokens: int = 0
) -> ClassifierSpec:
    """Describe `model` (plain: after `karui.sparse.harden`) with all its words, units and columns.

    words: word i has row i + 1 of the embedding. labels: class names, two for one output. max_tokens: 0 is no
    limit.

    Raises:
        ValueError: words or labels do not fit the model, or it still holds sparse layers.
        UserError: a weight is not finite, so nothing can be folded exactly.
    """
    if not isinstance(model.embedding, nn.Embedding):
        raise ValueError(f"model.embedding is a {type(model.embedding).__name__}: call harden(model) first")  # noqa: TRY004
    table = _array(model.embedding.weight)
    if len(words) + 1 != len(table):
        raise ValueError(f"words must be {len(table) - 1} for this model, got {len(words)}")
    if len(labels) != max(model.n_outputs, 2):
        raise ValueError(f"labels must be {max(model.n_outputs, 2)} for this model, got {len(labels)}")
    table[0] = 0.0
    E = model.embedding_dim
    if model.output is not None:
        weight, bias = _array(model.output.weight), _array(model.output.bias)
    else:
        assert model.output_bias is not None
        weight, bias = np.zeros((model.n_outputs, 0), np.float32), _array(model.output_bias)
    spec = ClassifierSpec(
        words=list(words),
        labels=list(labels),
        normalisation=NORMALISATION,
        max_tokens=max_tokens,
        embedding=np.ascontiguousarray(table[:, :E]),
        layers=recurrent_layers(model.recurrent) if model.recurrent is not None else [],
        pooling=model.pooling,
        output_weight=weight,
        output_bias=bias,
        word_scores=np.ascontiguousarray(table[:, E:]) if table.shape[1] > E else None,
    )
    check_finite(spec)
    return spec


def recurrent_layers(module: nn.Module) -> list[RecurrentLayer]:
    """Describe an SRU, LSTM or GRU (karui's or torch's own); raises ValueError for anything else."""
    kinds: tuple[tuple[str, type[nn.Module]], ...] = (("sru", SRU), ("lstm", nn.LSTM), ("gru", nn.GRU))
    kind = next((name for name, cls in kinds if isinstance(module, cls)), None)
    if kind is None or getattr(module, "proj_size", 0):
        raise ValueError(f"cannot describe {module}: expected a plain SRU, LSTM or GRU without proj_size")
    activation = module.activation if isinstance(module, SRU) else "tanh"
    suffixes = ("", "_reverse") if module.bidirectional else ("",)
    layers = []
    for k in range(module.num_layers):  # type: ignore[arg-type]
        if isinstance(module, SRU):
            directions = [_sru_direction(module, k, d) for d in range(len(suffixes))]
        else:
            directions = [_torch_direction(module, f"l{k}{suffix}", kind) for suffix in suffixes]
        layers.append(RecurrentLayer(kind=kind, activation=activation, directions=directions))
    return layers


def _sru_direction(module: SRU, layer: int, d: int) -> Direction:
    """Four blocks always: the skip scale * x becomes rows with one entry, no skip becomes rows of zeros."""
    name = f"l{layer}" + ("_reverse" if d else "")
    weight, H = _array(getattr(module, f"weight_ih_{name}")), module.hidden_size
    if module.gate_blocks(layer) == 3:
        skip = np.zeros((H, weight.shape[1]), np.float32)
        if module.has_skip_term:
            skip[np.arange(H), d * H + np.arange(H)] = module.skip_scale
        weight = np.concatenate([weight, skip])
    return Direction(
        weight_ih=weight,
        weight_hh=None,
        bias=_array(getattr(module, f"bias_{name}")),
        weight_c=_array(getattr(module, f"weight_c_{name}")),
    )


def _torch_direction(module: nn.Module, name: str, kind: str) -> Direction:
    weight_ih, weight_hh = (_array(getattr(module, f"weight_{side}_{name}")) for side in ("ih", "hh"))
    if getattr(module, "bias", True):
        ih, hh = (_array(getattr(module, f"bias_{side}_{name}")) for side in ("ih", "hh"))
    else:
        ih = hh = np.zeros(len(weight_ih), np.float32)
    H = weight_hh.shape[1]
    # the candidate of a GRU multiplies its hidden half by the reset gate, so those two biases stay apart
    bias = ih + hh if kind == "lstm" else np.concatenate([(ih + hh)[: 2 * H], ih[2 * H :], hh[2 * H :]])
    return Direction(weight_ih=weight_ih, weight_hh=weight_hh, bias=bias, weight_c=None)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()
