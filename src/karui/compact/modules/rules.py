"""What each call of a graph does to the features of its inputs.

Calls that act on every feature by itself pass features on; calls that move them are in `moves`; layers are in
`layers` and `recurrent`. Whatever is not known here is a barrier: it keeps all features of what it reads.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from karui.compact.modules import moves
from karui.compact.modules.features import Atoms, Features, Packed, Shape, Size, Value, without_constants
from karui.compact.modules.names import (
    BINARY,
    ELEMENTWISE,
    HARMLESS,
    MODULES_ELEMENTWISE,
    MODULES_POOLING,
    POOLING,
    REDUCING,
    in_place,
    name_of,
)
from karui.compact.modules.trace import Traced, has_hooks


def features_in(value: Value) -> Iterator[Features]:
    """All features of a value, tuples opened."""
    if isinstance(value, Features):
        yield value
    elif isinstance(value, Packed | Shape | Size):
        yield value.features
    elif isinstance(value, tuple):
        for part in value:
            yield from features_in(part)


class Walk:
    """One pass over a graph, in its order: the value of every node."""

    def __init__(
        self, traced: Traced, atoms: Atoms, call_layer: "Callable[[Walk, fx.Node, Value], Value]"
    ) -> None:
        self.traced, self.atoms, self.values = traced, atoms, traced.values
        self.found: dict[fx.Node, Value] = {}
        self.moves: list[moves.Move] = []
        for node in traced.graph.nodes:
            self.found[node] = self._visit(node, call_layer)

    # What a layer's rule may use as well.

    def barrier(self, node: fx.Node) -> Value:
        """Keep every feature that the call reads."""
        for other in node.all_input_nodes:
            for features in features_in(self.found[other]):
                self.atoms.pin(features.atoms)
        self.disturb(node)
        return None

    def disturb(self, node: fx.Node) -> None:
        """The call may have written into its inputs: whatever shares their memory is not constant any more."""
        touched = {
            t.untyped_storage().data_ptr() for n in node.all_input_nodes for t in _tensors(self.values.get(n))
        }
        for other, value in self.found.items():
            if value is not None and any(
                t.untyped_storage().data_ptr() in touched for t in _tensors(self.values.get(other))
            ):
                self.found[other] = _blurred(value)

    def own_features(self, other: Any, axis: int) -> Features | None:
        """The features of an argument if they lie along `axis`; else they are kept, and None."""
        value = self.found.get(other) if isinstance(other, fx.Node) else None
        if isinstance(value, Features) and value.axis == axis % value.ndim:
            return value
        for features in features_in(value):
            self.atoms.pin(features.atoms)
        return None

    # The kinds of calls.

    def _visit(self, node: fx.Node, call_layer: "Callable[[Walk, fx.Node, Value], Value]") -> Value:
        if node.op in {"placeholder", "get_attr"}:
            return None
        if node.op == "output":
            return self.barrier(node)
        if not any(True for other in node.all_input_nodes for _ in features_in(self.found[other])):
            if node.op == "call_module":
                return self._module(node, call_layer)
            if in_place(node) or not name_of(node):
                self.disturb(node)
            return None
        if node.op == "call_module":
            return self._module(node, call_layer)
        name = name_of(node)
        source = self.found.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        if name in {"getattr", "size", "shape", "pack", "pad", *HARMLESS} or not isinstance(
            source, Features | None
        ):
            return self._about(node, name, source)
        result = self._tensor_call(node, name, source)
        if in_place(node) and result is not None:
            self.disturb(node)
        return result

    def _tensor_call(self, node: fx.Node, name: str, source: Features | None) -> Value:
        if "dropout" in name and node.kwargs.get("training", True):
            return self.barrier(node)
        if name in ELEMENTWISE and source is not None and len(node.all_input_nodes) == 1:
            return self._unary(
                source, lambda x: moves.run(node, (x, *node.args[1:]), node.kwargs, _no, node.target)
            )
        if name in BINARY and "out" not in node.kwargs:
            return self._binary(node, name)
        if name in REDUCING and source is not None and len(node.all_input_nodes) == 1:
            return self._reduce(node, name, source)
        if name in POOLING and source is not None and len(node.all_input_nodes) == 1:
            if node.kwargs.get("return_indices"):
                return self.barrier(node)
            return self._pool(node, source, name)
        if name in moves.MOVES:
            return self._move(node, name)
        return self.barrier(node)

    def _module(self, node: fx.Node, call_layer: "Callable[[Walk, fx.Node, Value], Value]") -> Value:
        module = self.traced.root.get_submodule(str(node.target))
        source = self.found.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        plain = not node.kwargs and len(node.args) == 1 and not has_hooks(module)
        if plain and isinstance(source, Features):
            if type(module) in MODULES_ELEMENTWISE:
                result = self._unary(source, module)
                if getattr(module, "inplace", False):
                    self.disturb(node)
                return result
            if type(module) in MODULES_POOLING and not getattr(module, "return_indices", False):
                return self._pool(node, source, type(module).__name__)
            if type(module) is nn.Flatten:
                return self._move(node, "flatten", module)
            if type(module) is nn.Unflatten:
                return self.barrier(node)
        return call_layer(self, node, source)

    def _unary(self, source: Features, function: Callable[[Tensor], Tensor]) -> Features:
        known = ~np.isnan(source.const)
        const = source.const.copy()
        if known.any():
            const[known] = function(torch.from_numpy(const[known])).double().numpy()
        return Features(source.axis, source.atoms, const, source.ndim)

    def _binary(self, node: fx.Node, name: str) -> Value:
        """Features of both sides meet at one place from the end; a side without them must be the same for all."""
        out = self.values[node]
        operands = [*node.args, *node.kwargs.values()]
        tracked = [self.found[a] for a in operands if isinstance(a, fx.Node) and self.found[a] is not None]
        if not tracked or not all(isinstance(value, Features) for value in tracked):
            return self.barrier(node)
        features: list[Features] = tracked  # type: ignore[assignment]
        place, n = features[0].from_end, len(features[0].atoms)
        if any(f.from_end != place or len(f.atoms) != n for f in features) or out.shape[place] != n:
            return self.barrier(node)
        for value in (self.values[a] for a in operands if isinstance(a, fx.Node) and self.found[a] is None):
            if isinstance(value, Tensor) and value.dim() >= -place and value.shape[place] != 1:
                return self.barrier(node)
        for other in features[1:]:
            self.atoms.merge(features[0].atoms, other.atoms)
        const = self._binary_constant(node, name, operands, n)
        return Features(out.dim() + place, features[0].atoms, const, out.dim())

    def _binary_constant(self, node: fx.Node, name: str, operands: list[Any], n: int) -> np.ndarray:
        unknown = np.full(n, np.nan)
        sides: list[Any] = []
        for operand in operands:
            value = self.found[operand] if isinstance(operand, fx.Node) else operand
            if isinstance(value, Features):
                sides.append(value.const)
            else:
                sides.append(value if isinstance(operand, int | float) else None)
        if name in {"mul", "imul"} and not node.kwargs:
            zero = np.zeros(n, bool)
            for side in sides:
                zero |= np.asarray(side == 0.0) if side is not None else False
            unknown[zero] = 0.0
        simple: dict[str, Callable] = {
            "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "truediv": np.divide,
            "maximum": np.maximum, "minimum": np.minimum, "iadd": np.add, "isub": np.subtract, "imul": np.multiply,
        }  # fmt: skip
        if name in simple and not node.kwargs and len(sides) == 2 and all(side is not None for side in sides):
            with np.errstate(all="ignore"):
                result = simple[name](*(np.broadcast_to(np.asarray(s, np.float64), n) for s in sides))
            return np.where(np.isnan(unknown), np.where(np.isfinite(result), result, np.nan), unknown)
        if name == "masked_fill" and isinstance(operands[-1], int | float) and sides[0] is not None:
            return np.where(sides[0] == operands[-1], sides[0], np.nan)
        return unknown

    def _reduce(self, node: fx.Node, name: str, source: Features) -> Value:
        dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis"))
        if dims is None:
            return self.barrier(node)
        wanted = [d % source.ndim for d in (dims if isinstance(dims, tuple | list) else [dims])]
        keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
        if source.axis in wanted or not isinstance(keep, bool):
            return self.barrier(node)
        axis = source.axis if keep else source.axis - sum(d < source.axis for d in wanted)
        const = np.where(source.const == 0.0, 0.0, np.nan) if name == "sum" else source.const
        result = Features(axis, source.atoms, const, source.ndim if keep else source.ndim - len(wanted))
        return (result, without_constants(result)) if name in {"max", "min"} else result

    def _pool(self, node: fx.Node, source: Features, name: str) -> Value:
        spatial, padded = (2 if name.endswith("2d") else 1), "avg" in name.lower()
        out = self.values[node]
        if (
            not isinstance(out, Tensor)
            or out.dim() != source.ndim
            or out.shape[source.axis] != len(source.atoms)
        ):
            return self.barrier(node)
        if source.from_end != -1 - spatial:  # pooled along the axis of features
            return self.barrier(node)
        # an average over zeros in the padding changes a constant; the largest value does not see it
        const = np.where(source.const == 0.0, 0.0, np.nan) if padded else source.const
        return Features(source.axis, source.atoms, const, source.ndim)

    def _move(self, node: fx.Node, name: str, module: nn.Module | None = None) -> Value:
        inputs = {n: v for n in node.all_input_nodes if isinstance(v := self.found[n], Features)}
        others = [self.found[n] for n in node.all_input_nodes if n not in inputs]
        strange = any(isinstance(value, Packed | Shape | tuple) for value in others)
        sizes = [value for value in others if isinstance(value, Size)]
        if (
            strange
            or (sizes and name not in {"view", "reshape"})
            or (name == "gather" and node.args[0] not in inputs)
        ):
            return self.barrier(node)
        if name in {"cat", "concat", "concatenate", "stack"}:
            if not self._join(node, name, inputs):
                return self.barrier(node)
        elif len(inputs) != 1:
            return self.barrier(node)
        move = moves.analyse_move(node, name, inputs, self.values, module or node.target)
        if move is None:
            return self.barrier(node)
        for size in sizes:
            [output] = move.outputs
            if output is None or len(output.atoms) != len(size.features.atoms):
                return self.barrier(node)
            self.atoms.merge(output.atoms, size.features.atoms)
        self.moves.append(move)
        return tuple(move.outputs) if move.several else move.outputs[0]

    def _join(self, node: fx.Node, name: str, inputs: dict[fx.Node, Features]) -> bool:
        """Give parts without features kept ones, merge those that come to lie on each other."""
        axis = moves.join_axis(node, self.values)
        first = next(iter(inputs.values()))
        parts: Any = node.args[0] if node.args else node.kwargs["tensors"]
        if len(set(parts)) != len(parts):
            return False
        for part in parts:
            if part in inputs:
                continue
            if name == "stack" or axis != first.axis:
                return False
            count = self.values[part].shape[axis]
            fresh = self.atoms.new(count)
            self.atoms.pin(fresh)
            inputs[part] = Features(axis, fresh, np.full(count, np.nan), first.ndim)
        if any(f.axis != first.axis or f.ndim != first.ndim for f in inputs.values()):
            return False
        if name == "stack" or axis != first.axis:
            for other in inputs.values():
                self.atoms.merge(first.atoms, other.atoms)
        return True

    def _about(self, node: fx.Node, name: str, source: Value) -> Value:
        """Shapes, parts of tuples, packed sequences."""
        args = node.args
        if isinstance(source, tuple) and name == "getitem" and isinstance(args[1], int):
            return source[args[1]]
        if (
            isinstance(source, tuple) and name == "getattr" and args[1] in {"values", "indices"}
        ):  # of max and min
            return source[("values", "indices").index(args[1])]
        if isinstance(source, Features):
            if name == "getattr" and args[1] == "shape":
                return Shape(source)
            if name == "size":
                dims = [*args[1:], *node.kwargs.values()]
                return self._size(source, dims[0]) if dims and isinstance(dims[0], int) else Shape(source)
            if name == "pack":
                axis = 2 if source.ndim == 3 else -1
                batch = Features(1, source.atoms, source.const, 2)
                return Packed(batch) if source.axis == axis else self.barrier(node)
            if name in HARMLESS or (name == "getattr" and args[1] in {"dtype", "device", "ndim"}):
                return None
        if isinstance(source, Shape) and name == "getitem" and isinstance(args[1], int):
            return self._size(source.features, args[1])
        if isinstance(source, Packed):
            features = source.features
            if name == "getattr" and args[1] == "data":
                return features
            if name == "getattr" and args[1] in {"batch_sizes", "sorted_indices", "unsorted_indices"}:
                return None
            if name == "pad":
                value = node.kwargs.get("padding_value", args[2] if len(args) > 2 else 0.0)
                const = np.where(features.const == value, features.const, np.nan)
                return Features(2, features.atoms, const, 3), None
        return self.barrier(node)

    def _size(self, features: Features, dim: int) -> Value:
        return Size(features) if dim % features.ndim == features.axis else None


def _no(node: fx.Node) -> Any:
    raise AssertionError(f"a call on one feature alone has no second input, got {node}")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def _blurred(value: Value) -> Value:
    if isinstance(value, Features):
        return without_constants(value)
    if isinstance(value, Packed):
        return Packed(without_constants(value.features))
    if isinstance(value, tuple):
        return tuple(_blurred(part) for part in value)
    return value
