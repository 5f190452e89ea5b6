"""Product and scan of a layer together, a chunk of time after the other: what lies between them stays in cache.

T time, B batch, I input features, G gate blocks, H hidden size. One direction, float32 or float64, CPU.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from karui import _native
from karui.ops.choice import is_traced
from karui.ops.double_backward import differentiable_gradients
from karui.ops.eager import addresses
from karui.ops.simple_recurrence import reference
from karui.ops.simple_recurrence.cpu import ACTIVATIONS, MAX_CHUNKS
from karui.ops.simple_recurrence.product import onednn_linear, pays_onednn

CHUNK_BYTES = 6 << 20  # of u: it stays in cache, and the product does not get slower by being cut
FEWEST_ROWS = 512  # of a chunk, for the same reason
HUGE_PAGE = 2 << 20
COPY_BYTES = 64 << 20  # of all of u: more than this the allocator gives back to the system after every call


class Words(NamedTuple):
    """What is no tensor. skip_is_input: x is the skip input as well, and `skip` is None."""

    activation: str
    scale: float
    skip_is_input: bool


class _Chunks:
    """Sizes of a layer, and its time cut into even chunks."""

    def __init__(self, x: Tensor, weight: Tensor, c_0: Tensor, words: Words) -> None:
        self.T, self.B, self.I = x.shape
        self.H = c_0.shape[2]
        self.G = weight.shape[0] // self.H
        row = max(1, self.B) * weight.shape[0] * x.element_size()
        most = max(1, CHUNK_BYTES // row, FEWEST_ROWS // max(1, self.B))
        count = max(1, -(-self.T // most))
        self.steps = -(-self.T // count)
        self.words, self.double = words, x.dtype == torch.float64
        self.onednn = pays_onednn(self.steps * self.B, weight)

    def __iter__(self) -> Iterator[slice]:
        return (slice(begin, min(self.T, begin + self.steps)) for begin in range(0, self.T, self.steps or 1))

    def sizes(self, part: slice) -> object:
        return _native.ScanSizes(
            part.stop - part.start, self.B, 1, self.G, self.H,
            ACTIVATIONS.index(self.words.activation), self.words.scale, torch.get_num_threads(),
        )  # fmt: skip


def can_run(x: Tensor, weight: Tensor, c_0: Tensor, implementation: str | None) -> bool:
    """Tell whether this file computes the layer; the caller multiplies and scans apart where it does not."""
    return (
        implementation in (None, "cpp")
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and weight.dtype == x.dtype
        and c_0.shape[0] == 1
        and not torch.is_autocast_enabled("cpu")
        and not is_traced(x)
        and not is_traced(weight)
    )


def _fresh(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor, on huge pages where it is large: the first touch of each page costs as much as filling it."""
    tensor = like.new_empty(shape)
    if tensor.nbytes >= HUGE_PAGE:
        _native.use_huge_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor


def _cut(tensor: Tensor | None, part: slice) -> Tensor | None:
    return None if tensor is None else tensor[part]


def _room_for_gates(cut: _Chunks, x: Tensor) -> list[Any]:
    """Where the gates of each chunk go: into one tensor, or None for over the product that oneDNN returned.

    Much of what oneDNN returns would be paged in 4 KiB at a time, which costs more than a copy to one tensor.
    """
    if cut.onednn and cut.T * cut.B * cut.G * cut.H * x.element_size() <= COPY_BYTES:
        return [None for _ in cut]
    kept = _fresh(x, cut.T * cut.B, cut.G * cut.H)
    return [kept[part.start * cut.B : part.stop * cut.B] for part in cut]


def run_forward(
    x: Tensor,
    weight: Tensor,
    skip: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    c_0: Tensor,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    words: Words,
    *,
    save: bool,
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """Contiguous inputs of one dtype; x (T, B, I), weight (G*H, I), skip (T, B, H), the rest as in the scan.

    Returns h (T, B, H), c_n (1, B, H) and, where `save`, what the backward reads: every state c (T, B, H), the weight
    as (I, G*H) or None without oneDNN, and the gates of each chunk (rows, G*H: candidate, f, r[, skip]).
    """
    cut = _Chunks(x, weight, c_0, words)
    h, c_n = _fresh(x, cut.T, cut.B, cut.H), c_0.clone()
    c, gates = (_fresh(x, *h.shape), _room_for_gates(cut, x)) if save else (None, [])
    transposed = weight.t().contiguous() if cut.onednn else None  # oneDNN packs a weight faster from there
    buffer = None if cut.onednn or save else x.new_empty(cut.steps * cut.B, weight.shape[0])
    source = x if words.skip_is_input else skip
    for index, part in enumerate(cut):
        rows = x[part].view(-1, cut.I)
        if transposed is not None:
            u = onednn_linear(rows, transposed.t())
        else:
            u = torch.mm(rows, weight.t(), out=gates[index] if buffer is None else buffer[: rows.shape[0]])
        if save and gates[index] is None:
            gates[index] = u  # overwritten in place
        arrays = addresses(
            u, _cut(source, part), weight_c, bias, c_n, dropout_mask, _cut(padding_mask, part),
            h[part], _cut(c, part), c_n, gates[index] if save else None,
        )  # fmt: skip
        _native.scan_forward(cut.sizes(part), cut.double, arrays)
    return h, c_n, () if c is None else (c, transposed, *gates)


class _Gradients:
    """What the backward fills, chunk by chunk from the last."""

    def __init__(self, tensors: list[Any], words: Words, wanted: tuple[bool, ...]) -> None:
        x, self.weight, skip, weight_c, bias, c_0, self.padding_mask, self.dropout_mask, *rest = tensors
        self.c, self.transposed, *self.gates = rest
        self.x, self.c_0, self.weight_c, self.bias = x, c_0, weight_c, bias
        self.cut = cut = _Chunks(x, self.weight, c_0, words)
        cut.onednn = self.transposed is not None  # as the forward had it
        self.parts = list(cut)
        self.both = (
            words.skip_is_input and wanted[0]
        )  # gradients of x come from the scan and from the product
        self.source = x if words.skip_is_input else skip
        self.wants_x, self.alone = (
            wanted[0],
            cut.onednn and len(self.parts) == 1,
        )  # its product is grad_x itself
        self.grad_x = _fresh(x, *x.shape) if wanted[0] and not self.alone else None
        self.grad_skip = _fresh(x, *skip.shape) if skip is not None and wanted[2] else None
        self.grad_u = x.new_empty(cut.steps * cut.B, self.weight.shape[0])
        # oneDNN cannot add into a tensor, so the two parts meet afterwards.
        self.grad_input = x.new_empty(cut.steps, cut.B, cut.I) if self.both and cut.onednn else None
        self.grad_weight = torch.zeros_like(self.weight) if wanted[1] and not self.parts else None
        self.wants_weight = wanted[1]
        count = len(self.parts)
        self.grad_weight_c = None if weight_c is None else x.new_empty(count, *weight_c.shape)
        self.grad_bias = x.new_empty(count, *bias.shape)
        self.scratch = x.new_empty(MAX_CHUNKS, 4, cut.H)

    def scan(self, index: int, grad_h: Tensor, grad_c: Tensor) -> Tensor | None:
        """One chunk of the scan: fills grad_u, takes grad_c on; returns what x gets from the skip, if anything."""
        part = self.parts[index]
        before = self.c_0 if index == 0 else self.c[part.start - 1]
        grad_skip = _cut(self.grad_skip, part)
        if self.both:
            grad_skip = _cut(self.grad_x, part) if self.grad_input is None else self.grad_input
        grad_weight_c = None if self.grad_weight_c is None else self.grad_weight_c[index]
        forward = addresses(
            None, _cut(self.source, part), self.weight_c, self.bias, before, self.dropout_mask,
            _cut(self.padding_mask, part), None, self.c[part], None, self.gates[index],
        )  # fmt: skip
        backward = addresses(
            grad_h[part],
            grad_c,
            self.grad_u,
            grad_skip,
            grad_weight_c,
            self.grad_bias[index],
            grad_c,
            self.scratch,
        )
        _native.scan_backward(self.cut.sizes(part), self.cut.double, forward, backward)
        return grad_skip

    def multiply(self, index: int) -> None:
        """The two products of the chunk whose grad_u stands there."""
        part = self.parts[index]
        x, grad_u = self.x[part].view(-1, self.cut.I), self.grad_u[: (part.stop - part.start) * self.cut.B]
        if self.grad_weight is not None:
            self.grad_weight.addmm_(grad_u.t(), x)
        elif self.wants_weight:
            self.grad_weight = torch.mm(grad_u.t(), x)
        if not self.wants_x:
            return
        if self.transposed is None:
            to = self.grad_x[part].view(-1, self.cut.I)  # type: ignore[index]  there is one
            _ = to.addmm_(grad_u, self.weight) if self.both else torch.mm(grad_u, self.weight, out=to)
            return
        by_product = onednn_linear(grad_u, self.transposed).view(-1, self.cut.B, self.cut.I)
        if self.grad_x is None:
            self.grad_x = by_product if self.grad_input is None else by_product.add_(self.grad_input)
        elif self.grad_input is None:
            self.grad_x[part] = by_product
        else:
            torch.add(by_product, self.grad_input[: len(by_product)], out=self.grad_x[part])


def run_backward(
    grad_h: Tensor, grad_c_n: Tensor, tensors: list[Any], words: Words, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight, skip, weight_c, bias, c_0; the first three are None where not wanted."""
    found, grad_c_0 = _Gradients(tensors, words, wanted), grad_c_n.clone()
    for index in reversed(range(len(found.parts))):
        found.scan(index, grad_h, grad_c_0)
        found.multiply(index)
    grad_weight_c = None if found.grad_weight_c is None else found.grad_weight_c.sum(0)
    return found.grad_x, found.grad_weight, found.grad_skip, grad_weight_c, found.grad_bias.sum(0), grad_c_0


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        *tensors, ctx.words = inputs
        h, c_n, saved = run_forward(*inputs, save=True)
        ctx.save_for_backward(*tensors, *saved)
        ctx.set_materialize_grads(False)  # zeros for the states would cost as much as the output
        return h, c_n

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        tensors, words = ctx.saved_tensors, ctx.words
        x, _, _, _, _, c_0, padding_mask, dropout_mask = tensors[:8]
        grad_h, grad_c_n = grad_outputs
        grad_h = x.new_zeros(*x.shape[:2], c_0.shape[2]) if grad_h is None else grad_h.contiguous()
        grad_c_n = torch.zeros_like(c_0) if grad_c_n is None else grad_c_n.contiguous()
        if torch.is_grad_enabled():  # gradients of these gradients will be asked for

            def again(
                x: Tensor,
                weight: Tensor,
                skip: Tensor | None,
                weight_c: Tensor | None,
                bias: Tensor,
                c_0: Tensor,
            ) -> tuple[Tensor, Tensor]:
                u = F.linear(x, weight).view(*x.shape[:2], 1, -1, c_0.shape[2])
                return reference.simple_recurrence(
                    u,
                    x if words.skip_is_input else skip,
                    weight_c,
                    bias,
                    c_0=c_0,
                    padding_mask=padding_mask,
                    dropout_mask=dropout_mask,
                    variant="v1" if weight_c is None else "v2",
                    activation=words.activation,
                    scale=words.scale,
                )

            return *differentiable_gradients(again, tensors[:6], (grad_h, grad_c_n)), None, None, None
        return *run_backward(grad_h, grad_c_n, list(tensors), words, ctx.needs_input_grad), None, None, None


def simple_recurrence_layer(
    x: Tensor,
    weight: Tensor,
    skip: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    *,
    c_0: Tensor,
    padding_mask: Tensor | None,
    dropout_mask: Tensor | None,
    activation: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `karui.ops.simple_recurrence.simple_recurrence_layer`, where `can_run`; weight_c None is v1."""
    tensors = (x, weight, None if skip is x else skip, weight_c, bias, c_0, padding_mask, dropout_mask)
    inputs: list[Any] = [None if t is None else t.contiguous() for t in tensors]
    inputs.append(Words(activation, scale, skip_is_input=skip is x))
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs[:6]):
        return _Layer.apply(*inputs)
    return run_forward(*inputs, save=False)[:2]
