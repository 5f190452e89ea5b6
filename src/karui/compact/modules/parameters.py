"""The parameters of each kind of recurrent layer: what their rows and columns belong to, and how many there are.

Labels: "input", "unit" (of the hidden layer), "out" (of a projection), "rank" (of an input product of low rank); of the
Statistical Recurrent Unit "stat", "recur" and "scale".
"""

from typing import Any

import numpy as np
from torch import nn

from karui.compact.modules.layout import Axes, axes
from karui.nn import GRU, LSTM, QRNN, SRU, MinGRU, SRUpp, StatisticalRecurrentUnit
from karui.runtime.format import weight_blocks

# By exact class: a subclass may compute anything.
KINDS: dict[type, str] = {
    nn.LSTM: "lstm", nn.GRU: "gru", LSTM: "lstm", GRU: "gru", SRU: "sru", SRUpp: "srupp", QRNN: "qrnn",
    MinGRU: "mingru", StatisticalRecurrentUnit: "statistical",
}  # fmt: skip
TORCH = frozenset({"lstm", "gru"})
_NEVER_CUT = (
    *("norm_weight", "norm_bias", "attention_norm_weight", "attention_norm_bias"),
    *("weight_kv", "attention_scale"),
)


def sizes_of(module: Any, layer: int, inputs: int) -> dict[str, int]:
    """How many things of each label a layer has."""
    sizes = {"input": inputs, "unit": module.hidden_size, "out": module.proj_size}
    if isinstance(module, StatisticalRecurrentUnit):
        sizes |= {"stat": module.num_stats, "recur": module.recur_size, "scale": len(module.alphas)}
    rank = getattr(module, f"weight_rank_l{layer}", None)
    return sizes if rank is None else sizes | {"rank": len(rank)}


def axes_of(module: Any, layer: int, kind: str) -> tuple[dict[str, Axes], dict[str, Axes]]:
    """The parameters of one direction, and those that both directions share, by their names."""
    both: dict[str, Axes] = {}
    if kind == "statistical":
        own = _statistical_axes(module)
    elif kind in {"sru", "srupp"}:
        low_rank = hasattr(module, f"weight_rank_l{layer}")
        own = {"weight_ih": axes(f"{module.gate_blocks(layer)} unit", "rank" if low_rank else "input")}
        own["bias"] = axes("2 unit")
        if module.variant == "v2":
            own["weight_c"] = axes("2 unit")
        if low_rank:
            both["weight_rank"] = axes("rank", "input")
    else:
        gates = f"{weight_blocks(kind, output_gate=getattr(module, 'output_gate', True))} unit"
        own = {"weight_ih": axes(gates, f"{getattr(module, 'window', 1)} input"), "bias_ih": axes(gates)}
        if kind in TORCH:
            own |= {"weight_hh": axes(gates, "out" if module.proj_size else "unit"), "bias_hh": axes(gates)}
    if module.proj_size:
        own["weight_hr"] = axes("out", "unit")
    for name in _NEVER_CUT:
        if (found := getattr(module, f"{name}_l{layer}", None)) is not None:
            both[name] = axes(*(str(size) for size in found.shape))
    return own, both


def _statistical_axes(module: Any) -> dict[str, Axes]:
    own = {
        "weight_ih": axes("stat", "input"),
        "bias_phi": axes("stat"),
        "weight_o": axes("unit", "scale stat | input" if module.include_input else "scale stat"),
        "bias_o": axes("unit"),
    }
    if module.recur_size:
        own |= {
            "weight_phi": axes("stat", "recur"),
            "weight_r": axes("recur", "scale stat"),
            "bias_r": axes("recur"),
        }
    return own | ({"alpha_logit": axes("scale")} if module.learn_alphas else {})


def skips_of(module: Any, layer: int, kind: str, suffixes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The input (H,) that the highway adds to each unit as it is, by direction; empty where none is added so."""
    if kind not in {"sru", "srupp"} or not module.has_skip_term or module.gate_blocks(layer) != 3:
        return {}
    units = np.arange(module.hidden_size)
    return {suffix: units + place * module.hidden_size for place, suffix in enumerate(suffixes)}
