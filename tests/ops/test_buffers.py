"""Proof of the pool of large buffers: what waits is used again, is bounded, and is nobody else's."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from karui import _native
from karui.nn import SRU
from karui.ops import buffers

LIKE = torch.empty(1)
COUNT = buffers.SMALLEST // LIKE.element_size()
BYTES = (buffers.SMALLEST + (2 << 20) - 1) // (2 << 20) * (2 << 20)  # of a buffer of COUNT numbers


@pytest.fixture(autouse=True)
def empty_pool() -> Iterator[None]:
    """Each test starts and ends without idle buffers."""
    buffers.set_idle_limit(0)
    buffers.set_idle_limit(buffers.IDLE_LIMIT)
    yield
    buffers.set_idle_limit(0)
    buffers.set_idle_limit(buffers.IDLE_LIMIT)


@pytest.fixture
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take small buffers from the pool too."""
    monkeypatch.setattr(buffers, "SMALLEST", 0)


def idle() -> tuple[int, int]:
    """Number and bytes of the buffers that wait."""
    return _native.idle_buffers()


def test_memory_is_used_again_and_only_when_dropped() -> None:
    first = buffers.new_empty(LIKE, COUNT)
    second = buffers.new_empty(LIKE, COUNT)
    assert first.shape == (COUNT,)
    assert first.dtype == LIKE.dtype
    places = {first.data_ptr(), second.data_ptr()}
    assert len(places) == 2
    part = first[1:]
    del first
    assert idle() == (0, 0)  # a view still reads it
    del part, second
    assert idle() == (2, 2 * BYTES)
    again = [buffers.new_empty(LIKE.double(), COUNT // 2) for _ in range(2)]  # other numbers in the same room
    assert {tensor.data_ptr() for tensor in again} == places
    assert again[0].dtype == torch.float64
    assert idle() == (0, 0)


def test_every_byte_can_be_written_and_keeps_its_value() -> None:
    for count in (COUNT, COUNT + 1, 3 * COUNT // 2 + 7):
        tensors = [buffers.new_empty(LIKE, count).fill_(k) for k in range(3)]
        assert all((tensor == k).all() for k, tensor in enumerate(tensors))


def test_a_buffer_is_at_most_a_quarter_too_large() -> None:
    large = buffers.new_empty(LIKE, 5 * COUNT)
    place = large.data_ptr()
    del large
    assert buffers.new_empty(LIKE, COUNT).data_ptr() != place
    assert buffers.new_empty(LIKE, 9 * COUNT // 2).data_ptr() == place


def test_idle_bytes_are_bounded_and_the_oldest_go_first() -> None:
    buffers.set_idle_limit(3 * BYTES)
    tensors = [buffers.new_empty(LIKE, COUNT) for _ in range(5)]
    places = [tensor.data_ptr() for tensor in tensors]
    while tensors:
        del tensors[0]
    assert idle() == (3, 3 * BYTES)
    again = [buffers.new_empty(LIKE, COUNT) for _ in range(3)]
    assert [tensor.data_ptr() for tensor in again] == places[:1:-1]
    del again
    buffers.set_idle_limit(BYTES)
    assert idle() == (1, BYTES)
    too_large = buffers.new_empty(LIKE, 2 * COUNT)
    del too_large
    assert idle() == (1, BYTES)  # it could not have waited: torch gave it
    buffers.set_idle_limit(0)
    assert idle() == (0, 0)
    with pytest.raises(ValueError, match="at least 0 bytes, got -1"):
        buffers.set_idle_limit(-1)


@pytest.mark.usefixtures("every_size")
def test_few_buffers_wait_however_small() -> None:
    tensors = [buffers.new_empty(LIKE, 5) for _ in range(40)]
    del tensors
    assert idle() == (16, 16 * (2 << 20))


def test_dropped_memory_is_the_systems_again() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    before = resident()
    tensor = buffers.new_empty(LIKE, 8 * COUNT).fill_(1.0)
    assert resident() - before > 6 * BYTES
    del tensor
    assert resident() - before > 6 * BYTES
    buffers.set_idle_limit(0)
    assert resident() - before < 2 * BYTES


def test_torch_gives_all_of_it_where_bytes_are_counted() -> None:
    waiting = buffers.new_empty(LIKE, COUNT)
    del waiting
    with buffers.all_from_torch():
        counted = buffers.new_empty(LIKE, COUNT)
        assert idle() == (1, BYTES)
    del counted
    assert idle() == (1, BYTES)


@pytest.mark.usefixtures("every_size")
def test_threads_share_it() -> None:
    problems = []

    def work(mark: int) -> None:
        for count in range(1, 400):
            tensor = buffers.new_empty(LIKE, 64 * count).fill_(mark)
            if not (tensor == mark).all():
                problems.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert 0 < idle()[0] <= 16


def test_an_unused_capsule_gives_its_buffer_back_and_nonsense_is_refused() -> None:
    capsule = _native.lend_buffer(COUNT, 32)
    assert idle() == (0, 0)
    del capsule
    assert idle() == (1, BYTES)
    for count, bits in ((-1, 32), (1 << 61, 32), (1, 16)):
        with pytest.raises(ValueError, match="bits 32 or 64"):
            _native.lend_buffer(count, bits)
    with pytest.raises(MemoryError):
        _native.lend_buffer(1 << 55, 64)
    assert idle() == (0, 0)  # what waited was given up first


def in_a_process(program: str) -> str:
    """Output of a fresh interpreter that must end well."""
    source = (
        f"import os, threading, torch\nfrom karui import _native\nfrom karui.ops import buffers\n{program}"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_may_happen_at_any_time() -> None:
    """The child finds what was lent, waits for no lock of a thread it lacks, and writes nothing of its parent's."""
    program = f"""
x = torch.empty(1)
lent = buffers.new_empty(x, {COUNT}).fill_(3)
waiting = buffers.new_empty(x, {COUNT}); del waiting
stop = False
def work():
    while not stop: _native.lend_buffer(5, 32)
thread = threading.Thread(target=work); thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        fresh = buffers.new_empty(x, {COUNT}).fill_(4)
        good = bool((lent == 3).all()) and _native.idle_buffers()[0] == 0
        lent.fill_(5)
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop = True; thread.join()
assert (lent == 3).all()
print("well")
"""
    assert in_a_process(program) == "well"


def test_a_tensor_may_outlive_the_interpreter() -> None:
    """Held by a module, by a graph and by another thread while Python ends."""
    program = f"""
import sys, time
from karui.nn import SRU
buffers.SMALLEST = 0
torch.kept = buffers.new_empty(torch.empty(1), {COUNT})
sys.graph = SRU(4, 4)(torch.zeros(3, 2, 4))[0].sum()
held = buffers.new_empty(torch.empty(1), {COUNT})
threading.Thread(target=lambda t: time.sleep(600), args=(held,), daemon=True).start()
print("well")
"""
    assert in_a_process(program) == "well"


def passes(layer: SRU, x: Tensor, backward: Callable[[Tensor], None]) -> list[Tensor]:
    """Output and gradients of a pass."""
    layer.zero_grad()
    output = layer(x)[0]
    backward(output.square().sum())
    return [
        output,
        *(parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None),
    ]


@pytest.mark.usefixtures("every_size")
def test_what_a_layer_finds_in_a_buffer_changes_nothing() -> None:
    torch.manual_seed(0)
    layer, x = SRU(40, 40, 2), torch.randn(9, 5, 40)
    with buffers.all_from_torch():
        wanted = passes(layer, x, lambda loss: loss.backward())
    for _ in range(2):
        poison = [buffers.new_empty(LIKE, 1 << k).fill_(torch.nan) for k in range(8, 21)]
        del poison
        found = passes(layer, x, lambda loss: loss.backward())
        assert idle()[0] > 0
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


@pytest.mark.usefixtures("every_size")
def test_a_graph_keeps_its_buffers_until_it_is_gone() -> None:
    """Two graphs at once, a second backward through one of them, and gradients of gradients."""
    torch.manual_seed(0)
    layer = SRU(8, 8).double()
    first, second = torch.randn(2, 5, 3, 8, dtype=torch.float64, requires_grad=True).unbind()
    one, two = layer(first)[0].sum(), layer(second)[0].sum()
    with buffers.all_from_torch():
        wanted = torch.autograd.grad(layer(first)[0].sum(), first)[0]
    found = [torch.autograd.grad(one, first, retain_graph=True)[0] for _ in range(2)]
    layer(first)[0].sum().backward()  # takes and gives back between the two
    found.append(torch.autograd.grad(one, first, create_graph=True)[0])
    assert torch.equal(found[0], wanted)
    assert torch.equal(found[1], wanted)
    assert (found[2] - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    assert found[2].requires_grad
    del one, two
    assert idle()[0] > 0
