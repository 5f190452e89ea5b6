"""GPU kernels of the Statistical Recurrent Unit: the feedback loop over time, and the moving averages behind it.

T time, B batch, P statistics, R recurrent statistics, A scales. The loop does not carry the averages mu (A*P numbers a
sequence) but what the feedback reads of them, y^a = W_r^a mu^a (A*R numbers), which obeys the same recurrence:
y^a_t = a y^a_{t-1} + (1 - a) W_r^a phi_t. One program walks time for ROWS sequences; R is filled up with zeros to RW
and P goes by in tiles of PW, so that every product is a tile product and one tile of weights is held at a time.
The averages are elementwise in phi and have kernels of their own.
ACTIVATION: 0 relu, 1 elu, 2 tanh; all are 0 at 0, so the filling stays 0. Everything is computed in 32 bits.
"""

import triton
import triton.language as tl

from karui.ops.simple_recurrence.triton_kernels import tanh


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    if ACTIVATION == 0:
        z = tl.maximum(z, 0.0)
    elif ACTIVATION == 1:
        z = tl.where(z > 0.0, z, tl.exp(tl.minimum(z, 0.0)) - 1.0)
    else:
        z = tanh(z, tl.float32)
    return z


@triton.jit
def slope(value, ACTIVATION: tl.constexpr):
    """Derivative of the activation, from its value."""
    if ACTIVATION == 0:
        value = tl.where(value > 0.0, 1.0, 0.0)
    elif ACTIVATION == 1:
        value = tl.where(value > 0.0, 1.0, value + 1.0)
    else:
        value = 1.0 - value * value
    return value


@triton.jit
def read_live(padding, t, B, rows):
    """Which of the sequences count at step t."""
    exists = rows < B
    if padding is not None:
        exists = tl.load(padding + t * B + rows, mask=exists, other=1) == 0
    return exists


@triton.jit
def feedback_kernel(
    projected,  # (T, B, P)
    weight_r,  # (A, R, P)
    bias_r,  # (R,)
    weight_phi,  # (P, R)
    alphas,  # (A,)
    y_0,  # (B, A, R)
    padding,  # (T, B) 8-bit or None
    phi,  # (T, B, P), 0 in padding
    r,  # (T, B, R), 0 in padding
    T,
    B,
    P: tl.constexpr,
    R: tl.constexpr,
    A: tl.constexpr,
    PW: tl.constexpr,
    RW: tl.constexpr,
    ROWS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Equations 7 and 8 of the paper, step by step."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, RW)
    known = (rows < B)[:, None]
    b_r = tl.load(bias_r + k, mask=k < R, other=0.0)
    r_mask = known & (k < R)[None, :]
    y = ()
    for a in tl.static_range(A):
        y = y + (tl.load(y_0 + (rows[:, None] * A + a) * R + k[None, :], mask=r_mask, other=0.0),)
    for t in range(T):
        live = read_live(padding, t, B, rows)[:, None]
        line = t * B + rows[:, None]
        seen = tl.zeros((ROWS, RW), tl.float32) + b_r[None, :]
        new = ()
        for a in tl.static_range(A):
            seen = seen + y[a]
            new = new + (tl.load(alphas + a) * y[a],)
        r_t = activate(seen, ACTIVATION)  # (7)
        tl.store(r + line * R + k[None, :], tl.where(live, r_t, 0.0), mask=r_mask)
        for tile in range(0, P, PW):
            p = tile + tl.arange(0, PW)
            p_mask = known & (p < P)[None, :]
            x_t = tl.load(projected + line * P + p[None, :], mask=p_mask, other=0.0)
            x_t = tl.where(live, x_t, 0.0)  # NaN in padding would pass through the products
            square = (k < R)[:, None] & (p < P)[None, :]
            w_phi = tl.load(weight_phi + p[None, :] * R + k[:, None], mask=square, other=0.0)  # (RW, PW)
            phi_t = activate(x_t + tl.dot(r_t, w_phi, input_precision=PRECISION), ACTIVATION)  # (8)
            tl.store(phi + line * P + p[None, :], tl.where(live, phi_t, 0.0), mask=p_mask)
            square = (p < P)[:, None] & (k < R)[None, :]
            sums = ()
            for a in tl.static_range(A):
                w_a = tl.load(weight_r + (a * R + k[None, :]) * P + p[:, None], mask=square, other=0.0)
                share = tl.dot(phi_t, w_a, input_precision=PRECISION)
                sums = sums + (new[a] + (1.0 - tl.load(alphas + a)) * share,)
            new = sums
        kept = ()
        for a in tl.static_range(A):
            kept = kept + (tl.where(live, new[a], y[a]),)
        y = kept


@triton.jit
def feedback_backward_kernel(
    grad_phi,  # (T, B, P) what the averages hand to phi
    weight_r,  # (A, R, P)
    weight_phi,  # (P, R)
    alphas,
    padding,
    phi,
    r,
    pre_phi,  # (T, B, P) gradient before the activation of phi
    pre_r,  # (T, B, R) same of r
    z,  # (T, B, A, R) gradient of y, 0 in padding
    z_0,  # (B, A, R) gradient of y_0
    T,
    B,
    P: tl.constexpr,
    R: tl.constexpr,
    A: tl.constexpr,
    PW: tl.constexpr,
    RW: tl.constexpr,
    ROWS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The same loop from last to first."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, RW)
    known = (rows < B)[:, None]
    r_mask = known & (k < R)[None, :]
    gy = ()
    for _ in tl.static_range(A):
        gy = gy + (tl.zeros((ROWS, RW), tl.float32),)
    for s in range(T):
        t = T - 1 - s
        live = read_live(padding, t, B, rows)[:, None]
        line = t * B + rows[:, None]
        for a in tl.static_range(A):
            tl.store(z + (line * A + a) * R + k[None, :], tl.where(live, gy[a], 0.0), mask=r_mask)
        g_r = tl.zeros((ROWS, RW), tl.float32)
        for tile in range(0, P, PW):
            p = tile + tl.arange(0, PW)
            p_mask = known & (p < P)[None, :]
            square = (k < R)[:, None] & (p < P)[None, :]
            g = tl.load(grad_phi + line * P + p[None, :], mask=p_mask, other=0.0)
            for a in tl.static_range(A):
                w_a = tl.load(weight_r + (a * R + k[:, None]) * P + p[None, :], mask=square, other=0.0)
                beta = 1.0 - tl.load(alphas + a)
                g = g + beta * tl.dot(gy[a], w_a, input_precision=PRECISION)
            phi_t = tl.load(phi + line * P + p[None, :], mask=p_mask, other=0.0)
            g = tl.where(live, g * slope(phi_t, ACTIVATION), 0.0)
            tl.store(pre_phi + line * P + p[None, :], g, mask=p_mask)
            square = (p < P)[:, None] & (k < R)[None, :]
            w_phi = tl.load(weight_phi + p[:, None] * R + k[None, :], mask=square, other=0.0)  # (PW, RW)
            g_r = g_r + tl.dot(g, w_phi, input_precision=PRECISION)
        r_t = tl.load(r + line * R + k[None, :], mask=r_mask, other=0.0)
        g_r = g_r * slope(r_t, ACTIVATION)
        tl.store(pre_r + line * R + k[None, :], g_r, mask=r_mask)
        earlier = ()
        for a in tl.static_range(A):
            earlier = earlier + (tl.where(live, tl.load(alphas + a) * gy[a] + g_r, gy[a]),)
        gy = earlier
    for a in tl.static_range(A):
        tl.store(z_0 + (rows[:, None] * A + a) * R + k[None, :], gy[a], mask=r_mask)


@triton.jit
def read_average(phi, padding, t, T, B, column, inside, P: tl.constexpr):
    wanted = tl.where(t < T, inside, False)
    value = tl.load(phi + (column * 0 + t) * (B * P) + column, mask=wanted, other=0.0)
    live = wanted
    if padding is not None:
        live = tl.load(padding + t * B + column // P, mask=wanted, other=1) == 0
    return value, live


@triton.jit
def average_kernel(
    phi,  # (T, B, P)
    alphas,
    mu_0,  # (B, A, P)
    padding,
    mu,  # (T, B, A, P) or None
    mu_n,  # (B, A, P)
    T,
    B,
    P: tl.constexpr,
    A: tl.constexpr,
    BLOCK: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """Equation 9 for one scale (second axis of the grid) and BLOCK columns of a (B, P) array."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    a = tl.program_id(1)
    inside = column < B * P
    alpha = tl.load(alphas + a)
    state_at = (column // P * A + a) * P + column % P
    state = tl.load(mu_0 + state_at, mask=inside, other=0.0)
    coming = ()
    for s in tl.static_range(AHEAD):
        coming = coming + (read_average(phi, padding, s, T, B, column, inside, P),)
    for near in range(0, T, AHEAD):
        after = ()
        for s in tl.static_range(AHEAD):
            after = after + (read_average(phi, padding, near + AHEAD + s, T, B, column, inside, P),)
        for s in tl.static_range(AHEAD):
            value, live = coming[s]
            t = near + s
            state = tl.where(live, alpha * state + (1.0 - alpha) * value, state)
            if mu is not None:
                at = mu + (column * 0 + t) * (B * A * P) + state_at
                tl.store(at, state, mask=tl.where(t < T, inside, False))
        coming = after
    tl.store(mu_n + state_at, state, mask=inside)


@triton.jit
def average_backward_kernel(
    grad_mu,  # (T, B, A, P) or None
    grad_mu_n,  # (B, A, P)
    alphas,
    padding,
    grad_phi,  # (T, B, P)
    grad_mu_0,  # (B, A, P)
    e,  # (T, B, A, P) gradient of each average with all that follows, 0 in padding; None where nobody asks
    T,
    B,
    P: tl.constexpr,
    A: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The same from last to first, all scales at once, since phi gets the sum over them."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < B * P
    first_at = (column // P * A) * P + column % P
    g = ()
    for a in tl.static_range(A):
        g = g + (tl.load(grad_mu_n + first_at + a * P, mask=inside, other=0.0),)
    for s in range(T):
        t = T - 1 - s
        live = inside
        if padding is not None:
            live = tl.load(padding + t * B + column // P, mask=inside, other=1) == 0
        total = tl.zeros((BLOCK,), tl.float32)
        earlier = ()
        for a in tl.static_range(A):
            alpha = tl.load(alphas + a)
            at = (column * 0 + t) * (B * A * P) + first_at + a * P
            g_a = g[a]
            if grad_mu is not None:
                g_a = g_a + tl.load(grad_mu + at, mask=inside, other=0.0)
            if e is not None:
                tl.store(e + at, tl.where(live, g_a, 0.0), mask=inside)
            total = total + (1.0 - alpha) * g_a
            earlier = earlier + (tl.where(live, alpha * g_a, g_a),)
        g = earlier
        at_phi = grad_phi + (column * 0 + t) * (B * P) + column
        tl.store(at_phi, tl.where(live, total, 0.0), mask=inside)
    for a in tl.static_range(A):
        tl.store(grad_mu_0 + first_at + a * P, g[a], mask=inside)
