"""From what stays of a recurrent module to a smaller one: of its own class where that can be, else a stack."""

from typing import Any

import numpy as np
import torch
from torch import nn

from karui.compact.modules.cells import Cell
from karui.compact.modules.layers import Built, chosen_columns, with_selection
from karui.compact.modules.parameters import KINDS
from karui.compact.modules.pieces import Piece, Tensors, pieces_of, usual_options
from karui.compact.modules.plain import make
from karui.nn import SRUpp

_NAMES = {"statistical": "statistical-ru"}


def build_stack(cells: list[Cell], live: np.ndarray, positions: float, *, joined: bool) -> Built:
    """Cut all layers; positions: how often the matrices are multiplied."""
    module, first = cells[0].module, cells[0]
    columns = live[first.of("input", "")]
    selected = _selected(first, live, columns)
    if selected is not None:
        columns = columns.copy()
        columns[np.flatnonzero(columns)[~selected]] = False
    layers: list[list[Piece | None]] = []
    for cell in cells:
        layers.append(pieces_of(cell, live, columns))
        columns = np.concatenate([live[cell.of(cell.out, suffix)] for suffix in cell.suffixes])
    spec, tensors = _whole(module, layers) or _stack(module, layers, joined=joined)
    if selected is not None:
        spec, tensors = with_selection(spec, tensors, selected)
    part = "-".join("+".join(str(int(live[c.of(c.out, s)].sum())) for s in c.suffixes) for c in cells)
    before = sum(w.size for cell in cells for w in cell.weights.values() if w.ndim == 2)
    after = sum(
        w.size for layer in layers for piece in layer if piece for w in piece.tensors.values() if w.ndim == 2
    )
    return Built(spec, tensors, part, (positions * before, positions * after))


def _selected(cell: Cell, live: np.ndarray, columns: np.ndarray) -> np.ndarray | None:
    """(kept inputs,) boolean: those worth gathering before the layer; None where all are."""
    if cell.whole_input:
        return None
    read = np.zeros(len(columns), bool)
    rows = 0
    for atoms, matrix in cell.input_reads:
        read |= matrix[live[atoms]].any(axis=0)
        rows += int(live[atoms].sum())
    return chosen_columns(read[columns][None], rows)


def _whole(module: Any, layers: list[list[Piece | None]]) -> tuple[dict[str, Any], Tensors] | None:
    """One module of its own class for all layers, where that holds what stays."""
    pieces = [layer[0] for layer in layers]
    first = pieces[0]
    if len(layers) == 1 and len(layers[0]) == 1 and first is not None:
        return _single(module, first)
    for layer, piece in zip(layers, pieces, strict=True):
        if len(layer) > 1 or piece is None or first is None or not piece.has_usual_skip:
            return None
        if (piece.rows, _common(piece.options)) != (first.rows, _common(first.options)):
            return None
    assert first is not None
    assert pieces[-1] is not None
    options = pieces[-1].options | {"num_layers": len(layers), "dropout": module.dropout}
    if isinstance(module, SRUpp):
        options |= {"attention_every": module.attention_every, "attend": True}
    spec = _spec(module, first, options)
    tensors = {
        name.replace("_l0", f"_l{k}"): value
        for k, piece in enumerate(pieces)
        if piece is not None
        for name, value in piece.tensors.items()
    }
    return (spec, tensors) if _fits(spec, tensors) else None


def _common(options: dict[str, Any]) -> dict[str, Any]:
    """Options that all layers of one module share."""
    return {name: value for name, value in options.items() if name not in {"output_steps", "attend"}}


def _stack(module: Any, layers: list[list[Piece | None]], *, joined: bool) -> tuple[dict[str, Any], Tensors]:
    """Each layer, or each direction of it, a module of its own."""
    specs: list[Any] = []
    tensors: Tensors = {}
    for k, layer in enumerate(layers):
        made = [None if piece is None else _single(module, piece) for piece in layer]
        found = [None if one is None else one[0] for one in made]
        specs.append(found if len(layer) > 1 else found[0])
        for i, one in enumerate(made):
            if one is not None:
                tensors |= {f"layers.{k}.{i}.{name}": value for name, value in one[1].items()}
    spec = {
        "kind": "uneven",
        "layers": specs,
        "batch_first": module.batch_first,
        "dropout": module.dropout,
        "parts": 2 if KINDS[type(module)] == "lstm" else 1,
        "joined": joined and not any(len(layer) > 1 for layer in layers),
    }
    return spec, tensors


def _single(module: Any, piece: Piece) -> tuple[dict[str, Any], Tensors]:
    """One layer: of its own class, else of the class whose highway has lost some of its features."""
    spec = _spec(module, piece, piece.options)
    if piece.options.get("attend", True) and piece.has_usual_skip and _fits(spec, piece.tensors):
        return spec, piece.tensors
    spec["kind"] = spec["kind"].replace("karui:", "trimmed:")
    if piece.skip is not None:
        spec["options"]["skip"] = "gather"
        return spec, piece.tensors | {"skip_index": np.where(piece.skip < 0, piece.columns, piece.skip)}
    blocks = len(piece.tensors["weight_ih_l0"]) // piece.rows
    spec["options"]["skip"] = "project" if blocks == 4 else "none"
    return spec, piece.tensors


def _spec(module: Any, piece: Piece, options: dict[str, Any]) -> dict[str, Any]:
    kind = type(module)
    name = kind.__name__ if kind in {nn.LSTM, nn.GRU} else f"karui:{_NAMES.get(KINDS[kind], KINDS[kind])}"
    usual = usual_options(kind) | {
        "attend": True,
        "attention_every": 1,
        "dropout": 0.0,
        "bidirectional": False,
    }
    given = options | {"bidirectional": piece.bidirectional}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    plain = {key: value for key, value in plain.items() if key not in usual or value != usual[key]}
    return {"kind": name, "rows": piece.rows, "columns": piece.columns, "options": plain}


def _fits(spec: dict[str, Any], tensors: Tensors) -> bool:
    """Tell whether the class makes a layer that has just these parameters."""
    with torch.random.fork_rng(devices=[]):
        made = make(spec).state_dict()
    return {name: tuple(t.shape) for name, t in made.items()} == {
        name: t.shape for name, t in tensors.items()
    }
