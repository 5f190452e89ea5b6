// One row of the Simple Recurrent Unit's scan, forward and backward, and the kinds that it comes in.
// Derivation in ops/simple_recurrence/README.md.
#pragma once
#include <type_traits>

#include "kernels/simple_recurrence.hpp"
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
struct Gates {  // from some column on; v_f and v_r are not read in version 1
    const R *b_f, *b_r, *v_f, *v_r;
};

template <typename R>
struct ForwardRow {  // pointers at one row, from the same column; c is the running state
    const R *u, *x;
    R *c, *c_t, *h;
    R *f, *r;  // where the gates are kept, over their u or not at all
};

// n columns; the blocks of u lie `stride` apart.
template <typename R, typename K, bool with_mask, bool keep>
static inline void forward_row(int64_t n, int64_t stride, const Gates<R>& w, const ForwardRow<R>& p,
                               const R* __restrict mask, R alpha) {
    const R* u0 = p.u;
    const R* u1 = u0 + stride;
    const R* u2 = u1 + stride;
    const R* x_t = p.x;
    R* __restrict c = p.c;
    R* __restrict c_t = p.c_t;
    R* __restrict h_t = p.h;
    R* kept_f = p.f;
    R* kept_r = p.r;
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
        if (keep || c_t) c_t[j] = now;
        if (keep) {
            kept_f[j] = f;
            kept_r[j] = r;
        }
        h_t[j] = K::v1 ? (m * g - skipped) * r + skipped : (g - skipped) * (m * r) + skipped;
    }
}

template <typename R>
struct BackwardRow {  // pointers at one row, from the same column; u has f and r in place of theirs where they were kept
    const R *u, *x, *c, *c_old, *gh;
    R *gu, *gx, *gc;
};

template <typename R>
struct Sums {  // over rows, of the gradients of v_f, v_r, b_f, b_r
    R *v_f, *v_r, *b_f, *b_r;
};

// n columns; the blocks of u lie `stride` apart, those of its gradient `grad_stride`.
template <typename R, typename K, bool with_mask, bool kept>
static inline void backward_row(int64_t n, int64_t stride, int64_t grad_stride, const Gates<R>& w,
                                const BackwardRow<R>& p, const R* __restrict mask, R alpha, const Sums<R>& sums) {
    const R* __restrict u0 = p.u;
    const R* __restrict u1 = u0 + stride;
    const R* __restrict u2 = u1 + stride;
    const R* __restrict x_t = p.x;
    const R* __restrict c_t = p.c;
    const R* __restrict c_old = p.c_old;
    const R* __restrict gh = p.gh;
    R* __restrict gu0 = p.gu;
    R* __restrict gu1 = gu0 + grad_stride;
    R* __restrict gu2 = gu1 + grad_stride;
    R* __restrict gu3 = gu2 + grad_stride;
    R* __restrict gx = p.gx;
    R* __restrict gc = p.gc;
    R* __restrict sum_vf = sums.v_f;
    R* __restrict sum_vr = sums.v_r;
    R* __restrict sum_bf = sums.b_f;
    R* __restrict sum_br = sums.b_r;
    const R* __restrict b_f = w.b_f;
    const R* __restrict b_r = w.b_r;
    const R* __restrict v_f = w.v_f;
    const R* __restrict v_r = w.v_r;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
        const R old = c_old[j];
        const R f = kept ? u1[j] : sigmoid_(u1[j] + b_f[j] + (K::v1 ? R(0) : v_f[j] * old));
        const R r = kept ? u2[j] : sigmoid_(u2[j] + b_r[j] + (K::v1 ? R(0) : v_r[j] * old));
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

// Turns the run-time choices into a type and calls `run` with it; version 1 has no weight_c.
template <typename Run>
static auto with_kind(int64_t G, bool has_x, Activation chosen, bool v2, Run run) {
    auto variant = [&](auto skip, auto g) {
        if (v2) return run(Kind<decltype(skip)::value, decltype(g)::value, false>{});
        return run(Kind<decltype(skip)::value, decltype(g)::value, true>{});
    };
    auto activation = [&](auto skip) {
        if (chosen == Activation::tanh) return variant(skip, std::integral_constant<Activation, Activation::tanh>{});
        if (chosen == Activation::relu) return variant(skip, std::integral_constant<Activation, Activation::relu>{});
        return variant(skip, std::integral_constant<Activation, Activation::identity>{});
    };
    if (G == 4) return activation(std::integral_constant<Skip, Skip::projected>{});
    if (has_x) return activation(std::integral_constant<Skip, Skip::input>{});
    return activation(std::integral_constant<Skip, Skip::none>{});
}

}  // namespace KARUI_ISA
}  // namespace karui
