"""One of several processes that exchange sparse gradients: `python -m tests.support.exchange_worker RANK WORLD FOLDER`.

All see the same table and a part each of the batch; every process saves its gradient and its table after a step.
"""

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional as F

from karui.optim import RowAdagrad, clip_grad_norm_, exchange_sparse_gradients

ROWS, WIDTH, STEPS = 1000, 4, 3


def part_of(step: int, rank: int) -> torch.Tensor:
    """Ids of a process in a step: of different lengths, with repeats, overlapping; none in one step."""
    sizes = [[5, 9], [0, 4], [6, 6]]
    generator = torch.Generator().manual_seed(10 * step + rank)
    return torch.randint(0, 12, (sizes[step][rank],), generator=generator)


def loss_of(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return F.embedding(ids, table, sparse=True).exp().sum()


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    table = nn.Parameter(torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH))
    unused = nn.Parameter(torch.zeros(ROWS))
    optimizer = RowAdagrad([table, unused])
    gradients = []
    for step in range(STEPS):
        optimizer.zero_grad()
        ids = part_of(step, rank)
        if len(ids):
            loss_of(table, ids).backward()
        exchange_sparse_gradients([table, unused])
        gradients.append(table.grad)
        clip_grad_norm_([table, unused], 1e3)
        optimizer.step()
    torch.save((gradients, table.detach()), folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
