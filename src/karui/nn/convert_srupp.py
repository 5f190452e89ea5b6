"""SRU++ from and to the `sru` package's development branch 3.0, which alone has it.

D directions, H hidden size, G gate blocks, p attention size. The package's last product is (D*H*G, p), gate blocks
fastest; its `weight_c` and `bias` are (2, D, H).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from karui.nn.convert import read_state_dict
from karui.nn.srupp import SRUpp

MODULE = "transform_module."


def srupp_from_package(
    source: Mapping[str, Tensor] | str | Path,
    *,
    num_heads: int = 1,
    bidirectional: bool = False,
    causal: bool = False,
    memory_len: int = 0,
    layer_norm: str | None = None,
    prefix: str = "",
) -> SRUpp:
    """Build an SRUpp that computes what the package's SRUpp computes.

    source: its state dict (keys `rnn_lst.{i}.*` after `prefix`), or a .pt or .safetensors file that holds one. A
    checkpoint does not store num_heads, bidirectional, the mask (causal) nor how much memory was kept (memory_len, in
    steps). layer_norm: "pre" or "post" where the widths do not tell; None takes "pre", the package's default.
    Raises ValueError where keys or shapes do not fit.
    """
    layers = _layers(read_state_dict(source), prefix)
    for i, parts in enumerate(layers):
        if f"{MODULE}linear1.weight" not in parts or "bias" not in parts:
            raise ValueError(f"layer {i} is not of an SRUpp: it has {sorted(parts)}")
    rank = [parts[f"{MODULE}linear1.weight"] for parts in layers]
    width, D = len(layers[0]["bias"]) // 2, 2 if bidirectional else 1
    if width % D:
        raise ValueError(f"bidirectional=True needs an even width, the checkpoint has {width}")
    scales = {float(p["scale_x"]) for p, r in zip(layers, rank, strict=True) if r.shape[1] == width}
    if len(scales) > 1:
        raise ValueError(f"scale_x must be one number in all layers, got {sorted(scales)}")
    scale = scales.pop() if scales else 1.0
    model = SRUpp(
        rank[0].shape[1],
        width // D,
        len(layers),
        attention_size=len(rank[0]),
        num_heads=num_heads,
        attention_every=_every(layers),
        causal=causal,
        memory_len=memory_len,
        attention_norm=f"{MODULE}layer_norm.weight" in layers[0],
        bidirectional=bidirectional,
        layer_norm=_norm(layer_norm, layers),
        rescale=False if scale == 1.0 else scale,
    ).to(rank[0].dtype)
    expected, state = model.state_dict(), {}
    for i, parts in enumerate(layers):
        for name, tensor in _karui_layer(parts, i, model).items():
            if name not in expected or tensor.shape != expected[name].shape:
                raise ValueError(f"layer {i} of the checkpoint does not fit: {name} {tuple(tensor.shape)}")
            state[name] = tensor
    model.load_state_dict(state)
    return model


def srupp_to_package(model: SRUpp) -> dict[str, Tensor]:
    """The state dict that the package's SRUpp reads; raises ValueError for what it has no place for."""
    if model.proj_size or model.activation != "identity" or not model.has_skip_term:
        raise ValueError(
            "the package's SRUpp has no proj_size and no activation, and always a skip term: got "
            f"proj_size={model.proj_size}, activation={model.activation!r}, has_skip_term={model.has_skip_term}"
        )
    D, H, state = model.num_directions, model.hidden_size, {}
    for i in range(model.num_layers):

        def of(kind: str, i: int = i) -> Tensor:
            return getattr(model, f"{kind}_l{i}").detach().clone()

        start, G, last = f"rnn_lst.{i}.", model.gate_blocks(i), _last(attends=model.attends(i))
        weight = model.parameter("weight_ih", i).detach()
        state[f"{start}{MODULE}linear1.weight"] = of("weight_rank")
        state[f"{start}{MODULE}{last}.weight"] = (
            weight.view(D, G, H, -1).transpose(1, 2).reshape(D * H * G, -1)
        )
        if model.attends(i):
            state[f"{start}{MODULE}linear2.weight"] = of("weight_kv")
            state[f"{start}{MODULE}alpha"] = of("attention_scale")
        for kind in ("weight", "bias"):
            if model.attention_norm:
                state[f"{start}{MODULE}layer_norm.{kind}"] = of(f"attention_norm_{kind}")
            if model.layer_norm is not None:
                state[f"{start}layer_norm.{kind}"] = of(f"norm_{kind}")
        for kind in ("weight_c", "bias"):
            has = kind == "weight_c" or model.bias
            vector = model.parameter(kind, i).detach() if has else weight.new_zeros(2 * D * H)
            state[f"{start}{kind}"] = vector.view(D, 2, H).transpose(0, 1).reshape(-1).clone()
        state[f"{start}scale_x"] = weight.new_full((1,), model.skip_scale)
    return state


def _last(*, attends: bool) -> str:
    """The package's name of the product that gives the gates."""
    return "linear3" if attends else "linear2"


def _layers(state: dict[str, Tensor], prefix: str) -> list[dict[str, Tensor]]:
    start = f"{prefix}rnn_lst."
    numbers = {int(name.removeprefix(start).split(".")[0]) for name in state if name.startswith(start)}
    if not numbers:
        raise ValueError(f"no key starts with {start!r}")
    if f"{prefix}input_to_hidden.weight" in state:
        raise ValueError(
            "a checkpoint with proj_input_to_hidden_first=True (input_to_hidden) has no twin in karui"
        )
    own = [f"{start}{i}." for i in range(max(numbers) + 1)]
    return [{name.removeprefix(key): state[name] for name in state if name.startswith(key)} for key in own]


def _every(layers: list[dict[str, Any]]) -> int:
    attends = [f"{MODULE}alpha" in parts for parts in layers]
    every = attends.index(True) + 1 if any(attends) else 0
    if not every or attends != [(i + 1) % every == 0 for i in range(len(layers))]:
        raise ValueError(f"attention must be in every n-th layer, the checkpoint has it in {attends}")
    return every


def _norm(said: str | None, layers: list[dict[str, Tensor]]) -> str | None:
    norms = [parts.get("layer_norm.weight") for parts in layers]
    if all(norm is None for norm in norms):
        if said is not None:
            raise ValueError(f"layer_norm={said!r}, but the checkpoint has no layer_norm")
        return None
    first = norms[0]
    pre = first is not None and len(first) == layers[0][f"{MODULE}linear1.weight"].shape[1]
    return said or ("pre" if pre else "post")


def _karui_layer(parts: dict[str, Tensor], i: int, model: SRUpp) -> dict[str, Tensor]:
    D, H = model.num_directions, model.hidden_size
    names = {
        "layer_norm.weight": "norm_weight",
        "layer_norm.bias": "norm_bias",
        f"{MODULE}linear1.weight": "weight_rank",
        f"{MODULE}alpha": "attention_scale",
        f"{MODULE}layer_norm.weight": "attention_norm_weight",
        f"{MODULE}layer_norm.bias": "attention_norm_bias",
    } | ({f"{MODULE}linear2.weight": "weight_kv"} if model.attends(i) else {})
    last = f"{MODULE}{_last(attends=model.attends(i))}.weight"
    for name in (last, "weight_c", "bias"):
        if name not in parts or parts[name].numel() % (2 * D * H if name != last else D * H):
            raise ValueError(f"layer {i} needs {name} of {D * H} units, got {sorted(parts)}")
    state = {f"{own}_l{i}": parts[name] for name, own in names.items() if name in parts}
    weight = parts[last].view(D, H, -1, parts[last].shape[1]).transpose(1, 2)  # (D, G, H, p)
    for d, suffix in enumerate(model.suffixes):
        state[f"weight_ih_l{i}{suffix}"] = weight[d].reshape(-1, weight.shape[-1])
        for kind in ("weight_c", "bias"):
            state[f"{kind}_l{i}{suffix}"] = parts[kind].view(2, D, H)[:, d].reshape(-1)
    return state
