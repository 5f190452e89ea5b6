"""From a module to the graph of its calls, and what each of them gives on an example.

karui's and torch's own layers stay whole. A part that cannot be traced, or that carries hooks, stays whole as well.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import rnn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
)
# They look at values, so that they stay whole too.
_WHOLE_FUNCTIONS = tuple(
    getattr(rnn, name)
    for name in (
        "pack_padded_sequence",
        "pad_packed_sequence",
        "pack_sequence",
        "pad_sequence",
        "unpad_sequence",
    )
)


def has_hooks(module: nn.Module) -> bool:
    """Tell whether something outside runs when the module is called, and may change what it answers."""
    return any(getattr(module, name, None) for name in _HOOKS)


@dataclass
class Traced:
    """A graph, and the example's value at each of its nodes."""

    root: nn.Module
    graph: fx.Graph
    values: dict[fx.Node, Any] = field(default_factory=dict)
    calls: dict[str, tuple[tuple, dict]] = field(default_factory=dict)
    """What each module was first called with, by its name, parts that stayed whole included."""
    whole: list[str] = field(default_factory=list)
    """Parts with modules of their own that could not be traced."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Arguments that hold no tensor."""


def signature(graph: fx.Graph) -> list[str]:
    """One string a node: two models with the same list have the same forward."""
    return [
        f"{node.name} {node.op} {node.target if isinstance(node.target, str) else getattr(node.target, '__name__', '')}"
        for node in graph.nodes
    ]


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__(autowrap_functions=_WHOLE_FUNCTIONS)
        self._autowrap_search.append(rnn)  # for those who write rnn.pack_padded_sequence(...)
        self.whole: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = m.__module__.startswith("karui.nn.") and not any(True for _ in m.children())
        if has_hooks(m) and any(True for _ in m.children()):
            self.whole.append(module_qualified_name)
            return True
        return own or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        before = set(self.graph.nodes)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # noqa: BLE001  as in graph_of
            for node in reversed(list(self.graph.nodes)):
                if node not in before:
                    self.graph.erase_node(node)
            name = self.path_of_module(m)
            self.whole.append(name)
            return self.create_proxy("call_module", name, args, kwargs)


class _Recorder(fx.Interpreter):
    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, garbage_collect_values=False, graph=graph)
        self.calls: dict[str, tuple[tuple, dict]] = {}

    def call_module(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        self.calls.setdefault(target, (args, kwargs))
        return super().call_module(target, args, kwargs)


def trace(root: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> Traced | str:
    """Trace `root` in eval mode and run the example; a string says why that cannot be done.

    The graph counts only if it answers as the module does: a forward that asks for the type of its input may take
    another way when it is traced.
    """
    try:
        given = inspect.signature(root.forward).bind(*args, **kwargs)
    except TypeError as error:
        return f"the example does not fit its forward ({error})"
    given.apply_defaults()
    fixed = {name: value for name, value in given.arguments.items() if not tensors_of(value)}
    whole: list[str] = []
    graph = graph_of(root, fixed, whole)
    if isinstance(graph, str):
        return graph
    recorder = _Recorder(root, graph)
    try:
        answer = recorder.run(
            *(given.arguments[str(node.target)] for node in graph.find_nodes(op="placeholder"))
        )
        expected = root.forward(*args, **kwargs)  # hooks on the root run around either
    except Exception as error:  # noqa: BLE001
        return f"its traced forward fails on the example ({type(error).__name__})"
    if not same(answer, expected):
        return "its traced forward answers otherwise than the module"
    whole = [name for name in dict.fromkeys(whole) if name in recorder.calls]
    return Traced(root, graph, recorder.env, recorder.calls, whole, fixed)


def graph_of(root: nn.Module, fixed: Mapping[str, Any], whole: list[str] | None = None) -> fx.Graph | str:
    """The graph of a forward, or why there is none.

    fixed: arguments that hold no tensor are settings: the graph is that of their values, and checks them when called.
    whole: takes the names of parts that could not be traced.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(root, concrete_args=dict(fixed))
    except Exception as error:  # noqa: BLE001  a forward may raise anything when it meets a proxy
        text = str(error).splitlines()
        return f"its forward cannot be traced ({text[0] if text else type(error).__name__})"
    for node in graph.find_nodes(op="placeholder"):  # tracing renamed those with a fixed value
        node.target = next(
            (name for name in fixed if re.fullmatch(rf"{name}_\d+", str(node.target))), node.target
        )
    for (
        node
    ) in graph.nodes:  # a module made from the graph would register a name for later traces to stumble over
        node.meta.pop("is_wrapped", None)
    if whole is not None:
        whole.extend(tracer.whole)
    return graph


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in an answer: tuples, lists, mappings and packed sequences are opened."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, rnn.PackedSequence):
        return [value.data, value.batch_sizes]
    if isinstance(value, Mapping):
        return [t for part in value.values() for t in tensors_of(part)]
    if isinstance(value, tuple | list):
        return [t for part in value for t in tensors_of(part)]
    return []


def same(one: Any, other: Any) -> bool:
    """Bitwise, but that NaN equals NaN."""
    pairs = list(zip(tensors_of(one), tensors_of(other), strict=False))
    return len(tensors_of(one)) == len(tensors_of(other)) and all(
        a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs
    )
