"""Weights from and to other packages: the `sru` package (2017 form, 2.x, 3.0 keys) and `torch.nn.LSTM` and `GRU`.

T time, B batch, I input features, H hidden size, D directions, L layers, G gate blocks, p rank. The `sru` package keeps
a layer's weight as (I, D*H*G), gate blocks fastest, then unit, then direction; its `weight_c` and `bias` are (2, D, H),
forget block first; its state is (L, B, D*H).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from karui.nn.gru import GRU
from karui.nn.lstm import LSTM
from karui.nn.sru import SRU

VERSIONS = ("2.6", "3.0")


class _PackageLayer(NamedTuple):
    """One layer of a checkpoint of the `sru` package, whatever its version."""

    weight: Tensor  # (I or p, D*H*G)
    projection: Tensor | None  # (I, p)
    weight_c: Tensor | None  # (2*D*H,)
    bias: Tensor  # (2*D*H,)
    scale: float
    norm_weight: Tensor | None
    norm_bias: Tensor | None

    @property
    def input_size(self) -> int:
        return len(self.weight if self.projection is None else self.projection)

    @property
    def width(self) -> int:
        """D*H."""
        return len(self.bias) // 2

    @property
    def blocks(self) -> int:
        """G, or 0 where the weight does not fit the bias."""
        blocks, rest = divmod(self.weight.shape[1], self.width)
        return 0 if rest else blocks


def read_state_dict(source: Mapping[str, Tensor] | str | Path) -> dict[str, Tensor]:
    """A mapping as it is; a path ending in .safetensors, or any other by `torch.load(weights_only=True)`.

    Raises ValueError where that gives anything but names and tensors.
    """
    state: object = source
    if isinstance(source, str | Path):
        if Path(source).suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(source)
        else:
            state = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"a state dict must map names to tensors, got {type(state).__name__} of other things"
        )
    return {str(name): value.detach() for name, value in state.items()}


def sru_from_package(
    source: Mapping[str, Tensor] | str | Path,
    *,
    bidirectional: bool = False,
    variant: str | None = None,
    activation: str | None = None,
    has_skip_term: bool | None = None,
    layer_norm: str | None = None,
    prefix: str = "",
) -> SRU:
    """Build an SRU that computes what a model of the `sru` package computes.

    source: its state dict (keys `rnn_lst.{i}.*` after `prefix`), or a .pt or .safetensors file that holds one.

    A checkpoint does not store these, so say them where the model did not use the package's default:
    bidirectional; activation (None: "tanh" for a checkpoint of 2017 without weight_c, else "identity"); variant (None:
    "v1" where every weight_c is zero, else "v2"); has_skip_term and layer_norm ("pre" or "post") where the widths do
    not tell (None: True and "pre", the package's defaults). Dropout rates are left at 0: set the attributes.
    The skip's scale is read from `scale_x`, not from the trained bias.

    Raises ValueError where keys or shapes do not fit each other or what was said.
    """
    layers = _package_layers(read_state_dict(source), prefix)
    first, D = layers[0], 2 if bidirectional else 1
    H, rest = divmod(first.width, D)
    if rest:
        raise ValueError(f"bidirectional=True needs an even width, the checkpoint has {first.width}")
    for i, layer in enumerate(layers):
        if layer.width != first.width or layer.blocks not in (3, 4):
            raise ValueError(
                f"layer {i} has a weight of {tuple(layer.weight.shape)} and a bias of {len(layer.bias)}: "
                f"expected 3 or 4 blocks of {first.width}"
            )
        if i and layer.input_size != first.width:
            raise ValueError(
                f"layer {i} reads {layer.input_size} features, layer {i - 1} gives {first.width}"
            )
    vectors = [layer.weight_c for layer in layers if layer.weight_c is not None]
    variant = _variant(variant, vectors)
    model = SRU(
        first.input_size,
        H,
        len(layers),
        bidirectional=bidirectional,
        layer_norm=_layer_norm(layer_norm, layers),
        variant=variant,
        activation=activation or ("identity" if vectors else "tanh"),
        rescale=_scale(layers),
        has_skip_term=_has_skip(has_skip_term, layers),
        input_rank=_rank(layers),
    ).to(first.weight.dtype)
    state: dict[str, Tensor] = {}
    for i, layer in enumerate(layers):
        state |= _karui_layer(layer, i, model)
    model.load_state_dict(state)
    return model


def sru_to_package(model: SRU, *, version: str = "2.6") -> dict[str, Tensor]:
    """The state dict that the `sru` package, version "2.6" or "3.0" (its development branch), reads.

    Build the package's model with the same sizes, `projection_size=input_rank`, `use_tanh`, `v1`, `rescale`,
    `has_skip_term`, `layer_norm` and `normalize_after` (for "post"). Raises ValueError for what it has no place for.
    """
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {VERSIONS}, got {version!r}")
    if model.proj_size or model.activation == "relu":
        raise ValueError(
            f"the sru package has neither proj_size nor relu, got proj_size={model.proj_size}, "
            f"activation={model.activation!r}"
        )
    D, H = model.num_directions, model.hidden_size
    state = {}
    for i in range(model.num_layers):
        name, weight = f"rnn_lst.{i}", model.parameter("weight_ih", i).detach()
        G = model.gate_blocks(i)
        weight = weight.view(D, G, H, -1).permute(3, 0, 2, 1).reshape(-1, D * H * G)  # to (I, D*H*G)
        ranked = model.layer_rank(i) is not None
        if version == "2.6":
            state[f"{name}.weight"] = weight
            if ranked:
                state[f"{name}.weight_proj"] = getattr(model, f"weight_rank_l{i}").detach().t().contiguous()
        else:
            second = "transform_module.1" if ranked else "transform_module"
            state[f"{name}.{second}.weight"] = weight.t().contiguous()
            if ranked:
                state[f"{name}.transform_module.0.weight"] = (
                    getattr(model, f"weight_rank_l{i}").detach().clone()
                )
        zeros = weight.new_zeros(2 * D * H)
        has = {"weight_c": model.variant == "v2", "bias": model.bias}
        for kind in ("weight_c", "bias"):
            vector = model.parameter(kind, i).detach() if has[kind] else zeros
            state[f"{name}.{kind}"] = vector.view(D, 2, H).transpose(0, 1).reshape(-1).clone()
        state[f"{name}.scale_x"] = weight.new_full((1,), model.skip_scale if model.has_skip_term else 1.0)
        if model.layer_norm is not None:
            for kind in ("weight", "bias"):
                state[f"{name}.layer_norm.{kind}"] = getattr(model, f"norm_{kind}_l{i}").detach().clone()
    return state


def state_from_package(c: Tensor, *, bidirectional: bool = False) -> Tensor:
    """The package's state (L, B, D*H) as `hx` (L*D, B, H)."""
    L, B, width = c.shape
    D = 2 if bidirectional else 1
    return c.reshape(L, B, D, width // D).transpose(1, 2).reshape(L * D, B, width // D)


def state_to_package(hx: Tensor, *, bidirectional: bool = False) -> Tensor:
    """`hx` (L*D, B, H) as the package's state (L, B, D*H)."""
    D = 2 if bidirectional else 1
    many, B, H = hx.shape
    return hx.reshape(many // D, D, B, H).transpose(1, 2).reshape(many // D, B, D * H)


def from_torch(layer: nn.LSTM | nn.GRU) -> LSTM | GRU:
    """karui's LSTM or GRU with the sizes, options, weights, dtype and device of torch's; the weights are copied.

    Raises ValueError for another layer.
    """
    kind = LSTM if isinstance(layer, nn.LSTM) else GRU
    if not isinstance(layer, nn.LSTM | nn.GRU):
        raise ValueError(f"layer must be torch.nn.LSTM or torch.nn.GRU, got {type(layer).__name__}")  # noqa: TRY004
    return _rebuild(layer, kind)  # type: ignore[return-value]


def to_torch(layer: LSTM | GRU) -> nn.LSTM | nn.GRU:
    """torch's layer with the weights of karui's, copied; raises ValueError where an option has no place there."""
    if not isinstance(layer, LSTM | GRU):
        raise ValueError(f"layer must be karui's LSTM or GRU, got {type(layer).__name__}")  # noqa: TRY004
    for name in ("layer_norm", "recurrent_dropout"):
        if getattr(layer, name, None):
            raise ValueError(f"torch's layer has no {name}, got {name}={getattr(layer, name)!r}")
    return _rebuild(layer, nn.LSTM if isinstance(layer, LSTM) else nn.GRU)  # type: ignore[return-value]


def _rebuild(layer: nn.RNNBase, kind: type[nn.Module]) -> nn.Module:
    options = {
        name: getattr(layer, name)
        for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
        + (("proj_size",) if isinstance(layer, nn.LSTM) else ())
    }
    twin = kind(layer.input_size, layer.hidden_size, **options)
    example = next(layer.parameters())
    twin = twin.to(dtype=example.dtype, device=example.device).train(layer.training)
    twin.load_state_dict(layer.state_dict())
    return twin


def _package_layers(state: dict[str, Tensor], prefix: str) -> list[_PackageLayer]:
    names = {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}
    if not any(name.startswith("rnn_lst.") for name in names):
        found = sorted({name.split("rnn_lst.")[0] for name in state if "rnn_lst." in name})
        raise ValueError(f"no key starts with {prefix + 'rnn_lst.'!r}; prefixes that would fit: {found}")
    if "input_to_hidden.weight" in names:
        raise ValueError(
            "a checkpoint with proj_input_to_hidden_first=True (input_to_hidden) has no twin in karui"
        )
    count = 1 + max(int(name.split(".")[1]) for name in names if name.startswith("rnn_lst."))
    layers = []
    for i in range(count):
        start = f"rnn_lst.{i}."
        parts = {
            name.removeprefix(start): state[full] for name, full in names.items() if name.startswith(start)
        }
        layers.append(_package_layer(parts, i))
    return layers


def _package_layer(parts: dict[str, Tensor], i: int) -> _PackageLayer:
    """Read one layer; the 3.0 keys hold the transposes of the 2.x keys."""
    projection = parts.get("weight_proj")
    weight = parts.get("weight")
    if "transform_module.weight" in parts:
        weight = parts["transform_module.weight"].t()
    elif "transform_module.1.weight" in parts and "transform_module.0.weight" in parts:
        weight, projection = parts["transform_module.1.weight"].t(), parts["transform_module.0.weight"].t()
    if weight is None or "bias" not in parts:
        raise ValueError(
            f"layer {i} needs a weight and a bias of the sru package, got {sorted(parts)} "
            f"(a custom transform cannot be converted)"
        )
    if weight.dim() != 2 or parts["bias"].dim() != 1 or not len(parts["bias"]):
        raise ValueError(
            f"layer {i} needs a matrix and a vector, got weight {tuple(weight.shape)}, "
            f"bias {tuple(parts['bias'].shape)}"
        )
    if projection is not None and projection.shape[1] != len(weight):
        raise ValueError(
            f"layer {i} has a projection to {projection.shape[1]}, its weight reads {len(weight)}"
        )
    for name in ("weight_c", "bias"):
        if name in parts and parts[name].shape != parts["bias"].shape:
            raise ValueError(f"layer {i}: {name} {tuple(parts[name].shape)} differs from the bias in shape")
    scale = float(parts["scale_x"]) if "scale_x" in parts else 1.0
    norm = parts.get("layer_norm.weight"), parts.get("layer_norm.bias")
    return _PackageLayer(weight, projection, parts.get("weight_c"), parts["bias"], scale, *norm)


def _variant(said: str | None, vectors: list[Tensor]) -> str:
    reads_state = any(bool(vector.count_nonzero()) for vector in vectors)
    if said == "v1" and reads_state:
        raise ValueError("variant='v1' has no weight_c, but the checkpoint holds one that is not zero")
    return said or ("v2" if reads_state else "v1")


def _scale(layers: list[_PackageLayer]) -> bool | float:
    """One number for all layers that read their input as the skip; False stands for 1."""
    scales = {layer.scale for layer in layers if layer.blocks == 3}
    if len(scales) > 1:
        raise ValueError(f"scale_x must be one number in all layers, got {sorted(scales)}")
    scale = scales.pop() if scales else 1.0
    return False if scale == 1.0 else scale


def _has_skip(said: bool | None, layers: list[_PackageLayer]) -> bool:
    told = {layer.blocks == 4 for layer in layers if layer.input_size != layer.width}
    if len(told) > 1 or any(layer.blocks == 4 for layer in layers if layer.input_size == layer.width):
        raise ValueError(
            f"gate blocks {[layer.blocks for layer in layers]} do not fit the widths of the layers"
        )
    if said is not None and told and said not in told:
        raise ValueError(f"has_skip_term={said} does not fit a first layer of {layers[0].blocks} gate blocks")
    return next(iter(told)) if told else said is not False


def _layer_norm(said: str | None, layers: list[_PackageLayer]) -> str | None:
    norms = [layer.norm_weight for layer in layers]
    if all(norm is None for norm in norms):
        if said is not None:
            raise ValueError(f"layer_norm={said!r}, but the checkpoint has no layer_norm")
        return None
    for kind in ("pre", "post") if said is None else (said,):
        widths = [layer.input_size if kind == "pre" else layer.width for layer in layers]
        if [None if norm is None else len(norm) for norm in norms] == widths:
            return kind
    raise ValueError(
        f"layer_norm={said!r} does not fit norms of {[None if n is None else len(n) for n in norms]}"
    )


def _rank(layers: list[_PackageLayer]) -> int | None:
    """The rank of every projection that makes a layer smaller; the others are multiplied out."""
    ranks = {len(layer.weight) for layer in layers if _is_smaller(layer)}
    if len(ranks) > 1:
        raise ValueError(f"projections must have one rank in all layers, got {sorted(ranks)}")
    rank = ranks.pop() if ranks else None
    for i, layer in enumerate(layers):
        if rank is not None and not _is_smaller(layer) and rank < min(layer.input_size, layer.width):
            raise ValueError(f"layer {i} has no projection to {rank} features, other layers have")
    return rank


def _is_smaller(layer: _PackageLayer) -> bool:
    return layer.projection is not None and len(layer.weight) < min(layer.input_size, layer.width)


def _karui_layer(layer: _PackageLayer, i: int, model: SRU) -> dict[str, Tensor]:
    D, H, G = model.num_directions, model.hidden_size, layer.blocks
    weight, state = layer.weight, {}
    if _is_smaller(layer):
        state[f"weight_rank_l{i}"] = layer.projection.t()  # type: ignore[union-attr]
    elif layer.projection is not None:
        weight = layer.projection @ weight
    weight = weight.reshape(-1, D, H, G).permute(1, 3, 2, 0).reshape(D, G * H, -1)  # from (I, D*H*G)
    for d, suffix in enumerate(model.suffixes):
        state[f"weight_ih_l{i}{suffix}"] = weight[d]
        state[f"bias_l{i}{suffix}"] = layer.bias.view(2, D, H)[:, d].reshape(-1)
        if model.variant == "v2":
            vector = torch.zeros_like(layer.bias) if layer.weight_c is None else layer.weight_c
            state[f"weight_c_l{i}{suffix}"] = vector.view(2, D, H)[:, d].reshape(-1)
    if layer.norm_weight is not None and layer.norm_bias is not None:
        state[f"norm_weight_l{i}"], state[f"norm_bias_l{i}"] = layer.norm_weight, layer.norm_bias
    return state
