"""Which layer reads what another one makes: there a unit that is dead on one side costs nothing on the other."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from karui.sparse.layers import base_of

AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)

# Channel by channel: what is constant in one channel stays constant there and reaches no other.
CHANNELWISE = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Softplus,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    *MAXIMA,
    *AVERAGES,
)


class Link(NamedTuple):
    """`reader` reads the outputs of `source` alone: `each` of its columns in a row belong to one output."""

    source: str
    reader: str
    each: int
    between: tuple[nn.Module, ...] = ()
    """What lies between the two, front to back."""


def chains(model: nn.Module) -> list[Link]:
    """Links of Linear and Conv layers (sparse or not) that follow each other in one `nn.Sequential`, front to back.

    Between two there may be activations, dropout, pooling, batch norms, and a Flatten of all axes but the batch.
    Anything else, norms of the batch's own statistics and every layer outside of a Sequential end a chain: what reads
    it is not known, or what it makes of a constant.
    """
    return [link for name, part in model.named_modules() for link in _links(name, part)]


def _links(prefix: str, sequential: nn.Module) -> Iterator[Link]:
    if type(sequential) is not nn.Sequential:
        return
    source, is_flat = "", False
    between: list[nn.Module] = []
    layers: dict[str, nn.Module] = {}
    for child, module in sequential.named_children():
        name = f"{prefix}.{child}".lstrip(".")
        layer = base_of(module)
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            is_flat = True
        elif isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            if source:
                each = _columns_each(layers[source], layer, is_flat=is_flat)
                if each:
                    yield Link(source, name, each, tuple(between))
            layers[name], source, is_flat, between = layer, name, False, []
            continue
        elif not isinstance(layer, CHANNELWISE) or not getattr(layer, "track_running_stats", True):
            source = ""
        between.append(layer)


def _columns_each(source: nn.Module, reader: nn.Module, *, is_flat: bool) -> int:
    """Columns of the reader's weight that belong to one row of the source's; 0 where they are not told apart."""
    rows, columns = source.get_parameter("weight").shape[0], reader.get_parameter("weight").shape[1]
    if isinstance(reader, nn.Conv1d | nn.Conv2d):
        is_plain = reader.groups == 1 and type(reader) is type(source) and not is_flat
        return int(is_plain and rows == columns)
    if isinstance(source, nn.Linear):
        return int(rows == columns)
    return columns // rows if is_flat and columns % rows == 0 else 0


def keeps_constants(module: nn.Module) -> bool:
    """Tell whether a constant channel is read as the same constant at every position, borders included."""
    if isinstance(module, nn.Linear):
        return True
    padding, mode = module.padding, module.padding_mode
    if mode in {"replicate", "reflect", "circular"}:
        return True
    kernel = tuple(module.kernel_size)  # type: ignore[arg-type]
    none = padding == "valid" or (padding == "same" and all(k == 1 for k in kernel))
    return none or (not isinstance(padding, str) and not any(padding))  # type: ignore[arg-type]


@torch.no_grad()
def unfoldable(model: nn.Module, link: Link) -> Tensor:
    """Outputs of the source, (rows,) boolean, whose columns the reader needs even where they are dead.

    A dead channel is a constant, its bias; behind a batch norm hardly ever zero. The reader's bias takes it in unless
    there are zeros in the padding, or an average that may have met some.
    """
    source, reader = (base_of(model.get_submodule(name)) for name in (link.source, link.reader))
    weight, bias = source.get_parameter("weight"), source._parameters["bias"]  # noqa: SLF001  may be None
    value = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    found = torch.zeros_like(value, dtype=torch.bool)
    value = value.view(1, -1, *[1] * (weight.dim() - 2))
    for module in link.between:
        if isinstance(module, nn.Flatten):
            return found
        if isinstance(module, AVERAGES):
            found |= value.flatten() != 0
        elif not isinstance(module, MAXIMA):
            value = _at_test_time(module, value)
    return found if keeps_constants(reader) else found | (value.flatten() != 0)


def _at_test_time(module: nn.Module, value: Tensor) -> Tensor:
    was = module.training
    try:
        return module.eval()(value)
    finally:
        module.train(was)
