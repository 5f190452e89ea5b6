// One (sequence, direction) is walked by one thread; the inner loop over H is what the compiler vectorises.
#include "kernels/simple_recurrence.hpp"

#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {

enum class Skip { none, input, projected };

struct Walk {  // where one (b, d) pair lives in the arrays
    int64_t length, first, step;  // valid steps; time of the first visited step; +1 or -1

    Walk(const ScanSizes& s, const int64_t* lengths, int64_t b, int64_t d)
        : length(lengths ? lengths[b] : s.T), first(d == 0 ? 0 : s.T - 1), step(d == 0 ? 1 : -1) {}
};

template <typename R, Skip skip, bool with_tanh>
static void forward_one(const ScanSizes& s, const ScanForward<R>& a, int64_t b, int64_t d, R* __restrict c) {
    const int64_t H = s.H, G = s.G;
    const R* __restrict v_f = a.weight_c + d * 2 * H;
    const R* __restrict v_r = v_f + H;
    const R* __restrict b_f = a.bias + d * 2 * H;
    const R* __restrict b_r = b_f + H;
    const R* __restrict mask = a.dropout_mask ? a.dropout_mask + (b * s.D + d) * H : nullptr;
    const R alpha = static_cast<R>(s.scale);
    const Walk walk(s, a.lengths, b, d);
    for (int64_t j = 0; j < H; ++j) c[j] = a.c_0[(d * s.B + b) * H + j];
    for (int64_t i = 0, t = walk.first; i < s.T; ++i, t += walk.step) {
        const int64_t at = (t * s.B + b) * s.D + d;
        R* __restrict h_t = a.h + at * H;
        R* __restrict c_t = a.c + at * H;
        if (t >= walk.length) {
            for (int64_t j = 0; j < H; ++j) { h_t[j] = R(0); c_t[j] = c[j]; }
            continue;
        }
        const R* __restrict u0 = a.u + at * G * H;
        const R* __restrict u1 = u0 + H;
        const R* __restrict u2 = u1 + H;
        const R* __restrict x_t = skip == Skip::input ? a.x + at * H : u2 + H;
#pragma omp simd
        for (int64_t j = 0; j < H; ++j) {
            const R old = c[j];
            const R f = sigmoid_(u1[j] + v_f[j] * old + b_f[j]);
            R r = sigmoid_(u2[j] + v_r[j] * old + b_r[j]);
            const R now = (old - u0[j]) * f + u0[j];
            const R g = with_tanh ? tanh_(now) : now;
            if (mask) r *= mask[j];
            R skipped = R(0);
            if (skip == Skip::input) skipped = alpha * x_t[j];
            if (skip == Skip::projected) skipped = x_t[j];
            c[j] = now;
            c_t[j] = now;
            h_t[j] = (g - skipped) * r + skipped;
        }
    }
}

template <typename R, Skip skip, bool with_tanh>
static void backward_one(const ScanSizes& s, const ScanBackward<R>& a, int64_t b, int64_t d, R* __restrict gc) {
    const ScanForward<R>& w = a.forward;
    const int64_t H = s.H, G = s.G;
    const R* __restrict v_f = w.weight_c + d * 2 * H;
    const R* __restrict v_r = v_f + H;
    const R* __restrict b_f = w.bias + d * 2 * H;
    const R* __restrict b_r = b_f + H;
    const R* __restrict mask = w.dropout_mask ? w.dropout_mask + (b * s.D + d) * H : nullptr;
    const R alpha = static_cast<R>(s.scale);
    R* __restrict sum_vf = a.scratch + (b * s.D + d) * 4 * H;
    R* __restrict sum_vr = sum_vf + H;
    R* __restrict sum_bf = sum_vr + H;
    R* __restrict sum_br = sum_bf + H;
    const Walk walk(s, w.lengths, b, d);
    for (int64_t j = 0; j < 4 * H; ++j) sum_vf[j] = R(0);
    for (int64_t j = 0; j < H; ++j) gc[j] = a.grad_c_n[(d * s.B + b) * H + j];
    const R* start = w.c_0 + (d * s.B + b) * H;
    for (int64_t i = s.T - 1; i >= 0; --i) {
        const int64_t t = walk.first + i * walk.step;
        const int64_t at = (t * s.B + b) * s.D + d;
        R* __restrict gu0 = a.grad_u + at * G * H;
        R* __restrict gx = skip == Skip::input ? a.grad_x + at * H : nullptr;
        if (t >= walk.length) {
            for (int64_t j = 0; j < G * H; ++j) gu0[j] = R(0);
            if (gx) for (int64_t j = 0; j < H; ++j) gx[j] = R(0);
            continue;
        }
        R* __restrict gu1 = gu0 + H;
        R* __restrict gu2 = gu1 + H;
        R* __restrict gu3 = gu2 + H;
        const R* __restrict u0 = w.u + at * G * H;
        const R* __restrict u1 = u0 + H;
        const R* __restrict u2 = u1 + H;
        const R* __restrict x_t = skip == Skip::input ? w.x + at * H : u2 + H;
        const R* __restrict c_t = w.c + at * H;
        const R* __restrict c_old = i == 0 ? start : w.c + (((t - walk.step) * s.B + b) * s.D + d) * H;
        const R* __restrict gh = a.grad_h + at * H;
#pragma omp simd
        for (int64_t j = 0; j < H; ++j) {
            const R old = c_old[j];
            const R f = sigmoid_(u1[j] + v_f[j] * old + b_f[j]);
            const R r = sigmoid_(u2[j] + v_r[j] * old + b_r[j]);
            const R m = mask ? mask[j] : R(1);
            const R g = with_tanh ? tanh_(c_t[j]) : c_t[j];
            R skipped = R(0);
            if (skip == Skip::input) skipped = alpha * x_t[j];
            if (skip == Skip::projected) skipped = x_t[j];
            const R gr = gh[j] * (g - skipped) * m * r * (R(1) - r);
            const R slope = with_tanh ? R(1) - g * g : R(1);
            const R gnow = gh[j] * m * r * slope + gc[j];
            const R gf = gnow * (old - u0[j]) * f * (R(1) - f);
            const R gskip = gh[j] * (R(1) - m * r);
            gu0[j] = gnow * (R(1) - f);
            gu1[j] = gf;
            gu2[j] = gr;
            if (skip == Skip::projected) gu3[j] = gskip;
            if (skip == Skip::input) gx[j] = alpha * gskip;
            sum_vf[j] += gf * old;
            sum_vr[j] += gr * old;
            sum_bf[j] += gf;
            sum_br[j] += gr;
            gc[j] = gnow * f + gf * v_f[j] + gr * v_r[j];
        }
    }
}

template <typename R, Skip skip, bool with_tanh>
static void run_forward(const ScanSizes& s, const ScanForward<R>& a) {
#pragma omp parallel for schedule(static) num_threads(s.threads) if (s.threads > 1)
    for (int64_t bd = 0; bd < s.B * s.D; ++bd) {
        // The running state lives in c_n, which this pair owns.
        const int64_t b = bd / s.D, d = bd % s.D;
        forward_one<R, skip, with_tanh>(s, a, b, d, a.c_n + (d * s.B + b) * s.H);
    }
}

template <typename R, Skip skip, bool with_tanh>
static void run_backward(const ScanSizes& s, const ScanBackward<R>& a) {
#pragma omp parallel for schedule(static) num_threads(s.threads) if (s.threads > 1)
    for (int64_t bd = 0; bd < s.B * s.D; ++bd) {
        const int64_t b = bd / s.D, d = bd % s.D;
        backward_one<R, skip, with_tanh>(s, a, b, d, a.grad_c_0 + (d * s.B + b) * s.H);
    }
    for (int64_t d = 0; d < s.D; ++d) {
        for (int64_t j = 0; j < 2 * s.H; ++j) {
            R sum_v = R(0), sum_b = R(0);
            for (int64_t b = 0; b < s.B; ++b) {
                const R* one = a.scratch + (b * s.D + d) * 4 * s.H;
                sum_v += one[j];
                sum_b += one[2 * s.H + j];
            }
            a.grad_weight_c[d * 2 * s.H + j] = sum_v;
            a.grad_bias[d * 2 * s.H + j] = sum_b;
        }
    }
}

template <typename R>
static void forward(const ScanSizes& s, const ScanForward<R>& a) {
    const Skip skip = s.G == 4 ? Skip::projected : (a.x ? Skip::input : Skip::none);
    if (skip == Skip::projected) return s.tanh ? run_forward<R, Skip::projected, true>(s, a) : run_forward<R, Skip::projected, false>(s, a);
    if (skip == Skip::input) return s.tanh ? run_forward<R, Skip::input, true>(s, a) : run_forward<R, Skip::input, false>(s, a);
    return s.tanh ? run_forward<R, Skip::none, true>(s, a) : run_forward<R, Skip::none, false>(s, a);
}

template <typename R>
static void backward(const ScanSizes& s, const ScanBackward<R>& a) {
    const Skip skip = s.G == 4 ? Skip::projected : (a.forward.x ? Skip::input : Skip::none);
    if (skip == Skip::projected) return s.tanh ? run_backward<R, Skip::projected, true>(s, a) : run_backward<R, Skip::projected, false>(s, a);
    if (skip == Skip::input) return s.tanh ? run_backward<R, Skip::input, true>(s, a) : run_backward<R, Skip::input, false>(s, a);
    return s.tanh ? run_backward<R, Skip::none, true>(s, a) : run_backward<R, Skip::none, false>(s, a);
}

extern const ScanTable scan_table;
const ScanTable scan_table = {forward<float>, forward<double>, backward<float>, backward<double>};

}  // namespace KARUI_ISA
}  // namespace karui
