"""`sparsify(model, method)`: every layer that offers the method's groups becomes sparse, in place."""

from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.utils import parametrize

from karui.nn.stacked import StackedRecurrence
from karui.output.flat import FlatOutput
from karui.sparse.division import Division
from karui.sparse.gate import Gate
from karui.sparse.groups import canonical
from karui.sparse.layers import SparseLayer
from karui.sparse.offers import OFFERS, Offer, offered, recurrent, table
from karui.sparse.outputs import SparseOutput
from karui.sparse.weight import SharedGate, SparseWeight

# First match wins: the layers of karui's own, then torch's.
LAYERS: tuple[Offer, ...] = (recurrent(StackedRecurrence), table(FlatOutput, SparseOutput), *OFFERS)
# Layers with large weights that nothing is offered for: left dense in silence, they would look pruned.
REFUSED = (
    nn.RNNBase,
    nn.RNNCellBase,
    nn.EmbeddingBag,
    nn.Bilinear,
    nn.MultiheadAttention,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class Method(Protocol):
    """What a sparsifying method is to `sparsify`; `HardConcrete` is one."""

    @property
    def name(self) -> str:
        """Its name in settings and on the command line."""
        ...

    @property
    def groups(self) -> tuple[str, ...] | None:
        """What lives or dies as one; None: "word" where there are embeddings."""
        ...

    def gate(self, *divisions: Division, layer: str = "") -> Gate:
        """A gate over the units of weights that share it."""
        ...

    def weight(
        self,
        weight: Tensor,
        divisions: dict[str, Division],
        shared: tuple[SharedGate, ...],
        *,
        zero_row: int | None = None,
        layer: str = "",
    ) -> SparseWeight:
        """State of one weight."""
        ...


def sparsify(model: nn.Module, method: Method, *, exclude: tuple[str, ...] = ()) -> nn.Module:
    """Replace the layers inside `model` that `method` makes sparse by their sparse versions, in place; returns it.

    Layers: Linear, Conv1d, Conv2d, Embedding, `Factorised`, every recurrent layer of `karui.nn`, torch's LSTM and GRU,
    the output layers of `karui.output` with one table.
    exclude: names of submodules (as in `named_modules`) to leave dense. If `model` is such a layer itself, its sparse
    version is returned. A layer that offers none of the groups stays dense, unless the method makes every weight
    random. Raises ValueError, naming the layer, when nothing can be made sparse, a group finds no layer, an excluded
    name does not exist, or a layer or a weight is of a kind that is not offered.
    """
    names = {name for name, _ in model.named_modules()}
    for name in exclude:
        if name not in names:
            raise ValueError(f"exclude names {name!r}, which the model does not have")
    if any(isinstance(module, SparseLayer) for module in model.modules()):
        raise ValueError("the model is sparse already: sparsify it once")
    found = _find(model, exclude)
    if not found:
        raise ValueError("the model holds no Linear, Embedding or recurrent layer to make sparse")
    groups = _groups(method, found)
    found = {
        name: pair for name, pair in found.items() if method.name == "vd" or set(groups) & {*pair[1].groups}
    }
    _refuse_tied(model, found)
    _refuse_unknown_layers(method, found)
    wrapped = {name: _wrap(name, layer, offer, method, groups) for name, (layer, offer) in found.items()}
    for name, sparse in wrapped.items():
        if not name:
            return sparse
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, sparse)
    return model


def _find(model: nn.Module, exclude: tuple[str, ...]) -> dict[str, tuple[nn.Module, Offer]]:
    """The layers to wrap, by name; those inside another are its own."""
    found: dict[str, tuple[nn.Module, Offer]] = {}
    for name, module in model.named_modules():
        if any(name == other or name.startswith(f"{other}.") for other in exclude):
            continue
        if any(name.startswith(f"{outer}.") or not outer for outer in found):
            continue
        offer = next((offer for offer in LAYERS if isinstance(module, offer.kind)), None)
        if offer is not None:
            _check(name, module, offer)
            found[name] = module, offer
        elif isinstance(module, REFUSED):
            raise ValueError(
                f"{_said(name, module)} cannot be made sparse; exclude it. Offered are {', '.join(offered(LAYERS))}"
            )
    return found


def _said(name: str, module: nn.Module) -> str:
    return f"{type(module).__name__} {name!r}" if name else type(module).__name__


def _check(name: str, module: nn.Module, offer: Offer) -> None:
    """Raise ValueError for a layer that its sparse version would compute otherwise."""
    said = _said(name, module)
    if parametrize.is_parametrized(module) or any(
        not isinstance(p, nn.Parameter) or isinstance(p, nn.parameter.UninitializedParameter)
        for p in module._parameters.values()  # noqa: SLF001
        if p is not None
    ):
        raise ValueError(f"{said} has weights that are computed or not there yet: it cannot be made sparse")
    own_forward = type(module).forward is not offer.kind.forward
    if own_forward and not issubclass(offer.kind, (StackedRecurrence, nn.RNNBase)):
        raise ValueError(
            f"{said} has a forward of its own, which a sparse {offer.kind.__name__} would not call: exclude it"
        )
    for option in ("max_norm", "scale_grad_by_freq", "sparse"):
        if isinstance(module, nn.Embedding) and getattr(module, option):
            raise ValueError(f"{said} with {option}={getattr(module, option)} cannot be made sparse")


def _groups(method: Method, found: dict[str, tuple[nn.Module, Offer]]) -> tuple[str, ...]:
    """The groups by their own names; raises ValueError for one that none of the layers offers."""
    if method.groups is None:
        return ("word",)
    groups = canonical(method.groups)
    for group in groups:
        if not any(group in offer.groups for _, offer in found.values()):
            kinds = {offer.kind: offer for _, offer in found.values()}
            told = "; ".join(
                f"{kind.__name__} offers {', '.join(offer.groups)}" for kind, offer in kinds.items()
            )
            raise ValueError(f"{method.name}: no layer of the model offers the group {group!r}: {told}")
    return groups


def _refuse_tied(model: nn.Module, found: dict[str, tuple[nn.Module, Offer]]) -> None:
    """Raise ValueError where a weight to make sparse is also a parameter of another module, or a layer stands twice."""
    places: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = places.setdefault(id(parameter), name)
        if first == name:
            continue
        for layer in found:
            if any(
                place == layer or place.startswith(f"{layer}." if layer else "") for place in (first, name)
            ):
                raise ValueError(
                    f"{name} and {first} are one parameter: tied weights cannot be made sparse, since each "
                    f"layer would prune its own; exclude both layers, or untie them"
                )


def _refuse_unknown_layers(method: Any, found: dict[str, tuple[nn.Module, Offer]]) -> None:
    """Raise ValueError where a value a layer names a layer that is not made sparse."""
    for option in ("drop_rate", "lambda_"):
        value = getattr(method, option, None)
        if isinstance(value, dict):
            for name in value:
                if name not in found:
                    raise ValueError(
                        f"{option} names {name!r}, which is none of the sparse layers {sorted(found)}"
                    )


def _wrap(name: str, module: nn.Module, offer: Offer, method: Method, groups: tuple[str, ...]) -> SparseLayer:
    plan = offer.plan(module, groups)
    gates = {
        gate: method.gate(*(division for _, division, _ in shared.uses), layer=name)
        for gate, shared in plan.shared.items()
    }
    shares: dict[str, tuple[SharedGate, ...]] = {}
    for gate, shared in plan.shared.items():
        for parameter, division, scales in shared.uses:
            shares[parameter] = (*shares.get(parameter, ()), SharedGate(gates[gate], division, scales))
    states = {
        parameter: method.weight(
            getattr(module, parameter).detach(),
            divisions,
            shares.get(parameter, ()),
            zero_row=getattr(module, "padding_idx", None),
            layer=name,
        )
        for parameter, divisions in plan.own.items()
        if method.name == "vd"
        or divisions
        or parameter in shares  # else nothing of it can be pruned: it stays dense
    }
    return offer.sparse(module, states, gates)
