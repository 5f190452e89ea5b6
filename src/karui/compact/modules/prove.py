"""The same answers: on the example, on further ones, and on random inputs of their shapes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from karui.compact.modules.trace import same, tensors_of
from karui.errors import UserError

Sample = tuple[tuple, Mapping[str, Any]]
RANDOM_INPUTS = 3


def check(model: nn.Module, examples: list[Sample], *, seed: int) -> list[Sample]:
    """The examples, and random inputs like the first that the model takes.

    Raises UserError where two calls on one example give different answers.
    """
    for args, keywords in examples:
        if not same(model(*args, **keywords), model(*args, **keywords)):
            raise UserError(
                "the model's answers in eval mode are random, so that nothing can be proven equal to them"
            )
    generator = torch.Generator().manual_seed(seed)
    found = list(examples)
    tables = _rows_of_tables(model, examples[0])
    for place in range(RANDOM_INPUTS):
        one = _like(examples[0], generator, tables, scale=(1.0, 3.0, 0.1)[place % 3])
        if _fails(model, one):  # integers that are no ids may have to be what they are
            one = _like(examples[0], generator, {}, scale=1.0)
        if not _fails(model, one):
            found.append(one)
    return found


def _fails(model: nn.Module, sample: Sample) -> bool:
    try:
        model(*sample[0], **sample[1])
    except Exception as error:  # noqa: BLE001  a forward may refuse an input in any way
        del error
        return True
    return False


def _rows_of_tables(model: nn.Module, example: Sample) -> dict[int, int]:
    """For each integer tensor of the example that an embedding looks up: how many ids there are."""
    found: dict[int, int] = {}

    def note(module: nn.Module, given: tuple) -> None:
        if given and isinstance(given[0], Tensor):
            count = module.num_embeddings  # type: ignore[assignment]
            key = given[0].untyped_storage().data_ptr()
            found[key] = min(found.get(key, count), count)  # type: ignore[type-var, arg-type]

    handles = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        model(*example[0], **example[1])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _like(example: Sample, generator: torch.Generator, tables: Mapping[int, int], *, scale: float) -> Sample:
    """Random inputs of the same shapes: numbers of the same mean and spread, ids of all words; the rest as it is."""

    def drawn(value: Tensor) -> Tensor:
        if value.is_floating_point() and value.numel():
            spread = float(value.float().std()) if value.numel() > 1 else 0.0
            noise = torch.randn(value.shape, generator=generator).to(value)
            return value.float().mean().to(value) + noise * scale * max(spread, 1.0)
        count = tables.get(value.untyped_storage().data_ptr())
        if count and not value.is_floating_point() and value.dtype != torch.bool:
            return torch.randint(count, value.shape, generator=generator).to(value)
        return value

    args = tuple(_changed(value, drawn) for value in example[0])
    return args, {name: _changed(value, drawn) for name, value in example[1].items()}


def _changed(value: Any, drawn: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return drawn(value)
    if isinstance(value, PackedSequence):
        return PackedSequence(drawn(value.data), *value[1:])
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(_changed(part, drawn) for part in value)
    if isinstance(value, dict):
        return {name: _changed(part, drawn) for name, part in value.items()}
    return value


@torch.no_grad()
def answers(model: nn.Module, samples: list[Sample]) -> list[list[Tensor]]:
    """All tensors of the answer to each sample."""
    return [tensors_of(model(*args, **keywords)) for args, keywords in samples]


def worst_difference(found: list[list[Tensor]], expected: list[list[Tensor]]) -> float:
    """Largest difference over the largest expected number, or 1; infinite where shapes, types or finiteness differ."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if len(one) != len(other):
            return float("inf")
        for a, b in zip(one, other, strict=True):
            if a.shape != b.shape or a.dtype != b.dtype:
                return float("inf")
            a64, b64 = a.double(), b.double()
            finite = torch.isfinite(b64)
            if not torch.equal(a64[~finite].nan_to_num(), b64[~finite].nan_to_num()):
                return float("inf")
            if finite.any():
                size = max(1.0, float(b64[finite].abs().max()))
                error = float((a64[finite] - b64[finite]).abs().max()) / size
                worst = max(worst, error if error == error else float("inf"))  # noqa: PLR0124  NaN is not itself
    return worst
