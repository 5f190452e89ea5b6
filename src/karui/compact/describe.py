"""From a recurrent module to the layers of a description, every weight kept.

H hidden size, D directions, G gate blocks, P statistics, R recurrent units, A scales.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from karui.nn.registry import RECURRENT, recurrent_class
from karui.runtime.format import Direction, RecurrentLayer

# What a layer of a description has no place for: a module that uses it is refused by name.
_UNKNOWN = {
    "proj_size": 0,
    "layer_norm": None,
    "linear_output": False,
    "include_input": False,
    "output_steps": "all",
    "zoneout": 0.0,
}


def recurrent_layers(module: nn.Module) -> list[RecurrentLayer]:
    """Describe a layer of `karui.nn.registry`, or torch's own LSTM or GRU.

    Raises:
        ValueError: anything else, or a layer with an option that an artifact cannot hold, such as proj_size.
    """
    name = _name_of(module)
    for option, usual in _UNKNOWN.items():
        if (value := getattr(module, option, usual)) != usual:
            raise ValueError(
                f"cannot describe {type(module).__name__} with {option}={value!r}: train without it"
            )
    layer: Any = module  # the options below are those of the layer's class
    suffixes = ("", "_reverse") if layer.bidirectional else ("",)
    activation = "identity" if name in ("qrnn", "mingru") else getattr(layer, "activation", "tanh")
    return [
        RecurrentLayer(
            kind="statistical" if name == "statistical-ru" else name,
            directions=[_DIRECTIONS[name](layer, k, suffix) for suffix in suffixes],
            activation=activation,
            window=getattr(layer, "window", 1),
            output_gate=getattr(layer, "output_gate", True),
        )
        for k in range(layer.num_layers)
    ]


def _name_of(module: nn.Module) -> str:
    plain = {"lstm": nn.LSTM, "gru": nn.GRU}
    for name in RECURRENT:
        if isinstance(module, plain.get(name) or recurrent_class(name)):
            return name
    raise ValueError(f"cannot describe {type(module).__name__}: expected a layer of {RECURRENT}")


def plain_array(tensor: Tensor) -> np.ndarray:
    """A float32 copy."""
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def _own(module: nn.Module, name: str, layer: int, suffix: str, *shape: int) -> np.ndarray:
    """A parameter of one layer and direction; zeros of `shape` where the module has none."""
    found = getattr(module, f"{name}_l{layer}{suffix}", None)
    return np.zeros(shape, np.float32) if found is None else plain_array(found)


def _sru(module: Any, layer: int, suffix: str) -> Direction:
    """Four blocks always: the skip scale * x becomes rows with one entry, no skip becomes rows of zeros.

    Without weight_c, version 1, the gates read the state with weight 0. A weight of low rank is multiplied out.
    """
    weight, H = getattr(module, f"weight_ih_l{layer}{suffix}"), module.hidden_size
    if module.layer_rank(layer) is not None:
        weight = weight.detach().double() @ getattr(module, f"weight_rank_l{layer}").detach().double()
    weight = plain_array(weight)
    if module.gate_blocks(layer) == 3:
        skip = np.zeros((H, weight.shape[1]), np.float32)
        if module.has_skip_term:
            skip[np.arange(H), (H if suffix else 0) + np.arange(H)] = module.skip_scale
        weight = np.concatenate([weight, skip])
    bias, weight_c = (_own(module, name, layer, suffix, 2 * H) for name in ("bias", "weight_c"))
    return Direction(weight_ih=weight, weight_hh=None, bias=bias, weight_c=weight_c)


def _torch(module: Any, layer: int, suffix: str) -> Direction:
    weight_ih, weight_hh = (_own(module, f"weight_{side}", layer, suffix) for side in ("ih", "hh"))
    ih, hh = (_own(module, f"bias_{side}", layer, suffix, len(weight_ih)) for side in ("ih", "hh"))
    H = weight_hh.shape[1]
    # the candidate of a GRU multiplies its hidden half by the reset gate, so those two biases stay apart
    is_lstm = isinstance(module, nn.LSTM)
    bias = ih + hh if is_lstm else np.concatenate([(ih + hh)[: 2 * H], ih[2 * H :], hh[2 * H :]])
    return Direction(weight_ih=weight_ih, weight_hh=weight_hh, bias=bias)


def _statistical(module: Any, layer: int, suffix: str) -> Direction:
    P, R, H, states = module.num_stats, module.recur_size, module.hidden_size, module.state_size
    sizes = (("bias_phi", P), ("bias_r", R), ("bias_o", H))
    return Direction(
        weight_ih=_own(module, "weight_ih", layer, suffix),
        weight_hh=None,
        bias=np.concatenate([_own(module, name, layer, suffix, size) for name, size in sizes]),
        weight_r=_own(module, "weight_r", layer, suffix, R, states),
        weight_phi=_own(module, "weight_phi", layer, suffix, P, R),
        weight_o=_own(module, "weight_o", layer, suffix),
        alphas=plain_array(module.decays(layer, suffix, torch.zeros(()))),
    )


def _input_gates(module: Any, layer: int, suffix: str) -> Direction:
    """QRNN and minGRU: all gates in weight_ih, in the order of the file."""
    weight_ih = _own(module, "weight_ih", layer, suffix)
    return Direction(
        weight_ih=weight_ih, weight_hh=None, bias=_own(module, "bias_ih", layer, suffix, len(weight_ih))
    )


_DIRECTIONS: dict[str, Callable[[Any, int, str], Direction]] = {
    "sru": _sru,
    "statistical-ru": _statistical,
    "lstm": _torch,
    "gru": _torch,
    "qrnn": _input_gates,
    "mingru": _input_gates,
}
