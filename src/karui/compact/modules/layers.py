"""Linear, convolution, batch norm and embedding: what they read and give, and their smaller twins.

R rows (outputs), C columns (inputs). Weights are worked on in float64 and rounded once, at the end.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from karui.compact.modules.features import Atoms, Features, Value
from karui.compact.modules.rules import Walk
from karui.sparse.chains import keeps_constants

# A gather of k columns costs about as much as this many multiplications each.
_SELECT_COST = 8


@dataclass
class Built:
    """A layer's smaller twin: what it is made from, its numbers, and what a report says of it."""

    spec: dict[str, Any]
    tensors: dict[str, np.ndarray]
    part: str
    """Its place in the architecture: "214", or for a bidirectional layer "31+28"."""
    macs: tuple[float, float]
    """Multiplications on the example, before and after."""


def array(tensor: Tensor | None) -> np.ndarray | None:
    """A float64 copy."""
    return None if tensor is None else tensor.detach().cpu().double().numpy().copy()


def chosen_columns(matrix: np.ndarray, rows: int) -> np.ndarray | None:
    """(C,) boolean: the columns worth gathering before a product, None where all are or a gather would not pay."""
    used = np.asarray(matrix.any(axis=0))
    if not used.any():
        used[:1] = True
    spared = (len(used) - int(used.sum())) * rows
    return used if spared >= _SELECT_COST * int(used.sum()) and not used.all() else None


def with_selection(
    spec: dict[str, Any], tensors: dict[str, np.ndarray], selected: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The same layer behind a gather of the columns where `selected` (C,) is True; its weight has only those."""
    spec = spec | {"columns": int(selected.sum()), "select": int(selected.sum())}
    return spec, {"index": np.flatnonzero(selected)} | {
        f"layer.{name}": value for name, value in tensors.items()
    }


@dataclass
class LayerRule:
    """One layer of a model, however often it is called."""

    module: Any
    shared: bool
    x: Features | None = None
    out: Features | None = None
    calls: int = 0
    positions: float = 0.0
    """How often the matrix is multiplied on the example."""

    def call(self, walk: Walk, node: fx.Node) -> Value:
        """Analyse the first call; further ones must agree with it on what is kept."""
        given: Any = node.args[0] if node.args else node.kwargs["input"]
        x = walk.own_features(given, self.feature_axis(walk.values[given]))
        self.calls += 1
        sample = walk.values[node]
        if self.calls == 1:
            self.x = x
            self.out = self.analyse(walk.atoms, x, sample)
        elif x is not None and self.x is not None:
            walk.atoms.merge(x.atoms, self.x.atoms)
        else:
            for one in (x, self.x):
                if one is not None:
                    walk.atoms.pin(one.atoms)
        if self.out is None:
            return walk.barrier(node)
        axis = self.feature_axis(sample) % sample.dim()
        self.positions += sample.numel() / max(1, len(self.out.atoms))
        return Features(axis, self.out.atoms, self.out.const, sample.dim())

    def feature_axis(self, sample: Tensor) -> int:  # noqa: ARG002
        """Where the features of an input, and of the output, lie."""
        return -1

    def analyse(self, atoms: Atoms, x: Features | None, sample: Tensor) -> Features | None:
        """Features of the output; None where the call must be a barrier."""
        raise NotImplementedError

    def tensors(self) -> list[Features]:
        """Features inside the layer of which at least one must stay."""
        return []

    def build(self, live: np.ndarray) -> Built:
        """The smaller twin."""
        raise NotImplementedError

    def kept_inputs(self, live: np.ndarray, count: int) -> np.ndarray:
        """(C,) boolean: the columns whose features still exist."""
        return live[self.x.atoms] if self.x is not None else np.ones(count, bool)


class MatrixRule(LayerRule):
    """Linear, and convolutions of all channels: every row reads every column."""

    weight: np.ndarray
    bias: np.ndarray | None

    def feature_axis(self, sample: Tensor) -> int:  # noqa: ARG002
        """The last axis of a Linear, the channels of a convolution."""
        return -1 - (self.module.weight.dim() - 2)

    def analyse(self, atoms: Atoms, x: Features | None, sample: Tensor) -> Features | None:
        """Fold constant inputs; rows without entries are constant themselves."""
        weight = array(self.module.weight)
        assert weight is not None
        self.weight, self.bias = weight, array(self.module.bias)
        if x is not None and not self.shared:
            self._fold(x)
        matrix = self.matrix()
        out = atoms.new(len(matrix))
        if x is not None:
            atoms.reads(out, x.atoms, matrix != 0)
        shift = self.bias if self.bias is not None else np.zeros(len(matrix))
        const = np.where(matrix.any(axis=1), np.nan, shift)
        return Features(self.feature_axis(sample) % sample.dim(), out, const, sample.dim())

    def matrix(self) -> np.ndarray:
        """(R, C): the largest entry of each kernel."""
        return np.abs(self.weight).reshape(*self.weight.shape[:2], -1).max(axis=2)

    def _fold(self, x: Features) -> None:
        """A constant through zeros in the padding is none at the border: there only zero itself is taken in."""
        constant = ~np.isnan(x.const) if keeps_constants(self.module) else x.const == 0.0
        read = self.weight[:, constant]
        if not read.any():
            return
        shift = read.reshape(*read.shape[:2], -1).sum(axis=2) @ x.const[constant]
        if shift.any():
            self.bias = shift if self.bias is None else self.bias + shift
        self.weight[:, constant] = 0.0

    def build(self, live: np.ndarray) -> Built:
        """Cut rows and columns; gather the inputs that are read where others must stay."""
        assert self.out is not None
        rows, columns = live[self.out.atoms], self.kept_inputs(live, self.weight.shape[1])
        weight = self.weight[rows][:, columns]
        read = np.abs(weight).reshape(*weight.shape[:2], -1).max(axis=2, initial=0.0)
        selected = chosen_columns(read, len(weight))
        spec = self.spec(len(weight), weight.shape[1])
        tensors = {"weight": weight}
        if self.bias is not None:
            tensors["bias"] = self.bias[rows]
        kernel = int(np.prod(weight.shape[2:]))
        before = self.positions * kernel * self.weight.shape[0] * self.weight.shape[1]
        after = self.positions * weight.size
        if selected is not None:
            tensors["weight"] = weight[:, selected]
            after = self.positions * tensors["weight"].size
            spec, tensors = with_selection(spec, tensors, selected)
        count = len(weight) if kernel > 1 or weight.ndim > 2 else int(read.any(axis=0).sum())
        return Built(spec, tensors, str(count), (before, after))

    def spec(self, rows: int, columns: int) -> dict[str, Any]:
        """Sizes and options of the twin."""
        module = self.module
        common = {
            "kind": type(module).__name__,
            "rows": rows,
            "columns": columns,
            "bias": self.bias is not None,
        }
        if isinstance(module, nn.Linear):
            return common
        options = {name: getattr(module, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        return (
            common
            | {n: v if isinstance(v, str) else list(v) for n, v in options.items()}
            | {
                "padding_mode": module.padding_mode,
                "axis": -1 - len(module.kernel_size),
            }
        )


class DepthwiseRule(LayerRule):
    """A convolution of each channel by itself: its outputs are the channel's own atoms."""

    def feature_axis(self, sample: Tensor) -> int:  # noqa: ARG002
        """The channels."""
        return -1 - len(self.module.kernel_size)

    def analyse(self, atoms: Atoms, x: Features | None, sample: Tensor) -> Features | None:  # noqa: ARG002
        """Constant channels stay constant where the padding does not show."""
        if x is None:
            return None
        module, count = self.module, self.module.out_channels // self.module.in_channels
        weight, bias = array(module.weight), array(module.bias)
        assert weight is not None
        total = weight.reshape(len(weight), -1).sum(axis=1)
        shift = np.zeros(len(weight)) if bias is None else bias
        const = np.repeat(x.const, count)
        if not keeps_constants(module):
            const = np.where(const == 0.0, 0.0, np.nan)
        const = np.where(weight.reshape(len(weight), -1).any(axis=1), total * const + shift, shift)
        if self.shared:
            const = np.full(len(const), np.nan)
        return Features(
            self.feature_axis(sample) % sample.dim(), np.repeat(x.atoms, count), const, sample.dim()
        )

    def build(self, live: np.ndarray) -> Built:
        """Cut whole channels."""
        assert self.x is not None
        assert self.out is not None
        weight, bias = array(self.module.weight), array(self.module.bias)
        assert weight is not None
        rows = live[self.out.atoms]
        groups = int(live[self.x.atoms].sum())
        spec = MatrixRule.spec(self, int(rows.sum()), groups) | {"bias": bias is not None, "groups": groups}  # type: ignore[arg-type]
        tensors = {"weight": weight[rows]} | ({} if bias is None else {"bias": bias[rows]})
        macs = self.positions * weight.size, self.positions * tensors["weight"].size
        return Built(spec, tensors, str(int(rows.sum())), macs)

    bias = None


class BatchNormRule(LayerRule):
    """One scale and shift a feature, from running statistics."""

    def feature_axis(self, sample: Tensor) -> int:
        """Channels stand second."""
        return 1 - sample.dim() if sample.dim() > 1 else 0

    def analyse(self, atoms: Atoms, x: Features | None, sample: Tensor) -> Features | None:  # noqa: ARG002
        """The input's atoms; a scale of zero makes a constant."""
        if x is None:
            return None
        module = self.module
        mean, variance = array(module.running_mean), array(module.running_var)
        assert mean is not None
        assert variance is not None
        scale = 1.0 / np.sqrt(variance + module.eps)
        shift = np.zeros(len(scale))
        if module.affine:
            weight, bias = array(module.weight), array(module.bias)
            assert weight is not None
            assert bias is not None
            scale, shift = scale * weight, bias
        const = np.where(scale == 0.0, shift, (x.const - mean) * scale + shift)
        return Features(x.axis, x.atoms, const, x.ndim)

    def build(self, live: np.ndarray) -> Built:
        """Cut all four vectors."""
        assert self.x is not None
        module, rows = self.module, live[self.x.atoms]
        names = ["running_mean", "running_var", *(["weight", "bias"] if module.affine else [])]
        tensors: dict[str, Any] = {name: array(getattr(module, name))[rows] for name in names}  # type: ignore[index]
        tensors["num_batches_tracked"] = module.num_batches_tracked.cpu().numpy()
        spec = {
            "kind": type(module).__name__,
            "rows": int(rows.sum()),
            "eps": module.eps,
            "momentum": module.momentum,
            "affine": module.affine,
        }
        return Built(spec, tensors, "", (0.0, 0.0))


class EmbeddingRule(LayerRule):
    """A table (V, E): its columns are atoms, rows that are zero share one."""

    def call(self, walk: Walk, node: fx.Node) -> Value:
        """Every call gives the same columns."""
        sample = walk.values[node]
        if self.out is None:
            table = array(self.module.weight)
            assert table is not None
            self.table = table
            same = (table == table[:1]).all(axis=0)
            self.out = Features(
                sample.dim() - 1, walk.atoms.new(table.shape[1]), np.where(same, table[0], np.nan), 0
            )
        return Features(sample.dim() - 1, self.out.atoms, self.out.const, sample.dim())

    def build(self, live: np.ndarray) -> Built:
        """Cut columns; where that saves memory, send every id of a zero row to one row."""
        assert self.out is not None
        table = self.table[:, live[self.out.atoms]]
        used = table.any(axis=1)
        V, E = table.shape
        spec: dict[str, Any] = {"kind": "Embedding", "rows": V, "columns": E}
        tensors = {"weight": table}
        itemsize = self.module.weight.element_size()
        if self.module.weight.dtype.is_floating_point and (V - 1 - used.sum()) * E * itemsize > 4 * V:
            index = np.where(used, np.cumsum(used), 0)
            tensors = {"weight": np.concatenate([np.zeros((1, E)), table[used]]), "index": index}
            spec |= {"kind": "SharedRows", "kept": int(used.sum())}
        elif self.module.padding_idx is not None:
            spec |= {"padding_idx": self.module.padding_idx}
        return Built(spec, tensors, "", (0.0, 0.0))


def rule_for(module: Any, *, shared: bool) -> LayerRule | None:
    """The rule of a layer of exactly these classes; a subclass may compute anything."""
    kind = type(module)
    if kind is nn.Linear:
        return MatrixRule(module, shared)
    if kind in {nn.Conv1d, nn.Conv2d}:
        if module.groups == 1:
            return MatrixRule(module, shared)
        return DepthwiseRule(module, shared) if module.groups == module.in_channels else None
    if kind in {nn.BatchNorm1d, nn.BatchNorm2d}:
        return BatchNormRule(module, shared) if module.track_running_stats else None
    if kind is nn.Embedding and module.max_norm is None:
        return EmbeddingRule(module, shared)
    return None
