"""Calls that only move numbers about: what they do to features is found by running them on positions.

A call that names a length (`view(-1, 800)`, `chunk`, `[..., :64]`) needs another length after removal. Such an edit is
found here, tried on the positions that stay, and given up, with all features kept, where it does not give the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from karui.compact.modules.features import Features, Size, at_positions, find_axis, kept, position_tensor

MOVES = frozenset(
    {
        "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "movedim", "t", "squeeze",
        "unsqueeze", "expand", "repeat", "flip", "roll", "select", "narrow", "getitem", "unbind", "chunk", "split",
        "cat", "concat", "concatenate", "stack", "gather", "index_select",
    }
)  # fmt: skip
_WITH_SIZES = frozenset({"view", "reshape", "expand", "repeat"})
_JOINING = frozenset({"cat", "concat", "concatenate", "stack"})

Edit = dict[str, Any]


@dataclass
class Move:
    """One such call: features of its inputs, by node, and of what it gives (one, or one a part)."""

    node: fx.Node
    name: str
    target: Any
    inputs: dict[fx.Node, Features]
    offsets: dict[fx.Node, int]
    outputs: list[Features | None]
    several: bool


def run(node: fx.Node, args: Any, kwargs: Any, given: Callable[[fx.Node], Any], target: Any) -> Any:
    """Make the call of a node with other values for the nodes among its arguments; target: its function or module."""
    positional = fx.map_arg(args, given)
    named = fx.map_arg(kwargs, given)
    if node.op == "call_method":
        return getattr(positional[0], target)(*positional[1:], **named)  # type: ignore[index, call-overload, operator]
    return target(*positional, **named)  # type: ignore[operator, misc]


def analyse_move(
    node: fx.Node, name: str, inputs: dict[fx.Node, Features], values: dict[fx.Node, Any], target: Any
) -> Move | None:
    """Run the call on positions; None where its answer's features do not lie along one axis."""
    offsets, start = {}, 0
    for other, features in inputs.items():
        offsets[other] = 0 if _joined_elsewhere(node, name, features, values) else start
        start += len(features.atoms)

    def given(other: fx.Node) -> Any:
        if other not in inputs:
            return values[other]
        found = inputs[other]
        everything = np.arange(len(found.atoms)) + offsets[other]
        return position_tensor(tuple(values[other].shape), found.axis, everything)

    try:
        answer = run(node, node.args, node.kwargs, given, target)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None
    several = isinstance(answer, tuple | list)
    pool = _pool(inputs, offsets)
    outputs: list[Features | None] = []
    for part in answer if several else [answer]:
        found = find_axis(part) if isinstance(part, Tensor) else None
        if found is None:
            return None
        outputs.append(at_positions(pool, found[1], found[0], part.dim()))
    return Move(node, name, target, inputs, offsets, outputs, several)


def _joined_elsewhere(node: fx.Node, name: str, features: Features, values: dict[fx.Node, Any]) -> bool:
    """Tell whether tensors are put together along another axis than that of their features."""
    if name not in _JOINING:
        return False
    return name == "stack" or join_axis(node, values) != features.axis


def join_axis(node: fx.Node, values: dict[fx.Node, Any]) -> int:
    """The axis of a cat or stack, counted from the front."""
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    dim = values[dim] if isinstance(dim, fx.Node) else dim
    return int(dim) % values[node].dim()  # type: ignore[arg-type]


def _pool(inputs: dict[fx.Node, Features], offsets: dict[fx.Node, int]) -> Features:
    """All features that an answer may hold, at the positions that the inputs were given."""
    size = max((offsets[n] + len(f.atoms) for n, f in inputs.items()), default=0)
    atoms, const, seen = np.zeros(size, np.int64), np.full(size, np.nan), np.zeros(size, bool)
    for node, features in inputs.items():
        at = slice(offsets[node], offsets[node] + len(features.atoms))
        equal = ~seen[at] | (const[at] == features.const)  # parts that share positions are constant together
        const[at] = np.where(equal, features.const, np.nan)
        atoms[at], seen[at] = features.atoms, True
    return Features(0, atoms, const, 1)


def make_edit(move: Move, live: np.ndarray, values: dict[fx.Node, Any]) -> Edit | None:
    """What must be written into a call, so that it gives the features that stay; None where it can stay as it is."""
    if all(
        len(kept(f, live)) == len(f.atoms) for f in [*move.inputs.values(), *move.outputs] if f is not None
    ):
        return None
    first, [output, *_] = next(iter(move.inputs.values())), move.outputs
    if move.name in _WITH_SIZES and output is not None:
        wanted = _sizes(move.node.args[1:])
        at = output.axis
        if at < len(wanted) and isinstance(wanted[at], int) and wanted[at] > 0 and move.name != "repeat":
            return {"kind": "size", "at": at, "value": len(kept(output, live))}
    if move.name in {"chunk", "split"}:
        dim = _dim(move.node, 2, values) % first.ndim
        if dim == first.axis:
            parts = [0 if f is None else len(kept(f, live)) for f in move.outputs]
            return {"kind": "split", "sizes": parts, "dim": dim}
    if move.name == "narrow":
        dim, start, length = (values.get(a, a) for a in move.node.args[1:4])  # type: ignore[call-overload]
        if dim % first.ndim == first.axis:
            before = live[first.atoms]
            return {
                "kind": "narrow",
                "start": int(before[:start].sum()),
                "length": int(before[start : start + length].sum()),
            }
    if move.name == "getitem":
        return _slice_edit(move.node.args[1], first, live)
    if move.name == "gather" and len(move.inputs) == 1:
        return _gather_edit(move.node, first, live, values)
    return None


def _sizes(rest: tuple) -> list[Any]:
    return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], tuple | list) else list(rest)


def _dim(node: fx.Node, place: int, values: dict[fx.Node, Any]) -> int:
    dim = node.args[place] if len(node.args) > place else node.kwargs.get("dim", 0)
    return int(values[dim] if isinstance(dim, fx.Node) else dim)  # type: ignore[arg-type, index]


def _slice_edit(index: Any, features: Features, live: np.ndarray) -> Edit | None:
    """The slice along the axis of features, counted in features that stay."""
    items = list(index) if isinstance(index, tuple) else [index]
    axis, n = 0, len(features.atoms)
    for place, item in enumerate(items):
        if item is None:
            continue
        if item is Ellipsis:
            axis = features.ndim - sum(other is not None for other in items[place + 1 :])
            continue
        if axis == features.axis and isinstance(item, slice):
            if any(isinstance(bound, fx.Node) for bound in (item.start, item.stop, item.step)):
                return None
            start, stop, step = item.indices(n)
            if step != 1:
                return None
            before = live[features.atoms]
            return {
                "kind": "slice",
                "at": place,
                "start": int(before[:start].sum()),
                "stop": int(before[:stop].sum()),
            }
        axis += 1
    return None


def _gather_edit(
    node: fx.Node, features: Features, live: np.ndarray, values: dict[fx.Node, Any]
) -> Edit | None:
    """`x.gather(1, index.expand(..., 64))`: the index is as wide as the features, and the same for all of them."""
    index = node.args[2] if len(node.args) > 2 else node.kwargs.get("index")
    sample = values.get(index) if isinstance(index, fx.Node) else None  # type: ignore[arg-type]
    if sample is None or sample.stride(features.axis) != 0:
        return None
    return {"kind": "index", "axis": features.axis, "length": len(kept(features, live))}


def edited(node: fx.Node, edit: Edit | None, *, narrow_index: Callable[..., Any]) -> tuple[Any, tuple, dict]:
    """(target, args, kwargs) of a node after an edit; narrow_index(index, axis, length) shortens that of a gather."""
    target, args, kwargs = node.target, node.args, dict(node.kwargs)
    if edit is None:
        return target, args, kwargs
    kind = edit["kind"]
    if kind == "size":
        sizes = _sizes(args[1:])
        sizes[edit["at"]] = edit["value"]
        return target, (args[0], *sizes) if node.op == "call_method" else (args[0], tuple(sizes)), kwargs
    if kind == "split":
        return "split" if node.op == "call_method" else torch.split, (args[0], edit["sizes"], edit["dim"]), {}
    if kind == "narrow":
        return target, (*args[:2], edit["start"], edit["length"]), kwargs
    if kind == "index":
        index = args[2] if len(args) > 2 else kwargs["index"]
        return target, (*args[:2], narrow_index(index, edit["axis"], edit["length"])), {}
    items = list(args[1]) if isinstance(args[1], tuple) else [args[1]]
    items[edit["at"]] = slice(edit["start"], edit["stop"])
    return target, (args[0], tuple(items)), kwargs


def still_right(
    move: Move, edit: Edit | None, live: np.ndarray, values: dict[fx.Node, Any], sizes: dict[fx.Node, Size]
) -> bool:
    """Run the edited call on the positions that stay, and compare."""

    def given(other: fx.Node) -> Any:
        if other in sizes:
            return len(kept(sizes[other].features, live))
        if other not in move.inputs:
            return values[other]
        features = move.inputs[other]
        return position_tensor(
            tuple(values[other].shape), features.axis, kept(features, live) + move.offsets[other]
        )

    def shorter(index: fx.Node, axis: int, length: int) -> Any:
        return _Ready(values[index].narrow(axis, 0, length))

    target, args, kwargs = edited(move.node, edit, narrow_index=shorter)
    target = move.target if edit is None else target
    args = tuple(a.value if isinstance(a, _Ready) else a for a in args)
    try:
        answer = run(move.node, args, kwargs, given, target)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    parts = list(answer) if move.several else [answer]
    if len(parts) != len(move.outputs):
        return False
    pool = _pool(move.inputs, move.offsets)
    for part, features in zip(parts, move.outputs, strict=True):
        if features is None:
            continue
        stay = kept(features, live)
        if part.shape[features.axis] != len(stay) or part.dim() != features.ndim:
            return False
        # one feature left: nothing varies, and its place is known
        found = find_axis(part)
        if found is None:
            uniform = bool((part == part.flatten()[0]).all()) if part.numel() else False
            found = (features.axis, part.flatten()[:1].numpy()) if len(stay) == 1 and uniform else None
        if found is None or found[0] != features.axis:
            return False
        if not np.array_equal(pool.atoms[found[1]], features.atoms[stay]):
            return False
    return True


@dataclass
class _Ready:
    """A value that stands for itself among the arguments of a call."""

    value: Tensor
