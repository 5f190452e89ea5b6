"""GPU kernels of paths through a binary tree: one program walks a row's path; others add up the rows of a node.

N rows, H hidden size, L steps of all paths together, M nodes, U nodes met. Sums are made in ACC: 32 bits for 16-bit
inputs (64 for 64). The backward sees the steps sorted by node (stable), so a node is one stretch of them. The root is
met by every row: long stretches are first cut in pieces of PIECE steps at fixed places, whose sums are added after
that. The order of every sum follows from the steps alone, so a second run gives the same bits.
"""

import triton
import triton.language as tl


@triton.jit
def log_sigmoid(x):
    """log sigmoid(x) without overflow; its slope sigmoid(-x) comes from the same exponential."""
    e = tl.exp(-tl.abs(x))
    y = 1.0 + e
    log = tl.log(y) - ((y - 1.0) - e) / y  # of 1 + e, with what y lost by rounding put back
    return tl.minimum(x, 0.0) - log, tl.where(x >= 0.0, e, 1.0) / y


@triton.jit
def forward_kernel(
    hidden,  # (N, H)
    weight,  # (M, H)
    bias,  # (M) or None
    nodes,  # (L) int32
    codes,  # (L) 8-bit
    offsets,  # (N + 1)
    log_prob,  # (N)
    slope,  # (L): d log_prob / d score, written with SAVE, like the next two
    rows,  # (L) int32: the row of each step
    direction,  # (N, H): d log_prob / d hidden
    H: tl.constexpr,
    SAVE: tl.constexpr,
    STEPS: tl.constexpr,  # whose rows of weight are read at once
    BLOCK: tl.constexpr,  # all columns of a row
    ACC: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(offsets + n), tl.load(offsets + n + 1)
    column = tl.arange(0, BLOCK)
    inside = column < H
    h = tl.load(hidden + n * H + column, mask=inside, other=0.0).to(ACC)
    total = tl.zeros((STEPS,), ACC)
    along = tl.zeros((BLOCK,), ACC)
    for first in range(begin, end, STEPS):
        i = first + tl.arange(0, STEPS)
        live = i < end
        node = tl.load(nodes + i, mask=live, other=0).to(tl.int64)
        at = weight + node[:, None] * H + column[None, :]
        w = tl.load(at, mask=live[:, None] & inside[None, :], other=0.0).to(ACC)
        score = tl.sum(w * h[None, :], 1)
        if bias is not None:
            score += tl.load(bias + node, mask=live, other=0.0).to(ACC)
        turns = tl.load(codes + i, mask=live, other=0) != 0
        value, s = log_sigmoid(tl.where(turns, -score, score))
        total += tl.where(live, value, 0.0)
        if SAVE:
            s = tl.where(turns, -s, s)
            tl.store(slope + i, s, mask=live)
            tl.store(rows + i, tl.zeros_like(i).to(tl.int32) + n.to(tl.int32), mask=live)
            along += tl.sum(w * s[:, None], 0)
    tl.store(log_prob + n, tl.sum(total, 0))
    if SAVE:
        tl.store(direction + n * H + column, along, mask=inside)


@triton.jit
def add_steps(steps, begin, end, column, inside, H: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
              ACC: tl.constexpr):  # fmt: skip
    """Sums over the sorted steps begin..end of g slope h, for a block of columns, and of g slope."""
    hidden, grad, slope, rows, order = steps
    total = tl.zeros((BLOCK,), ACC)
    factors = tl.zeros((ROWS,), ACC)
    for first in range(begin, end, ROWS):
        i = first + tl.arange(0, ROWS)
        live = i < end
        step = tl.load(order + i, mask=live, other=0)
        row = tl.load(rows + step, mask=live, other=0).to(tl.int64)
        factor = tl.load(slope + step, mask=live, other=0.0) * tl.load(grad + row, mask=live, other=0.0)
        at = hidden + row[:, None] * H + column[None, :]
        h = tl.load(at, mask=live[:, None] & inside[None, :], other=0.0).to(ACC)
        total += tl.sum(h * factor[:, None], 0)
        factors += factor
    return total, tl.sum(factors, 0)


@triton.jit
def piece_kernel(
    steps,  # hidden (N, H), grad (N), slope (L), rows (L), order (L): the steps sorted by node
    met,  # (L) int32: their nodes
    of_pieces,  # (L // PIECE, H)
    of_bias_pieces,  # (L // PIECE)
    H: tl.constexpr,
    PIECE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Sums of the sorted steps q PIECE..(q + 1) PIECE where they are all of one node; others are left alone."""
    q = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < H
    begin = q * PIECE
    if tl.load(met + begin) == tl.load(met + begin + PIECE - 1):
        total, factor = add_steps(steps, begin, begin + PIECE, column, inside, H, ROWS, BLOCK, ACC)
        tl.store(of_pieces + q * H + column, total, mask=inside)
        if tl.program_id(1) == 0:
            tl.store(of_bias_pieces + q, factor)


@triton.jit
def node_kernel(
    steps,  # as in piece_kernel
    starts,  # (U + 1) where the stretch of each node met begins
    places,  # (U) row of the results for each node met, or None for its number among them
    of_pieces,
    of_bias_pieces,
    of_weight,  # (U, H) or (M, H)
    of_bias,  # (U) or (M)
    H: tl.constexpr,
    PIECE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Rows of the gradients: the steps before the first whole piece, the pieces, the steps behind the last one."""
    u = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < H
    begin, end = tl.load(starts + u), tl.load(starts + u + 1)
    q_begin, q_end = (begin + PIECE - 1) // PIECE, end // PIECE
    stop = tl.minimum(q_begin * PIECE, end)
    total, factor = add_steps(steps, begin, stop, column, inside, H, ROWS, BLOCK, ACC)
    if q_begin < q_end:
        sums = tl.zeros((ROWS, BLOCK), ACC)
        factors = tl.zeros((ROWS,), ACC)
        for first in range(q_begin, q_end, ROWS):
            q = first + tl.arange(0, ROWS)
            live = q < q_end
            at = of_pieces + q[:, None] * H + column[None, :]
            sums += tl.load(at, mask=live[:, None] & inside[None, :], other=0.0)
            factors += tl.load(of_bias_pieces + q, mask=live, other=0.0)
        total += tl.sum(sums, 0)
        factor += tl.sum(factors, 0)
    rest, factor_rest = add_steps(
        steps, tl.maximum(stop, q_end * PIECE), end, column, inside, H, ROWS, BLOCK, ACC
    )
    place = u
    if places is not None:
        place = tl.load(places + u)
    tl.store(of_weight + place * H + column, total + rest, mask=inside)
    if tl.program_id(1) == 0:
        tl.store(of_bias + place, factor + factor_rest)


@triton.jit
def paths_kernel(
    parent,  # (2V - 1) int32: 2 node + code of the inner nodes, then of the leaves; -1 for the root
    of_leaves,  # the same from the first leaf on
    depth,  # (V) 8-bit
    leaves,  # (N)
    offsets,  # (N + 1)
    nodes,  # (L)
    codes,  # (L)
    N,
    BLOCK: tl.constexpr,
):
    """Nodes and codes of each path, written from its leaf to the root."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    leaf = tl.load(leaves + n, mask=inside, other=0)
    length = tl.load(depth + leaf, mask=inside, other=0).to(tl.int32)
    at = tl.load(offsets + n + 1, mask=inside, other=0)
    up = tl.load(of_leaves + leaf, mask=inside, other=0)
    for step in range(1, tl.max(length, 0) + 1):
        walking = step <= length
        tl.store(nodes + at - step, up >> 1, mask=walking)
        tl.store(codes + at - step, (up & 1).to(tl.uint8), mask=walking)
        up = tl.load(parent + (up >> 1), mask=walking, other=0)
