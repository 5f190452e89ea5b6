"""Sparse gradients across processes: the rows are exchanged, never the table."""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed

from karui.ops.row_update import sum_rows
from karui.ops.sparse_rows import sparse_rows
from karui.optim.rows import rows_of


@torch.no_grad()
def exchange_sparse_gradients(
    parameters: Iterable[Tensor], group: "distributed.ProcessGroup | None" = None
) -> None:
    """Replace each sparse gradient by its mean over all processes; what travels is ids and rows.

    Call it in every process, with the same parameters in the same order, after `backward` and before clipping. A
    process whose gradient is None takes part without rows. Afterwards all have the same gradient, coalesced, to the
    bit. Under DistributedDataParallel (or Fabric, which wraps in it) keep the tables out of its buckets:

        tables = layer.sparse_parameters()
        ids = {id(table) for table in tables}
        names = [name for name, parameter in model.named_parameters() if id(parameter) in ids]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
        model = DistributedDataParallel(model)
        ...
        loss.backward()                       # dense gradients are averaged here
        exchange_sparse_gradients(tables)     # sparse ones here
        karui.optim.clip_grad_norm_(model.parameters(), 1.0)

    The tables must be equal in all processes at the start (one seed, or one checkpoint) and stay so.
    Raises ValueError where a gradient is dense.
    """
    for parameter in parameters:
        grad = parameter.grad
        if grad is not None and not grad.is_sparse:
            raise ValueError(
                f"a gradient of shape {tuple(grad.shape)} is dense: leave it to DistributedDataParallel"
            )
        empty = parameter.new_zeros(0, *parameter.shape[1:])
        ids = torch.empty(0, dtype=torch.int64, device=parameter.device)
        ids, values = (ids, empty) if grad is None else sum_rows(*rows_of(grad))
        world = distributed.get_world_size(group)
        sizes = [torch.zeros(1, dtype=torch.int64, device=parameter.device) for _ in range(world)]
        distributed.all_gather(sizes, torch.tensor([len(ids)], device=parameter.device), group=group)
        counts = [int(size) for size in sizes]
        ids, values = (_gather(part, counts, group) for part in (ids, values))
        ids, values = sum_rows(ids, values)
        parameter.grad = sparse_rows(ids, values.div_(world), parameter.shape)


def _gather(part: Tensor, counts: list[int], group: "distributed.ProcessGroup | None") -> Tensor:
    """Concatenate the parts of all processes, counts[i] rows of process i; collectives want equal sizes."""
    longest = max(counts)
    padded = part.new_zeros(longest, *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded, group=group)
    return torch.cat([found[:count] for found, count in zip(parts, counts, strict=True)])
