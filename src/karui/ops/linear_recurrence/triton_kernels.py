"""GPU kernels of c_t = f_t c_{t-1} + b_t: one program walks one chunk of time for BLOCK columns.

T time, B batch, D directions, H hidden size; a column is a (sequence, direction, unit), a chunk LENGTH steps. Steps are
counted in the order of the walk. One chunk for all of time is the plain sequential kernel. Several are three launches:
SUMMARY walks write each chunk as one step (product of f, state from zero), `carry_kernel` scans those, and the walk is
repeated from the right first states. The state stays in registers, in 32 bits for 16-bit inputs (64 for 64); the reads
of AHEAD steps are issued in one go while the AHEAD steps before them are computed.
"""

import triton
import triton.language as tl


@triton.jit
def place(B, D: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr):
    """Columns of this program in a (B, D, H) array, which of them exist, their direction and cell in (D, B, H)."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = column // H
    return column, column < B * D * H, row % D, (row % D * B + row // D) * H + column % H


@triton.jit
def is_padding(padding, time, wanted, column, B, D: tl.constexpr, H: tl.constexpr):
    if padding is None:
        pad = tl.zeros_like(wanted)
    else:
        pad = tl.load(padding + time * B + column // (D * H), mask=wanted, other=0) != 0
    return pad


@triton.jit
def read_forward(sources, time, here, column, B, inside, D: tl.constexpr, H: tl.constexpr):
    f, b, padding = sources
    wanted = tl.where(here, inside, False)  # not `&`, of which the interpreter makes integers
    at = time * (B * D * H) + column
    pad = is_padding(padding, time, wanted, column, B, D, H)
    return tl.load(f + at, mask=wanted, other=1.0), tl.load(b + at, mask=wanted, other=0.0), pad


@triton.jit
def forward_kernel(
    sources,  # f, b (T, B, D, H), padding (T, B) 8-bit or None
    first,  # (D, B, H) first state, or with several chunks (K, B, D, H) first state of each
    c,  # (T, B, D, H)
    c_n,  # (D, B, H)
    factors,  # (K, B, D, H) product of f over each chunk, written by a SUMMARY walk
    addends,  # (K, B, D, H) state after each chunk from zero, same
    T,
    B,
    LENGTH,
    D: tl.constexpr,
    H: tl.constexpr,
    SUMMARY: tl.constexpr,
    CHUNKED: tl.constexpr,
    BLOCK: tl.constexpr,
    AHEAD: tl.constexpr,
    ACC: tl.constexpr,
):
    column, inside, d, state_at = place(B, D, H, BLOCK)
    chunk = tl.program_id(1)
    begin = d * (T - 1)  # direction 1 starts at the end
    step = 1 - 2 * d
    start = chunk * LENGTH
    stop = tl.minimum(start + LENGTH, T)
    chunk_at = chunk.to(tl.int64) * (B * D * H) + column
    product = tl.full((BLOCK,), 1.0, ACC)
    state = tl.zeros((BLOCK,), ACC)
    if not SUMMARY:
        state = tl.load(first + (chunk_at if CHUNKED else state_at), mask=inside, other=0.0).to(ACC)

    coming = ()
    for s in tl.static_range(AHEAD):
        t = start + s
        coming = coming + (read_forward(sources, begin + t * step, t < stop, column, B, inside, D, H),)
    for near in range(start, stop, AHEAD):
        after = ()
        for s in tl.static_range(AHEAD):
            t = near + AHEAD + s
            after = after + (read_forward(sources, begin + t * step, t < stop, column, B, inside, D, H),)
        for s in tl.static_range(AHEAD):
            f_t, b_t, pad = coming[s]
            f_t = tl.where(pad, 1.0, f_t.to(ACC))  # beyond `stop` they were read as 1 and 0
            state = f_t * state + tl.where(pad, 0.0, b_t.to(ACC))
            if SUMMARY:
                product = product * f_t
            else:
                at = (begin + (near + s) * step) * (B * D * H) + column
                tl.store(c + at, state.to(c.dtype.element_ty), mask=tl.where(near + s < stop, inside, False))
        coming = after
    if SUMMARY:
        tl.store(factors + chunk_at, product, mask=inside)
        tl.store(addends + chunk_at, state, mask=inside)
    else:
        last = tl.where(stop == T, inside, False)
        tl.store(c_n + state_at, state.to(c_n.dtype.element_ty), mask=last)


@triton.jit
def compose(f_1, b_1, f_2, b_2):
    """The step that does step 1, then step 2 (Martin and Cundy, ICLR 2018, section 2.2)."""
    return f_1 * f_2, f_2 * b_1 + b_2


@triton.jit
def carry_kernel(
    factors,  # (K, B, D, H)
    addends,  # (K, B, D, H)
    first,  # (D, B, H) state before the first chunk
    carried,  # (K, B, D, H) state before each chunk
    B,
    K,
    D: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,  # K rounded up to a power of two
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Scan the chunks of BLOCK columns at once, in parallel over them."""
    column, inside, _, state_at = place(B, D, H, BLOCK)
    chunk = tl.arange(0, ROWS)[:, None]
    at = chunk.to(tl.int64) * (B * D * H) + column[None, :]
    exists = (chunk < K) & inside[None, :]
    f = tl.load(factors + at, mask=exists, other=1.0)
    b = tl.load(addends + at, mask=exists, other=0.0)
    f, b = tl.associative_scan((f, b), 0, compose)
    start = tl.load(first + state_at, mask=inside, other=0.0).to(ACC)
    tl.store(carried + column, start, mask=inside)
    behind = (chunk + 1 < K) & inside[None, :]
    tl.store(carried + at + B * D * H, f * start[None, :] + b, mask=behind)


@triton.jit
def read_backward(sources, time, step, here, more, column, B, inside, D: tl.constexpr, H: tl.constexpr,
                  SUMMARY: tl.constexpr):  # fmt: skip
    f, c, grad_c, padding = sources
    wanted = tl.where(here, inside, False)
    at = time * (B * D * H) + column
    f_t = tl.load(f + at, mask=wanted, other=1.0)
    g_t = tl.load(grad_c + at, mask=wanted, other=0.0)
    before = g_t
    if not SUMMARY:
        before = tl.load(c + (at - step * (B * D * H)), mask=tl.where(more, inside, False), other=0.0)
    return f_t, g_t, before, is_padding(padding, time, wanted, column, B, D, H)


@triton.jit
def backward_kernel(
    sources,  # f, c (T, B, D, H) states as the forward stored them, grad_c, padding
    c_0,  # (D, B, H)
    last,  # (D, B, H) gradient of the last state, or with several chunks (K, B, D, H) that behind each
    grad_f,
    grad_b,
    grad_c_0,
    factors,  # (K, B, D, H) written by a SUMMARY walk, chunks counted from the end of the forward walk
    addends,
    T,
    B,
    LENGTH,
    D: tl.constexpr,
    H: tl.constexpr,
    SUMMARY: tl.constexpr,
    CHUNKED: tl.constexpr,
    BLOCK: tl.constexpr,
    AHEAD: tl.constexpr,
    ACC: tl.constexpr,
):
    """The walk from the last step to the first; e is the gradient that reaches c_t from later steps."""
    column, inside, d, state_at = place(B, D, H, BLOCK)
    chunk = tl.program_id(1)
    end = (1 - d) * (T - 1)
    step = 1 - 2 * d
    start = chunk * LENGTH
    stop = tl.minimum(start + LENGTH, T)
    chunk_at = chunk.to(tl.int64) * (B * D * H) + column
    product = tl.full((BLOCK,), 1.0, ACC)
    e = tl.zeros((BLOCK,), ACC)
    c_first = e
    if not SUMMARY:
        e = tl.load(last + (chunk_at if CHUNKED else state_at), mask=inside, other=0.0).to(ACC)
        c_first = tl.load(c_0 + state_at, mask=inside, other=0.0).to(ACC)

    coming = ()
    for s in tl.static_range(AHEAD):
        t = start + s
        coming = coming + (read_backward(sources, end - t * step, step, t < stop, t < tl.minimum(stop, T - 1),
                                         column, B, inside, D, H, SUMMARY),)  # fmt: skip
    for near in range(start, stop, AHEAD):
        after = ()
        for s in tl.static_range(AHEAD):
            t = near + AHEAD + s
            after = after + (read_backward(sources, end - t * step, step, t < stop, t < tl.minimum(stop, T - 1),
                                           column, B, inside, D, H, SUMMARY),)  # fmt: skip
        for s in tl.static_range(AHEAD):
            f_t, g_t, before, pad = coming[s]
            f_t = tl.where(pad, 1.0, f_t.to(ACC))
            g = g_t.to(ACC) + e
            e = f_t * g
            if SUMMARY:
                product = product * f_t
            else:
                t = near + s
                before = tl.where(t < T - 1, before.to(ACC), c_first)
                at = (end - t * step) * (B * D * H) + column
                kept = tl.where(t < stop, inside, False)
                tl.store(grad_f + at, tl.where(pad, 0.0, g * before).to(grad_f.dtype.element_ty), mask=kept)
                tl.store(grad_b + at, tl.where(pad, 0.0, g).to(grad_b.dtype.element_ty), mask=kept)
        coming = after
    if SUMMARY:
        tl.store(factors + chunk_at, product, mask=inside)
        tl.store(addends + chunk_at, e, mask=inside)
    else:
        done = tl.where(stop == T, inside, False)
        tl.store(grad_c_0 + state_at, e.to(grad_c_0.dtype.element_ty), mask=done)
