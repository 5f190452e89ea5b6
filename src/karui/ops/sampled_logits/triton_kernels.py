"""GPU kernels of sampled losses: scores of a block of positions and of noise words stay on the chip.

N positions, K noise words, H hidden size. z_nk = x_n . w_k + o_k, -inf where word k is the target of n (HITS).
TERM: 0 logsumexp, 1 softplus, 2 blackout; see README.md. Sums are made in ACC, 32 bits for 16-bit inputs (64 for 64);
the product of positions and words takes numbers of PRODUCT.
"""

import triton
import triton.language as tl


@triton.jit
def scores_of(
    arrays,
    n,
    k,
    N,
    K,
    H: tl.constexpr,
    HITS: tl.constexpr,
    PRECISION: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_H: tl.constexpr,
    ACC: tl.constexpr,
):
    """z of positions n and words k, -inf beyond either end."""
    x, w, offset, target, noise = arrays
    z = tl.zeros((n.shape[0], k.shape[0]), ACC)
    for start in range(0, H, BLOCK_H):
        h = start + tl.arange(0, BLOCK_H)
        a = tl.load(x + n[:, None] * H + h[None, :], mask=(n[:, None] < N) & (h[None, :] < H), other=0.0)
        b = tl.load(w + k[None, :] * H + h[:, None], mask=(k[None, :] < K) & (h[:, None] < H), other=0.0)
        z += tl.dot(a.to(PRODUCT), b.to(PRODUCT), input_precision=PRECISION, out_dtype=ACC)
    z += tl.load(offset + k, mask=k < K, other=0.0).to(ACC)[None, :]
    live = (n[:, None] < N) & (k[None, :] < K)
    if HITS:
        of_target = tl.load(target + n, mask=n < N, other=-1)
        of_noise = tl.load(noise + k, mask=k < K, other=-2)
        live = live & (of_target[:, None] != of_noise[None, :])
    return tl.where(live, z, float("-inf"))


@triton.jit
def softplus(z):
    return tl.maximum(z, 0.0) + tl.where(z == float("-inf"), 0.0, log1p_of_exp(-tl.abs(z)))


@triton.jit
def log1p_of_exp(t):
    """log(1 + e^t) for t <= 0, with what 1 + e^t lost by rounding put back."""
    e = tl.exp(t)
    y = 1.0 + e
    return tl.log(y) - ((y - 1.0) - e) / y


@triton.jit
def share_of(z, log_total, LIMIT: tl.constexpr):
    """e^z / R, and the same kept below 1."""
    share = tl.where(z == float("-inf"), 0.0, tl.exp(z - log_total[:, None]))
    return share, tl.minimum(share, LIMIT)


@triton.jit
def slope_of(z, log_total, odds, TERM: tl.constexpr, LIMIT: tl.constexpr):
    """dr/dz."""
    if TERM == 1:
        e = tl.exp(-tl.abs(z))
        slope = tl.where(z == float("-inf"), 0.0, tl.where(z > 0.0, 1.0, e) / (1.0 + e))
    else:
        share, kept = share_of(z, log_total, LIMIT)
        slope = share
        if TERM == 2:
            own = tl.where(share > LIMIT, 0.0, 1.0 / (1.0 - kept))
            slope = share * (1.0 - odds[:, None] + own)
    return slope


@triton.jit
def forward_kernel(
    arrays,  # x (N, H), w (K, H), offset (K), target (N), noise (K)
    first,  # (N) or None
    reduced,  # (N)
    log_totals,  # (N)
    odds,  # (N)
    N,
    K,
    H: tl.constexpr,
    TERM: tl.constexpr,
    HITS: tl.constexpr,
    LIMIT: tl.constexpr,
    PRECISION: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    ACC: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    most = tl.full((BLOCK_N,), float("-inf"), ACC)
    total = tl.zeros((BLOCK_N,), ACC)
    if first is not None:
        most = tl.load(first + n, mask=n < N, other=0.0).to(ACC)
        total = tl.full((BLOCK_N,), 1.0, ACC)
    for start in range(0, K, BLOCK_K):
        z = scores_of(
            arrays, n, start + tl.arange(0, BLOCK_K), N, K, H, HITS, PRECISION, PRODUCT, BLOCK_H, ACC
        )
        if TERM == 1:
            total += tl.sum(softplus(z), 1)
        else:
            larger = tl.maximum(most, tl.max(z, 1))
            shift = tl.where(larger == float("-inf"), 0.0, larger)
            total = total * tl.exp(most - shift) + tl.sum(tl.exp(z - shift[:, None]), 1)
            most = larger
    value = total
    if TERM != 1:
        value = most + tl.log(total)
    tl.store(log_totals + n, value, mask=n < N)
    if TERM == 2:
        rest = tl.zeros((BLOCK_N,), ACC)
        of_odds = tl.zeros((BLOCK_N,), ACC)
        for start in range(0, K, BLOCK_K):
            z = scores_of(
                arrays, n, start + tl.arange(0, BLOCK_K), N, K, H, HITS, PRECISION, PRODUCT, BLOCK_H, ACC
            )
            share, kept = share_of(z, value, LIMIT)
            left = 1.0 - kept
            rest += tl.sum(tl.log(left) - ((left - 1.0) + kept) / left, 1)
            of_odds += tl.sum(tl.where(share > LIMIT, 0.0, kept / left), 1)
        tl.store(odds + n, of_odds, mask=n < N)
        value = value - rest
    tl.store(reduced + n, value, mask=n < N)


@triton.jit
def hidden_kernel(
    arrays,  # as in forward_kernel
    grad,  # (N)
    log_totals,  # (N)
    odds,  # (N)
    grad_x,  # (N, H)
    N,
    K,
    H: tl.constexpr,
    TERM: tl.constexpr,
    HITS: tl.constexpr,
    LIMIT: tl.constexpr,
    PRECISION: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    ACC: tl.constexpr,
):
    """diag(g) S W for a block of positions; the scores are computed once for each block of columns."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    log_total = tl.load(log_totals + n, mask=n < N, other=0.0)
    of_odds = tl.load(odds + n, mask=n < N, other=0.0)
    sums = tl.zeros((BLOCK_N, BLOCK_H), ACC)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        z = scores_of(arrays, n, k, N, K, H, HITS, PRECISION, PRODUCT, BLOCK_H, ACC)
        slope = slope_of(z, log_total, of_odds, TERM, LIMIT)
        b = tl.load(
            arrays[1] + k[:, None] * H + h[None, :], mask=(k[:, None] < K) & (h[None, :] < H), other=0.0
        )
        sums += tl.dot(slope, b.to(ACC), input_precision=PRECISION, out_dtype=ACC)
    g = tl.load(grad + n, mask=n < N, other=0.0).to(ACC)
    tl.store(
        grad_x + n[:, None] * H + h[None, :], sums * g[:, None], mask=(n[:, None] < N) & (h[None, :] < H)
    )


@triton.jit
def rows_kernel(
    arrays,  # as in forward_kernel
    grad,  # (N)
    log_totals,  # (N)
    odds,  # (N)
    grad_w,  # (K, H)
    grad_offset,  # (K)
    N,
    K,
    H: tl.constexpr,
    TERM: tl.constexpr,
    HITS: tl.constexpr,
    LIMIT: tl.constexpr,
    PRECISION: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    ACC: tl.constexpr,
):
    """S' diag(g) x and S' g for a block of noise words."""
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    sums = tl.zeros((BLOCK_K, BLOCK_H), ACC)
    of_offset = tl.zeros((BLOCK_K,), ACC)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        z = scores_of(arrays, n, k, N, K, H, HITS, PRECISION, PRODUCT, BLOCK_H, ACC)
        log_total = tl.load(log_totals + n, mask=n < N, other=0.0)
        of_odds = tl.load(odds + n, mask=n < N, other=0.0)
        g = tl.load(grad + n, mask=n < N, other=0.0).to(ACC)
        slope = slope_of(z, log_total, of_odds, TERM, LIMIT) * g[:, None]
        a = tl.load(
            arrays[0] + n[:, None] * H + h[None, :], mask=(n[:, None] < N) & (h[None, :] < H), other=0.0
        )
        sums += tl.dot(tl.trans(slope), a.to(ACC), input_precision=PRECISION, out_dtype=ACC)
        of_offset += tl.sum(slope, 0)
    tl.store(grad_w + k[:, None] * H + h[None, :], sums, mask=(k[:, None] < K) & (h[None, :] < H))
    if tl.program_id(1) == 0:
        tl.store(grad_offset + k, of_offset, mask=k < K)
