"""What stays of one layer of a recurrent module: numbers and sizes for one module of one layer."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from karui.compact.modules.cells import Cell
from karui.compact.modules.layout import Kept, cut
from karui.nn import SRUpp

_LEAST = {"stat": 1, "scale": 1, "rank": 1}  # a class takes no fewer
_SET_ELSEWHERE = frozenset(
    {
        "input_size",
        "hidden_size",
        "num_layers",
        "bidirectional",
        "dropout",
        "device",
        "dtype",
        "attention_every",
    }
)
Tensors = dict[str, np.ndarray]


@dataclass
class Piece:
    """Some directions of one layer, cut: what one module of one layer is made from."""

    rows: int
    columns: int
    options: dict[str, Any]
    tensors: Tensors
    skip: np.ndarray | None
    """Column that the highway adds to each unit, -1 for zero; None where there is no such highway."""
    bidirectional: bool

    @property
    def has_usual_skip(self) -> bool:
        """Whether the highway adds input j to output j."""
        return self.skip is None or np.array_equal(self.skip, np.arange(self.columns))


def pieces_of(cell: Cell, live: np.ndarray, columns: np.ndarray) -> list[Piece | None]:
    """One piece for both directions where they have the same sizes, else one a direction, None for an empty one."""
    kept = {suffix: _kept(cell, live, columns, suffix) for suffix in cell.suffixes}
    options = {suffix: _options(cell, kept[suffix]) for suffix in cell.suffixes}
    first, *others = cell.suffixes
    same = [
        options[first] == options[other]
        and all(kept[first][label].size == kept[other][label].size for label in kept[first])
        for other in others
    ]
    if all(same):
        return [_piece(cell, cell.suffixes, kept, options[first], columns)]
    return [
        _piece(cell, (suffix,), kept, options[suffix], columns)
        if len(kept[suffix][cell.out].positions)
        else None
        for suffix in cell.suffixes
    ]


def _kept(cell: Cell, live: np.ndarray, columns: np.ndarray, suffix: str) -> dict[str, Kept]:
    found = {"input": Kept.of(columns)}
    labels = [*cell.labels, "rank"] if ("rank", "") in cell.atoms else cell.labels
    for label in labels:
        found[label] = Kept.of(live[cell.of(label, suffix)], _LEAST.get(label, 0))
    if cell.module.proj_size:  # a projection has to be narrower than what it projects
        units = found["unit"].positions
        found["unit"] = Kept(units, max(len(units), found["out"].size + 1))
    return found


def usual_options(kind: type) -> dict[str, Any]:
    """The keyword arguments of a class that say what one layer computes, and their defaults."""
    if kind in {nn.LSTM, nn.GRU}:
        return {"bias": True, "batch_first": False, "proj_size": 0}
    signature = inspect.signature(kind).parameters.items()
    return {name: parameter.default for name, parameter in signature if name not in _SET_ELSEWHERE}


def _options(cell: Cell, kept: Mapping[str, Kept]) -> dict[str, Any]:
    """The keyword arguments of one layer, all but its sizes."""
    module = cell.module
    names = usual_options(type(module))
    found = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if module.proj_size:
        found["proj_size"] = kept["out"].size
    if "stat" in kept:
        alphas = [module.alphas[place] for place in kept["scale"].positions]
        found["alphas"] = alphas + [0.0] * (kept["scale"].size - len(alphas))
        found |= {"num_stats": kept["stat"].size, "recur_size": kept["recur"].size if "recur" in kept else 0}
        if cell.layer + 1 < module.num_layers:
            found["output_steps"] = "all"
    if "input_rank" in found:
        found["input_rank"] = kept["rank"].size if "rank" in kept else None
    if isinstance(module, SRUpp):
        found["attend"] = module.attends(cell.layer)
    return found


def _piece(
    cell: Cell,
    suffixes: tuple[str, ...],
    kept: Mapping[str, dict[str, Kept]],
    options: dict,
    columns: np.ndarray,
) -> Piece:
    tensors: Tensors = {}
    gone = set() if options["bias"] else {"bias", "bias_ih", "bias_hh", "bias_phi", "bias_r", "bias_o"}
    if not options.get("recur_size", 1):
        gone |= {"weight_phi", "weight_r", "bias_r"}
    for (name, suffix), axes in cell.axes.items():
        shared = (name, "_reverse") not in cell.axes and len(cell.suffixes) == 2
        if (suffix not in suffixes and not shared) or name in gone:
            continue
        own = kept[suffixes[0] if shared else suffix]
        place = "_reverse" if suffix and len(suffixes) == 2 else ""
        tensors[f"{name}_l0{place}"] = cut(cell.weights[name, suffix], axes, cell.sizes, own)
    options = dict(options)
    rows, count = kept[suffixes[0]]["unit"].size, int(columns.sum())
    if (options.get("input_rank") or 0) >= min(count, len(suffixes) * rows):
        rank = tensors.pop("weight_rank_l0")
        tensors |= {name: w @ rank for name, w in tensors.items() if name.startswith("weight_ih")}
        options["input_rank"] = None
    if cell.kind == "qrnn" and options.get("window") == 2:
        _narrow(tensors, options, count)
    skip = None
    if cell.skips:
        skip = np.concatenate([_skip(cell.skips[s], kept[s]["unit"], columns) for s in suffixes])
    return Piece(rows, count, options, tensors, skip, len(suffixes) == 2)


def _narrow(tensors: Tensors, options: dict[str, Any], columns: int) -> None:
    """A QRNN that never reads the input before needs no second half of its columns."""
    weights = [name for name in tensors if name.startswith("weight_ih")]
    if any(tensors[name][:, columns:].any() for name in weights):
        return
    for name in weights:
        tensors[name] = tensors[name][:, :columns]
    options["window"] = 1


def _skip(skip: np.ndarray, units: Kept, columns: np.ndarray) -> np.ndarray:
    """The column that the highway adds to each unit that stays, -1 where it is gone."""
    place = np.where(columns, np.cumsum(columns) - 1, -1)
    found = np.full(units.size, -1)
    found[: len(units.positions)] = place[skip[units.positions]]
    return found
