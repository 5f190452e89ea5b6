"""Large temporaries out of memory that is used again: `native/buffer_pool.hpp` says what fresh memory costs.

Only for what an operation keeps to itself, such as what its backward reads: what a caller is given comes from torch.
Torch's profiler does not see this memory; who counts bytes with it wants `all_from_torch`.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor
from torch.utils.dlpack import from_dlpack

from karui import _native

SMALLEST = (
    10 << 20
)  # bytes; malloc holds on to less by itself: no page fault a call at 8 MiB, thousands at 64
IDLE_LIMIT = 256 << 20  # bytes, unless `set_idle_limit` says otherwise

_limit = 0


def set_idle_limit(limit: int) -> None:
    """Let that many bytes at most wait for the next call, all buffers together; the rest goes back to the system.

    0 takes everything from torch. Buffers in use are as large as what they hold, or a quarter larger at most.
    """
    if limit < 0:
        raise ValueError(f"limit must be at least 0 bytes, got {limit}")
    global _limit  # noqa: PLW0603  memory is one for the process
    _limit = limit
    _native.limit_idle_buffers(limit)


def new_empty(like: Tensor, count: int) -> Tensor:
    """`like.new_empty(count)` for float32 or float64 on a CPU; a large one waits for the next call once dropped."""
    size = count * like.element_size()
    if size < SMALLEST or size > _limit:
        return like.new_empty(count)
    return from_dlpack(_native.lend_buffer(count, 8 * like.element_size()))


@contextlib.contextmanager
def all_from_torch() -> Iterator[None]:
    """Take everything from torch, so that its profiler sees all memory; what waits keeps waiting."""
    global _limit  # noqa: PLW0603
    before, _limit = _limit, 0
    try:
        yield
    finally:
        _limit = before


set_idle_limit(IDLE_LIMIT)
