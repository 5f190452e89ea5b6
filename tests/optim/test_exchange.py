"""Two processes that exchange rows end with the table of one process that saw the whole batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from karui.optim import RowAdagrad, exchange_sparse_gradients
from tests.support.exchange_worker import ROWS, STEPS, WIDTH, loss_of, part_of

ROOT = Path(__file__).resolve().parents[2]
WORLD = 2
pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    command = [sys.executable, "-m", "tests.support.exchange_worker"]
    workers = [
        subprocess.Popen([*command, str(rank), str(WORLD), str(folder)], cwd=ROOT, stderr=subprocess.PIPE)
        for rank in range(WORLD)
    ]
    try:
        for worker in workers:
            assert worker.wait(timeout=90) == 0, worker.stderr.read().decode()[-2000:]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def test_all_processes_have_the_mean_gradient_and_the_same_table(results):
    table = nn.Parameter(torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH))
    optimizer = RowAdagrad([table])
    for step in range(STEPS):
        table.grad = None
        (sum(loss_of(table, part_of(step, rank)) for rank in range(WORLD)) / WORLD).backward()
        wanted = table.grad.to_dense()
        for gradients, _ in results:
            assert gradients[step].is_coalesced()
            assert gradients[step]._nnz() == (wanted != 0).any(1).sum()
            assert (gradients[step].to_dense() - wanted).abs().max() < 1e-6
        optimizer.step()
    for gradients, end in results:
        assert (end - table.detach()).abs().max() < 1e-5
        assert torch.equal(end, results[0][1])
        for gradient, other in zip(gradients, results[0][0], strict=True):
            assert torch.equal(gradient.to_dense(), other.to_dense())


def test_a_dense_gradient_is_refused():
    table = nn.Parameter(torch.zeros(3, 2))
    table.grad = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"a gradient of shape \(3, 2\) is dense"):
        exchange_sparse_gradients([table])
