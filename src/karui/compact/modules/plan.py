"""What becomes of a model: sizes of its new layers and edits of its forward, found once, applied as often as wanted.

A plan holds no numbers but sizes and is plain JSON. Applied to a model of the same class with any weights it makes a
model into which the compacted state dict loads.
"""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from karui.compact.modules.features import Atoms, Features, Size, Value
from karui.compact.modules.layers import Built, LayerRule, rule_for
from karui.compact.modules.moves import Edit, edited, make_edit, still_right
from karui.compact.modules.plain import make
from karui.compact.modules.recurrent import RecurrentRule, plain_recurrent
from karui.compact.modules.rules import Walk, features_in
from karui.compact.modules.trace import Traced, graph_of, has_hooks, signature
from karui.errors import UserError


@dataclass
class Part:
    """What becomes of one module that was traced by itself; `prefix` is its name, "" the model."""

    prefix: str
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """New layers by their names below the prefix."""
    edits: dict[str, Edit] = field(default_factory=dict)
    """Changed calls by the names of their nodes."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Arguments that hold no tensor, as they were when the forward was traced."""
    signature: list[str] = field(default_factory=list)
    graph: bool = False
    """Whether the forward is replaced by the traced one."""


@dataclass
class Analysis:
    """A part, the numbers of its new layers, and what a report says of them."""

    part: Part
    tensors: dict[str, np.ndarray]
    built: dict[str, Built]


class _Layers:
    """The rules of a model's layers, by the module."""

    def __init__(self, traced: Traced) -> None:
        self.root = traced.root
        self.rules: dict[str, LayerRule] = {}
        called = [n for n in traced.graph.nodes if n.op == "call_module"]
        self._calls = Counter(id(self.root.get_submodule(str(n.target))) for n in called)
        self._names: dict[int, str] = {}
        self._foreign = _used_elsewhere(traced)

    def __call__(self, walk: Walk, node: fx.Node, source: Value) -> Value:
        del source
        module = self.root.get_submodule(str(node.target))
        key = id(module)
        name = self._names.setdefault(key, str(node.target))
        if name not in self.rules:
            shared = self._calls[key] > 1
            if has_hooks(module) or key in self._foreign:
                return walk.barrier(node)
            rule = (
                RecurrentRule(module, shared) if plain_recurrent(module) else rule_for(module, shared=shared)
            )
            if rule is None or (isinstance(rule, RecurrentRule) and shared):
                return walk.barrier(node)
            self.rules[name] = rule
        return self.rules[name].call(walk, node)


def _used_elsewhere(traced: Traced) -> set[int]:
    """Ids of modules whose parameters something else uses too: tied weights, or the forward itself."""
    owners: dict[int, set[int]] = {}
    for module in traced.root.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter.untyped_storage().data_ptr(), set()).add(id(module))
    foreign = {key for keys in owners.values() if len(keys) > 1 for key in keys}
    for node in traced.graph.find_nodes(op="get_attr"):
        path = str(node.target).rpartition(".")[0]
        foreign.add(id(traced.root.get_submodule(path)))
    return foreign


def analyse(traced: Traced, prefix: str, *, may_edit: bool) -> Analysis:
    """Find what can go. may_edit: whether the forward may be replaced by an edited graph."""
    atoms, layers = Atoms(), _Layers(traced)
    walk = Walk(traced, atoms, layers)
    sizes = {node: value for node, value in walk.found.items() if isinstance(value, Size)}
    # a state that nobody takes out of its tuple may be empty, a part of a tensor that was cut up may not
    cut = {move.node for move in walk.moves}
    whole = (value for node, value in walk.found.items() if node in cut or not isinstance(value, tuple))
    tensors: list[Features] = [f for value in whole for f in features_in(value)]
    tensors += [f for rule in layers.rules.values() for f in rule.tensors()]
    while True:
        live = atoms.live(tensors)
        edits, wrong = {}, False
        for move in walk.moves:
            edit = make_edit(move, live, walk.values)
            if (edit and not may_edit) or not still_right(move, edit, live, walk.values, sizes):
                for features in [*move.inputs.values(), *move.outputs]:
                    if features is not None and not live[features.atoms].all():
                        atoms.pin(features.atoms)
                        wrong = True
            elif edit:
                edits[move.node.name] = edit
        if not wrong:
            break
    part = Part(prefix, edits=edits, fixed=traced.fixed, signature=signature(traced.graph), graph=bool(edits))
    found, built = {}, {}
    for name, rule in layers.rules.items():
        if rule.out is None:  # a barrier
            continue
        one = rule.build(live)
        built[name] = one
        if _changes(rule.module, one):
            weight = next(rule.module.parameters(), None)
            dtype = str(weight.dtype if weight is not None else torch.float32).removeprefix("torch.")
            part.layers[name] = one.spec | {"dtype": dtype}
            found |= {f"{name}.{key}": value for key, value in one.tensors.items()}
    return Analysis(part, found, built)


def _changes(module: nn.Module, built: Built) -> bool:
    old = module.state_dict()
    return old.keys() != built.tensors.keys() or any(
        old[name].shape != value.shape or not np.array_equal(old[name].cpu().double().numpy(), value)
        for name, value in built.tensors.items()
    )


def apply(template: nn.Module, parts: list[Part]) -> nn.Module:
    """A copy of `template` with new layers, whose numbers are still to be loaded, and edited forwards.

    Raises UserError where the plan was made for another model.
    """
    model = copy.deepcopy(template).eval()
    graphs = []
    for part in parts:
        root = submodule(model, part.prefix)
        if part.graph:
            graph = graph_of(root, part.fixed)
            if isinstance(graph, str) or signature(graph) != part.signature:
                raise UserError(
                    "the model's forward is not the one that was compacted: build it as it was then"
                )
            graphs.append((part, root, graph))
    for part in parts:
        root = submodule(model, part.prefix)
        for name, spec in part.layers.items():
            _replace(model, submodule(root, name), _made(spec, submodule(root, name)))
    for part, root, graph in sorted(
        graphs, key=lambda found: -found[0].prefix.count(".") - bool(found[0].prefix)
    ):
        _edit(graph, part.edits)
        new = fx.GraphModule(root, graph, type(root).__name__)
        model = new if root is model else _replace(model, root, new)
    return model.eval()


def _made(spec: Mapping[str, Any], old: nn.Module) -> nn.Module:
    dtype = getattr(torch, str(spec.get("dtype")), None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(f"dtype must be one of torch's, got {spec.get('dtype')!r}")
    with torch.random.fork_rng(devices=[]):  # fresh layers draw first values that nobody will see
        layer = make(spec)
    some = next(old.parameters(), None)
    return layer.to(dtype=dtype, device=None if some is None else some.device).requires_grad_(
        some is None or some.requires_grad
    )


def submodule(model: nn.Module, name: str) -> nn.Module:
    """A module by its name. Raises UserError where the model has none."""
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise UserError(
            f"the model has no module {name!r}: build it as it was when it was compacted"
        ) from error


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put `new` wherever `old` stands."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # noqa: SLF001  named_children skips a second name
            if child is old:
                setattr(parent, name, new)
    return model


def _edit(graph: fx.Graph, edits: Mapping[str, Edit]) -> None:
    """Write the new lengths into the calls of a graph."""
    for node in list(graph.nodes):
        if node.name not in edits:
            continue

        def shorter(index: fx.Node, axis: int, length: int, before: fx.Node = node) -> fx.Node:
            with graph.inserting_before(before):
                return graph.call_method("narrow", (index, axis, 0, length))

        node.target, node.args, node.kwargs = edited(node, edits[node.name], narrow_index=shorter)
    graph.lint()


def joined(prefix: str, name: str) -> str:
    """The name of a module below another."""
    return f"{prefix}.{name}" if prefix else name


def load_arrays(model: nn.Module, found: list[Analysis]) -> None:
    """Copy the numbers of all new layers into a model that `apply` made."""
    state = model.state_dict(keep_vars=True)
    for analysis in found:
        start = f"{analysis.part.prefix}." if analysis.part.prefix else ""
        for name, value in analysis.tensors.items():
            target = state[start + name]
            target.data.copy_(torch.as_tensor(value).reshape(target.shape))
