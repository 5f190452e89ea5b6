// A thread walks time once and takes a step of each of its tasks, some rows and columns (scan_grid.hpp), so that memory is
// read in long runs; the innermost loop over H is what the compiler vectorises.
#include "kernels/simple_recurrence.hpp"

#include <omp.h>

#include <type_traits>

#include "scan_grid.hpp"
#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {

enum class Skip { none, input, projected };

template <Skip skip_, Activation g_, bool v1_>
struct Kind {
    static constexpr Skip skip = skip_;
    static constexpr Activation g = g_;
    static constexpr bool v1 = v1_;  // gates do not read the state; the dropout mask touches g(c) only
};

template <Activation g, typename R>
static inline R activate(R c) {
    if constexpr (g == Activation::tanh) return tanh_(c);
    if constexpr (g == Activation::relu) return c > R(0) ? c : R(0);
    return c;
}

template <Activation g, typename R>
static inline R slope(R c, R activated) {
    if constexpr (g == Activation::tanh) return R(1) - activated * activated;
    if constexpr (g == Activation::relu) return c > R(0) ? R(1) : R(0);
    return R(1);
}

template <typename R>
struct Gates {  // b_f, b_r, v_f, v_r of one direction, from column j0
    const R *b_f, *b_r, *v_f, *v_r;
    Gates(const ScanSizes& s, const ScanForward<R>& a, int64_t d, int64_t j0)
        : b_f(a.bias + d * 2 * s.H + j0), b_r(b_f + s.H),
          v_f(a.weight_c ? a.weight_c + d * 2 * s.H + j0 : nullptr), v_r(v_f ? v_f + s.H : nullptr) {}
};

template <typename R>
struct ForwardRow {  // pointers at one (t, b, d), from column j0; c is the running state
    const R *u, *x;
    R *c, *c_t, *h, *gates;
};

template <typename R, typename K, bool with_mask, bool with_gates>
static inline void forward_row(int64_t n, int64_t H, const Gates<R>& w, const ForwardRow<R>& p, const R* __restrict mask,
                               R alpha) {
    const R* u0 = p.u;  // may be p.gates
    const R* u1 = u0 + H;
    const R* u2 = u1 + H;
    const R* x_t = p.x;
    R* __restrict c = p.c;
    R* __restrict c_t = p.c_t;
    R* __restrict h_t = p.h;
    R* kept_u = p.gates;
    R* kept_f = p.gates + H;
    R* kept_r = p.gates + 2 * H;
    R* kept_x = p.gates + 3 * H;
    const R* __restrict b_f = w.b_f;
    const R* __restrict b_r = w.b_r;
    const R* __restrict v_f = w.v_f;
    const R* __restrict v_r = w.v_r;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
        const R old = c[j];
        const R f = sigmoid_(u1[j] + b_f[j] + (K::v1 ? R(0) : v_f[j] * old));
        const R r = sigmoid_(u2[j] + b_r[j] + (K::v1 ? R(0) : v_r[j] * old));
        const R now = (old - u0[j]) * f + u0[j];
        const R m = with_mask ? mask[j] : R(1);
        const R g = activate<K::g>(now);
        // + 0 is there for the bits: left alone, the product would be fused into what follows in some of the kinds only.
        const R skipped = K::skip == Skip::none ? R(0) : K::skip == Skip::input ? alpha * x_t[j] + R(0) : x_t[j];
        c[j] = now;
        if (with_gates || c_t) c_t[j] = now;
        if (with_gates) {
            kept_u[j] = u0[j];
            kept_f[j] = f;
            kept_r[j] = r;
            if (K::skip == Skip::projected) kept_x[j] = skipped;
        }
        h_t[j] = K::v1 ? (m * g - skipped) * r + skipped : (g - skipped) * (m * r) + skipped;
    }
}

template <typename R>
static void begin_state(const ScanSizes& s, const ScanGrid::Task& k, const R* from, R* to) {
    for (int64_t b = k.b0; b < k.b1; ++b)
        for (int64_t j = k.j0; j < k.j1; ++j) to[(k.d * s.B + b) * s.H + j] = from[(k.d * s.B + b) * s.H + j];
}

template <typename R, typename K, bool with_gates>
static inline void forward_step(const ScanSizes& s, const ScanForward<R>& a, const ScanGrid::Task& k, int64_t i) {
    const int64_t H = s.H, n = k.j1 - k.j0, t = k.d == 0 ? i : s.T - 1 - i;
    const Gates<R> w(s, a, k.d, k.j0);
    R* const state = a.c_n + k.d * s.B * H + k.j0;  // the running state lives in c_n, whose cells this task owns
    const R alpha = static_cast<R>(s.scale);
    for (int64_t b = k.b0; b < k.b1; ++b) {
        const int64_t at = (t * s.B + b) * s.D + k.d;
        R* c = state + b * H;
        R* h_t = a.h + at * H + k.j0;
        R* c_t = a.c ? a.c + at * H + k.j0 : nullptr;
        if (a.padding && a.padding[t * s.B + b]) {
            for (int64_t j = 0; j < n; ++j) h_t[j] = R(0);
            if (c_t) for (int64_t j = 0; j < n; ++j) c_t[j] = c[j];
            continue;
        }
        const R* u = a.u + at * s.G * H + k.j0;
        const R* x_t = K::skip == Skip::input ? a.x + at * H + k.j0 : u + 3 * H;
        const ForwardRow<R> row{u, x_t, c, c_t, h_t, with_gates ? a.gates + at * s.G * H + k.j0 : nullptr};
        if (a.dropout_mask)
            forward_row<R, K, true, with_gates>(n, H, w, row, a.dropout_mask + (b * s.D + k.d) * H + k.j0, alpha);
        else
            forward_row<R, K, false, with_gates>(n, H, w, row, nullptr, alpha);
    }
}

template <typename R>
struct BackwardRow {  // pointers at one (t, b, d), from column j0; u are the kept gates where there are some
    const R *u, *x, *c, *c_old, *gh;
    R *gu, *gx, *gc;
};

template <typename R, typename K, bool with_mask, bool with_gates>
static inline void backward_row(int64_t n, int64_t H, const Gates<R>& w, const BackwardRow<R>& p, const R* __restrict mask,
                                R alpha, R* __restrict sum_vf) {
    const R* __restrict u0 = p.u;
    const R* __restrict u1 = u0 + H;
    const R* __restrict u2 = u1 + H;
    const R* __restrict x_t = p.x;
    const R* __restrict c_t = p.c;
    const R* __restrict c_old = p.c_old;
    const R* __restrict gh = p.gh;
    R* __restrict gu0 = p.gu;
    R* __restrict gu1 = gu0 + H;
    R* __restrict gu2 = gu1 + H;
    R* __restrict gu3 = gu2 + H;
    R* __restrict gx = p.gx;
    R* __restrict gc = p.gc;
    R* __restrict sum_vr = sum_vf + H;
    R* __restrict sum_bf = sum_vr + H;
    R* __restrict sum_br = sum_bf + H;
    const R* __restrict b_f = w.b_f;
    const R* __restrict b_r = w.b_r;
    const R* __restrict v_f = w.v_f;
    const R* __restrict v_r = w.v_r;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
        const R old = c_old[j];
        const R f = with_gates ? u1[j] : sigmoid_(u1[j] + b_f[j] + (K::v1 ? R(0) : v_f[j] * old));
        const R r = with_gates ? u2[j] : sigmoid_(u2[j] + b_r[j] + (K::v1 ? R(0) : v_r[j] * old));
        const R m = with_mask ? mask[j] : R(1);
        const R g = activate<K::g>(c_t[j]);
        const R skipped = K::skip == Skip::none ? R(0) : K::skip == Skip::input ? alpha * x_t[j] : x_t[j];
        const R mixed = K::v1 ? m * g - skipped : (g - skipped) * m;
        const R gr = gh[j] * mixed * r * (R(1) - r);
        const R gnow = gh[j] * m * r * slope<K::g>(c_t[j], g) + gc[j];
        const R gf = gnow * (old - u0[j]) * f * (R(1) - f);
        const R gskip = gh[j] * (R(1) - (K::v1 ? r : m * r));
        gu0[j] = gnow * (R(1) - f);
        gu1[j] = gf;
        gu2[j] = gr;
        if (K::skip == Skip::projected) gu3[j] = gskip;
        if (K::skip == Skip::input && gx) gx[j] = alpha * gskip;
        if (!K::v1) sum_vf[j] += gf * old;
        if (!K::v1) sum_vr[j] += gr * old;
        sum_bf[j] += gf;
        sum_br[j] += gr;
        gc[j] = gnow * f + (K::v1 ? R(0) : gf * v_f[j] + gr * v_r[j]);
    }
}

template <typename R, typename K, bool with_gates>
static inline void backward_step(const ScanSizes& s, const ScanBackward<R>& a, const ScanGrid::Task& k, int64_t i) {
    const ScanForward<R>& fw = a.forward;
    const int64_t H = s.H, n = k.j1 - k.j0, t = k.d == 0 ? i : s.T - 1 - i, before = k.d == 0 ? t - 1 : t + 1;
    const Gates<R> w(s, fw, k.d, k.j0);
    R* const sums = a.scratch + (k.chunk * s.D + k.d) * 4 * H + k.j0;
    const int64_t states = k.d * s.B * H + k.j0;  // where this direction's states start
    const R alpha = static_cast<R>(s.scale);
    for (int64_t b = k.b0; b < k.b1; ++b) {
        const int64_t at = (t * s.B + b) * s.D + k.d;
        R* gu = a.grad_u + at * s.G * H + k.j0;
        R* gx = K::skip == Skip::input && a.grad_x ? a.grad_x + at * H + k.j0 : nullptr;
        if (fw.padding && fw.padding[t * s.B + b]) {
            for (int64_t block = 0; block < s.G; ++block)
                for (int64_t j = 0; j < n; ++j) gu[block * H + j] = R(0);
            if (gx) for (int64_t j = 0; j < n; ++j) gx[j] = R(0);
            continue;
        }
        const R* u = (with_gates ? fw.gates : fw.u) + at * s.G * H + k.j0;
        const R* c_old = i == 0 ? fw.c_0 + states + b * H : fw.c + ((before * s.B + b) * s.D + k.d) * H + k.j0;
        const BackwardRow<R> row{u, K::skip == Skip::input ? fw.x + at * H + k.j0 : u + 3 * H, fw.c + at * H + k.j0,
                                 c_old, a.grad_h + at * H + k.j0, gu, gx, a.grad_c_0 + states + b * H};
        if (fw.dropout_mask)
            backward_row<R, K, true, with_gates>(n, H, w, row, fw.dropout_mask + (b * s.D + k.d) * H + k.j0, alpha, sums);
        else
            backward_row<R, K, false, with_gates>(n, H, w, row, nullptr, alpha, sums);
    }
}

// Calls begin(task) for every task and step(task, i) for i = 0, 1, ... T - 1, each thread with tasks of its own.
template <typename Begin, typename Step>
static void walk(const ScanGrid& grid, int64_t T, Begin begin, Step step) {
#pragma omp parallel num_threads(grid.threads) if (grid.threads > 1)
    {
        const int64_t count = omp_get_num_threads(), own = omp_get_thread_num();
        const int64_t first = grid.tasks() * own / count, last = grid.tasks() * (own + 1) / count;
        for (int64_t k = first; k < last; ++k) begin(grid.task(k));
        for (int64_t i = 0; i < T; ++i)
            for (int64_t k = first; k < last; ++k) step(grid.task(k), i);
    }
}

template <typename R, typename K, bool with_gates>
static void run_forward(const ScanSizes& s, const ScanForward<R>& a) {
    const int64_t bytes = s.T * s.B * s.D * s.H * static_cast<int64_t>(sizeof(R));
    use_huge_pages(a.h, bytes);
    use_huge_pages(a.c, bytes);
    const ScanGrid grid(s.T, s.B, s.D, s.H, s.threads);
    walk(
        grid, s.T, [&](const ScanGrid::Task& k) { begin_state(s, k, a.c_0, a.c_n); },
        [&](const ScanGrid::Task& k, int64_t i) { forward_step<R, K, with_gates>(s, a, k, i); });
}

template <typename R, typename K, bool with_gates>
static void run_backward(const ScanSizes& s, const ScanBackward<R>& a) {
    const int64_t bytes = s.T * s.B * s.D * s.H * static_cast<int64_t>(sizeof(R));
    use_huge_pages(a.grad_u, s.G * bytes);
    use_huge_pages(a.grad_x, bytes);
    const ScanGrid grid(s.T, s.B, s.D, s.H, s.threads);
    auto begin = [&](const ScanGrid::Task& k) {
        begin_state(s, k, a.grad_c_n, a.grad_c_0);
        R* const sums = a.scratch + (k.chunk * s.D + k.d) * 4 * s.H;
        for (int64_t block = 0; block < 4; ++block)
            for (int64_t j = k.j0; j < k.j1; ++j) sums[block * s.H + j] = R(0);
    };
    walk(grid, s.T, begin, [&](const ScanGrid::Task& k, int64_t i) {
        backward_step<R, K, with_gates>(s, a, k, s.T - 1 - i);
    });
    for (int64_t d = 0; d < s.D; ++d) {
        for (int64_t j = 0; j < 2 * s.H; ++j) {
            R sum_v = R(0), sum_b = R(0);
            for (int64_t chunk = 0; chunk < grid.chunks; ++chunk) {
                const R* one = a.scratch + (chunk * s.D + d) * 4 * s.H;
                sum_v += one[j];
                sum_b += one[2 * s.H + j];
            }
            if (!K::v1) a.grad_weight_c[d * 2 * s.H + j] = sum_v;
            a.grad_bias[d * 2 * s.H + j] = sum_b;
        }
    }
}

// Turns the run-time choices into a type and calls `run` with it.
template <typename R, typename Run>
static void with_kind(const ScanSizes& s, const ScanForward<R>& a, Run run) {
    auto variant = [&](auto skip, auto g) {
        if (a.weight_c) return run(Kind<decltype(skip)::value, decltype(g)::value, false>{});
        return run(Kind<decltype(skip)::value, decltype(g)::value, true>{});
    };
    auto activation = [&](auto skip) {
        if (s.activation == Activation::tanh) return variant(skip, std::integral_constant<Activation, Activation::tanh>{});
        if (s.activation == Activation::relu) return variant(skip, std::integral_constant<Activation, Activation::relu>{});
        return variant(skip, std::integral_constant<Activation, Activation::identity>{});
    };
    if (s.G == 4) return activation(std::integral_constant<Skip, Skip::projected>{});
    if (a.x) return activation(std::integral_constant<Skip, Skip::input>{});
    return activation(std::integral_constant<Skip, Skip::none>{});
}

template <typename R>
static void forward(const ScanSizes& s, const ScanForward<R>& a) {
    with_kind(s, a, [&](auto kind) {
        if (a.gates) return run_forward<R, decltype(kind), true>(s, a);
        run_forward<R, decltype(kind), false>(s, a);
    });
}

template <typename R>
static void backward(const ScanSizes& s, const ScanBackward<R>& a) {
    with_kind(s, a.forward, [&](auto kind) {
        if (a.forward.gates) return run_backward<R, decltype(kind), true>(s, a);
        run_backward<R, decltype(kind), false>(s, a);
    });
}

extern const ScanTable scan_table;
const ScanTable scan_table = {forward<float>, forward<double>, backward<float>, backward<double>};

}  // namespace KARUI_ISA
}  // namespace karui
