"""GPU kernels of the scan: one program walks time for BLOCK columns; a column is a (sequence, direction, unit).

T time, B batch, D directions, G gate blocks, H hidden size. The state c stays in registers, in 32 bits for 16-bit
inputs (64 for 64). What a step reads does not depend on c, so the reads of AHEAD steps are issued in one go while the
AHEAD steps before them are computed: the latency of the memory hides behind the chain of sigmoids.
H is a constant of the compiled kernel: the planes of u then lie at fixed distances and need no address arithmetic.
V1: the gates do not read c (arXiv 1709.02755v1). ACTIVATION: 0 identity, 1 tanh, 2 relu. An array may be None.
"""

import triton
import triton.language as tl


@triton.jit
def sigmoid(z):
    return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def tanh(z, ACC: tl.constexpr):
    """Rational approximation, within 3 units in the last place of 32 bits; through exp for 64."""
    if ACC == tl.float64:
        e = tl.exp(-2.0 * tl.abs(z))
        g = tl.where(z < 0.0, -1.0, 1.0) * (1.0 - e) / (1.0 + e)
    else:
        z = tl.minimum(tl.maximum(z, -7.90531110763549805), 7.90531110763549805)  # beyond, it rounds to 1
        s = z * z
        top = -2.76076847742355e-16 * s + 2.00018790482477e-13
        top = top * s - 8.60467152213735e-11
        top = top * s + 5.12229709037114e-08
        top = top * s + 1.48572235717979e-05
        top = top * s + 6.37261928875436e-04
        top = top * s + 4.89352455891786e-03
        bottom = 1.19825839466702e-06 * s + 1.18534705686654e-04
        bottom = bottom * s + 2.26843463243900e-03
        g = z * top / (bottom * s + 4.89352518554385e-03)
    return g


@triton.jit
def activate(c, ACTIVATION: tl.constexpr, ACC: tl.constexpr):
    """g(c) and its derivative."""
    if ACTIVATION == 1:
        g = tanh(c, ACC)
        slope = 1.0 - g * g
    elif ACTIVATION == 2:
        g = tl.maximum(c, 0.0)
        slope = tl.where(c > 0.0, 1.0, 0.0).to(ACC)
    else:
        g = c
        slope = tl.full(c.shape, 1.0, ACC)
    return g, slope


@triton.jit
def place(B, D: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr):
    """Columns of this program in a (B, D, H) array, their row b*D + d, their unit, and which of them exist."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return column, column // H, column % H, column < B * D * H


@triton.jit
def gate_parameters(gates, d, unit, inside, H: tl.constexpr, V1: tl.constexpr, ACC: tl.constexpr):
    """v_f, v_r, b_f, b_r of the units; without a weight the first two are 0."""
    weight_c, bias = gates
    at = d * 2 * H + unit
    b_f = tl.load(bias + at, mask=inside, other=0.0).to(ACC)
    b_r = tl.load(bias + at + H, mask=inside, other=0.0).to(ACC)
    if V1:
        v_f = tl.zeros_like(b_f)
        v_r = v_f
    else:
        v_f = tl.load(weight_c + at, mask=inside, other=0.0).to(ACC)
        v_r = tl.load(weight_c + at + H, mask=inside, other=0.0).to(ACC)
    return v_f, v_r, b_f, b_r


@triton.jit
def read_step(sources, time, here, column, B, inside, D: tl.constexpr, H: tl.constexpr, G: tl.constexpr):
    """Candidate, forget, reset, skip of a step, and whether it counts; `here` is false beyond either end of time."""
    u, x, padding = sources
    wanted = tl.where(here, inside, False)  # not `&`, of which the interpreter makes integers
    row = column // H
    plane = u + (time * (B * D) + row) * (G * H) + column % H
    u_0 = tl.load(plane, mask=wanted, other=0.0)
    u_1 = tl.load(plane + H, mask=wanted, other=0.0)
    u_2 = tl.load(plane + 2 * H, mask=wanted, other=0.0)
    skip = u_0
    if G == 4:
        skip = tl.load(plane + 3 * H, mask=wanted, other=0.0)
    elif x is not None:
        skip = tl.load(x + time * (B * D * H) + column, mask=wanted, other=0.0)
    live = wanted
    if padding is not None:
        live = tl.load(padding + time * B + row // D, mask=wanted, other=1) == 0
    return u_0, u_1, u_2, skip, live


@triton.jit
def forward_kernel(
    sources,  # u (T, B, D, G, H), x (T, B, D*H) or None, padding (T, B) 8-bit or None
    gates,  # weight_c, bias (D, 2, H)
    c_0,  # (D, B, H)
    dropout,  # (B, D*H) or None
    h,  # (T, B, D*H)
    c,  # (T, B, D, H) or None where no backward follows
    c_n,  # (D, B, H)
    T,
    B,
    D: tl.constexpr,
    G: tl.constexpr,
    H: tl.constexpr,
    SCALE: tl.constexpr,
    V1: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    AHEAD: tl.constexpr,
    ACC: tl.constexpr,
):
    """Equations 1 to 4 of README.md."""
    column, row, unit, inside = place(B, D, H, BLOCK)
    b, d = row // D, row % D
    v_f, v_r, b_f, b_r = gate_parameters(gates, d, unit, inside, H, V1, ACC)
    begin = d * (T - 1)  # direction 1 starts at the end
    step = 1 - 2 * d
    has_skip: tl.constexpr = G == 4 or sources[1] is not None
    m = tl.full((BLOCK,), 1.0, ACC)
    if dropout is not None:
        m = tl.load(dropout + column, mask=inside, other=0.0).to(ACC)
    state_at = (d * B + b) * H + unit
    state = tl.load(c_0 + state_at, mask=inside, other=0.0).to(ACC)

    coming = ()
    for s in tl.static_range(AHEAD):
        coming = coming + (read_step(sources, begin + s * step, s < T, column, B, inside, D, H, G),)
    for first in range(0, T, AHEAD):
        after = ()
        for s in tl.static_range(AHEAD):
            t = first + AHEAD + s
            after = after + (read_step(sources, begin + t * step, t < T, column, B, inside, D, H, G),)
        for s in tl.static_range(AHEAD):
            u_0, u_1, u_2, skip, live = coming[s]
            u_0 = u_0.to(ACC)
            f = sigmoid(v_f * state + (u_1.to(ACC) + b_f))  # (1)
            r = sigmoid(v_r * state + (u_2.to(ACC) + b_r))  # (3) reads the old c
            new = (state - u_0) * f + u_0  # (2)
            state = tl.where(live, new, state)
            g, _ = activate(new, ACTIVATION, ACC)
            if has_skip:
                skip = skip.to(ACC)
                if G == 3:
                    skip = skip * SCALE
                out = (m * g - skip) * r + skip if V1 else (g - skip) * (m * r) + skip  # (4)
            else:
                out = g * (m * r)
            t = first + s
            at = (begin + t * step) * (B * D * H) + column
            tl.store(
                h + at, tl.where(live, out, 0.0).to(h.dtype.element_ty), mask=tl.where(t < T, inside, False)
            )
            if c is not None:
                tl.store(c + at, state.to(c.dtype.element_ty), mask=tl.where(t < T, inside, False))
        coming = after
    tl.store(c_n + state_at, state.to(c_n.dtype.element_ty), mask=inside)


@triton.jit
def read_back(sources, states, grad_h, c_first, time, step, here, more, column, B, inside,
              D: tl.constexpr, H: tl.constexpr, G: tl.constexpr):  # fmt: skip
    """What the backward needs of a step: the inputs, the state before it and the gradient of h."""
    u_0, u_1, u_2, skip, live = read_step(sources, time, here, column, B, inside, D, H, G)
    before = tl.load(
        states + (time - step) * (B * D * H) + column, mask=tl.where(more, inside, False), other=0.0
    )
    gh = tl.load(grad_h + time * (B * D * H) + column, mask=tl.where(here, inside, False), other=0.0)
    return u_0, u_1, u_2, skip, live, tl.where(more, before, c_first), gh


@triton.jit
def backward_kernel(
    sources,  # u, x, padding as in the forward
    gates,  # weight_c, bias
    c_0,
    dropout,
    c,  # (T, B, D, H) states after each step, as the forward stored them
    grad_h,  # (T, B, D*H)
    grad_c_n,  # (D, B, H)
    grad_u,
    grad_x,  # as x, or None
    sums,  # (B, 2 or 1, D, 2, H): sums over time for bias and, but for version 1, weight_c
    grad_c_0,  # (D, B, H)
    T,
    B,
    D: tl.constexpr,
    G: tl.constexpr,
    H: tl.constexpr,
    SCALE: tl.constexpr,
    V1: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    AHEAD: tl.constexpr,
    ACC: tl.constexpr,
):
    """The same steps from last to first; the gates are computed again. Letters of README.md, section Backward."""
    column, row, unit, inside = place(B, D, H, BLOCK)
    b, d = row // D, row % D
    v_f, v_r, b_f, b_r = gate_parameters(gates, d, unit, inside, H, V1, ACC)
    end = (1 - d) * (T - 1)
    step = 1 - 2 * d
    has_skip: tl.constexpr = G == 4 or sources[1] is not None
    m = tl.full((BLOCK,), 1.0, ACC)
    if dropout is not None:
        m = tl.load(dropout + column, mask=inside, other=0.0).to(ACC)
    state_at = (d * B + b) * H + unit
    c_first = tl.load(c_0 + state_at, mask=inside, other=0.0)
    gc = tl.load(grad_c_n + state_at, mask=inside, other=0.0).to(ACC)
    state = tl.load(c + end * (B * D * H) + column, mask=inside, other=0.0).to(ACC)
    sum_bf = tl.zeros((BLOCK,), ACC)
    sum_br = tl.zeros((BLOCK,), ACC)
    sum_vf = tl.zeros((BLOCK,), ACC)
    sum_vr = tl.zeros((BLOCK,), ACC)

    coming = ()
    for s in tl.static_range(AHEAD):
        coming = coming + (read_back(sources, c, grad_h, c_first, end - s * step, step, s < T, s < T - 1,
                                     column, B, inside, D, H, G),)  # fmt: skip
    for first in range(0, T, AHEAD):
        after = ()
        for s in tl.static_range(AHEAD):
            t = first + AHEAD + s
            after = after + (read_back(sources, c, grad_h, c_first, end - t * step, step, t < T, t < T - 1,
                                       column, B, inside, D, H, G),)  # fmt: skip
        for s in tl.static_range(AHEAD):
            u_0, u_1, u_2, skip, live, before, gh = coming[s]
            u_0 = u_0.to(ACC)
            before = before.to(ACC)
            gh = tl.where(live, gh.to(ACC), 0.0)
            f = sigmoid(v_f * before + (u_1.to(ACC) + b_f))
            r = sigmoid(v_r * before + (u_2.to(ACC) + b_r))
            g, slope = activate(state, ACTIVATION, ACC)
            branch = g
            if has_skip:
                skip = skip.to(ACC)
                if G == 3:
                    skip = skip * SCALE
                branch = m * g - skip if V1 else (g - skip) * m
            else:
                branch = g * m
            gr = gh * branch * (r * (1.0 - r))
            gc_here = gc + gh * (m * r) * slope
            turn = (before - u_0) * (f * (1.0 - f))  # gf = gc_here * turn, kept out of the chain over gc
            gf = gc_here * turn
            gc = tl.where(live, gc_here * (f + turn * v_f) + gr * v_r, gc)

            t = first + s
            time = end - t * step
            plane = grad_u + (time * (B * D) + row) * (G * H) + unit
            kept = tl.where(t < T, inside, False)
            kind = grad_u.dtype.element_ty
            gr = tl.where(live, gr, 0.0)
            gf = tl.where(live, gf, 0.0)
            tl.store(plane, tl.where(live, gc_here * (1.0 - f), 0.0).to(kind), mask=kept)
            tl.store(plane + H, gf.to(kind), mask=kept)
            tl.store(plane + 2 * H, gr.to(kind), mask=kept)
            if has_skip:
                through = gh * (1.0 - r) if V1 else gh * (1.0 - m * r)
                through = tl.where(live, through, 0.0)
                if G == 4:
                    tl.store(plane + 3 * H, through.to(kind), mask=kept)
                else:
                    grad_skip = (through * SCALE).to(grad_x.dtype.element_ty)
                    tl.store(grad_x + time * (B * D * H) + column, grad_skip, mask=kept)
            sum_bf += gf
            sum_br += gr
            if not V1:
                sum_vf += tl.where(live, gf * before, 0.0)
                sum_vr += tl.where(live, gr * before, 0.0)
            state = before
        coming = after
    tl.store(grad_c_0 + state_at, gc.to(grad_c_0.dtype.element_ty), mask=inside)
    kinds: tl.constexpr = 1 if V1 else 2
    sums_at = sums + (b * kinds * D + d) * 2 * H + unit
    tl.store(sums_at, sum_bf, mask=inside)
    tl.store(sums_at + H, sum_br, mask=inside)
    if not V1:
        tl.store(sums_at + 2 * D * H, sum_vf, mask=inside)
        tl.store(sums_at + 2 * D * H + H, sum_vr, mask=inside)
