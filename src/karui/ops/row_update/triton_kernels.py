"""GPU kernels of row updates: one program a distinct id, which adds up the rows of that id in the order they came.

V rows of the table, H values a row, M gradient rows, R distinct ids. starts (R + 1,) cuts order (M,), the places sorted
by id. Sums are made in 32 bits for 16-bit rows (64 for 64).
"""

import triton
import triton.language as tl


@triton.jit
def add_up(
    values, order, begin, end, column, inside, H: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr
):
    """Sum of the rows at places order[begin..end), columns of a block."""
    total = tl.zeros((BLOCK,), ACC)
    for m in range(begin, end):
        place = tl.load(order + m)
        total += tl.load(values + place * H + column, mask=inside, other=0.0).to(ACC)
    return total


@triton.jit
def sum_kernel(
    values,  # (M, H)
    starts,  # (R + 1)
    order,  # (M)
    total,  # (R, H)
    H: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < H
    found = add_up(values, order, tl.load(starts + r), tl.load(starts + r + 1), column, inside, H, ACC, BLOCK)
    tl.store(total + r * H + column, found, mask=inside)


@triton.jit
def adagrad_kernel(
    values,  # (M, H)
    distinct,  # (R)
    starts,  # (R + 1)
    order,  # (M)
    weight,  # (V, H)
    squares,  # (V)
    rates,  # lr, eps in 64 bits
    H: tl.constexpr,
    BLOCK: tl.constexpr,  # all columns of a row
    ACC: tl.constexpr,
):
    """a += mean g^2;  w -= lr g / (sqrt(a) + eps)."""
    r = tl.program_id(0).to(tl.int64)
    lr, eps = tl.load(rates).to(ACC), tl.load(rates + 1).to(ACC)
    column = tl.arange(0, BLOCK)
    inside = column < H
    g = add_up(values, order, tl.load(starts + r), tl.load(starts + r + 1), column, inside, H, ACC, BLOCK)
    row = tl.load(distinct + r)
    a = tl.load(squares + row).to(ACC) + tl.sum(g * g, 0) / H
    tl.store(squares + row, a)
    at = weight + row * H + column
    w = tl.load(at, mask=inside, other=0.0).to(ACC)
    tl.store(at, w - lr * g / (tl.sqrt(a) + eps), mask=inside)
