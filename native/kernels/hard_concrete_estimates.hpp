// The constants of a gate as its loops take them, and the published gate in float32 by the estimates of AVX-512.
#pragma once
#if defined(__AVX512F__)
#include <immintrin.h>

#include <type_traits>
#endif

#include "kernels/hard_concrete.hpp"
#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {

template <typename R>
struct Law {
    R low, high, over_beta, span, gamma, closed;  // closed: P(gate = 0) / P(gate > 0) at log alpha 0
    bool is_published;                            // beta = 2/3, and no overflow on the short way
    explicit Law(const HardConcreteLaw& law)
        : low(static_cast<R>(law.low)), high(static_cast<R>(law.high)), over_beta(static_cast<R>(1.0 / law.beta)),
          span(static_cast<R>(law.zeta - law.gamma)), gamma(static_cast<R>(law.gamma)), closed(exp_(static_cast<R>(law.shift))),
          is_published(law.beta == 2.0 / 3.0 && law.low >= -40.0 && law.high <= 40.0) {}
};

#if defined(__AVX512F__)
// 2^(j / 32).
alignas(64) static constexpr float parts_of_two[32] = {
    1.0f, 1.02189715f, 1.04427378f, 1.0671404f, 1.09050773f, 1.11438674f, 1.13878863f, 1.16372486f,
    1.18920712f, 1.21524736f, 1.24185781f, 1.26905096f, 1.29683955f, 1.32523664f, 1.35425555f, 1.38390988f,
    1.41421356f, 1.44518081f, 1.47682615f, 1.50916443f, 1.54221083f, 1.57598085f, 1.61049033f, 1.64575548f,
    1.68179283f, 1.7186193f, 1.75625216f, 1.79470908f, 1.83400809f, 1.87416763f, 1.91520656f, 1.95714412f};

// A few vectors, each step of a computation for all of them before the next one: a chain of results takes longer than the
// processor looks ahead.
template <int count>
struct Several {
    __m512 each[count];
};

constexpr int at_once = 3;  // more need more than the registers

// Element i of all: step(first[i], more[i] ...).
template <typename Step, int count, typename... More>
static inline Several<count> for_each(Step step, const Several<count>& first, const More&... more) {
    Several<count> found;
#pragma GCC unroll 4
    for (int k = 0; k < count; ++k) found.each[k] = step(first.each[k], more.each[k]...);
    return found;
}

// Of stretches of 16, from element `at` on; `here`: which elements of one are.
template <int count>
static inline Several<count> load(const float* from, int64_t at, __mmask16 here) {
    Several<count> found;
#pragma GCC unroll 4
    for (int k = 0; k < count; ++k) found.each[k] = _mm512_maskz_loadu_ps(here, from + at + 16 * k);
    return found;
}

template <int count>
static inline void store(float* to, int64_t at, __mmask16 here, const Several<count>& from) {
#pragma GCC unroll 4
    for (int k = 0; k < count; ++k) _mm512_mask_storeu_ps(to + at + 16 * k, here, from.each[k]);
}

// run(how many stretches of 16, where, which elements of one) from `first` to `end`.
template <typename Run>
static inline void in_stretches(int64_t first, int64_t end, Run run) {
    for (; first + 16 * at_once <= end; first += 16 * at_once)
        run(std::integral_constant<int, at_once>(), first, __mmask16(0xFFFF));
    for (; first + 16 <= end; first += 16) run(std::integral_constant<int, 1>(), first, __mmask16(0xFFFF));
    if (first < end) run(std::integral_constant<int, 1>(), first, static_cast<__mmask16>((1u << (end - first)) - 1u));
}

static inline __m512 product(__m512 x, __m512 y) { return _mm512_mul_ps(x, y); }

// exp(-x), |x| < 80: 2^((k + r) / 32), |r| <= 1 / 2, with k in the lowest bits of `shifted`; the cubic term of r is in the
// linear one (Chebyshev), its rest 5e-8.
template <int count>
static inline Several<count> exp_of_minus(const Several<count>& x) {
    const auto all = [](float value) { return _mm512_set1_ps(value); };
    constexpr double part_of_e = 0.693147180559945309 / 32.0, half_squared = part_of_e * part_of_e / 4.0;
    const __m512 parts = all(-32.0f * 1.44269504088896341f), magic = all(12582912.0f);
    const __m512 linear = all(static_cast<float>(part_of_e * (1.0 + half_squared / 8.0)));
    const __m512 square = all(static_cast<float>(part_of_e * part_of_e / 2.0));
    const auto shifted = for_each([&](__m512 v) { return _mm512_fmadd_ps(v, parts, magic); }, x);
    const auto r = for_each([&](__m512 v, __m512 t) { return _mm512_fmsub_ps(v, parts, _mm512_sub_ps(t, magic)); }, x, shifted);
    const auto rest = for_each([&](__m512 v) { return _mm512_mul_ps(v, _mm512_fmadd_ps(v, square, linear)); }, r);
    const auto part = for_each([](__m512 t) {
        return _mm512_permutex2var_ps(_mm512_load_ps(parts_of_two), _mm512_castps_si512(t), _mm512_load_ps(parts_of_two + 16));
    }, shifted);
    return for_each([](__m512 v, __m512 w, __m512 t) {
        const __m512i power = _mm512_slli_epi32(_mm512_srli_epi32(_mm512_castps_si512(t), 5), 23);
        return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(_mm512_fmadd_ps(v, w, v)), power));
    }, part, rest, shifted);
}

// 1 / x by an estimate of 14 bits and one step of Newton's.
static inline __m512 inverse_of(__m512 x) {
    const __m512 y = _mm512_rcp14_ps(x);
    return _mm512_fmadd_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(1.0f)), y);
}

// sqrt(x) likewise.
template <int count>
static inline Several<count> root_of(const Several<count>& x) {
    const auto over = for_each([](__m512 v) { return _mm512_rsqrt14_ps(v); }, x);
    return for_each([](__m512 v, __m512 near, __m512 y) {
        return _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(0.5f), y), _mm512_fnmadd_ps(near, near, v), near);
    }, x, for_each(product, x, over), over);
}

// As `draw_with`, with a and b in units of 2^-16, which cancel, and the root like the quotient by an estimate: the
// processor's own take ten times as long as a product.
template <bool has_weight>
static inline double draw_by_estimates(const Law<float>& law, const uint16_t* halves, int64_t n, const GateDraw<float>& p) {
    const auto all = [](float value) { return _mm512_set1_ps(value); };
    const __m512 one = all(1.0f), half = all(0.5f), unit = all(65536.0f);
    const __m512 low = all(law.low), high = all(law.high), closed = all(law.closed), span = all(law.span), gamma = all(law.gamma);
    __m512 sum = _mm512_setzero_ps();
    in_stretches(0, n, [&](auto several, int64_t i, __mmask16 here) {
        constexpr int count = decltype(several)::value;
        Several<count> a;
#pragma GCC unroll 4
        for (int k = 0; k < count; ++k) {
            const __m512i number = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(here, halves + i + 16 * k));
            a.each[k] = _mm512_add_ps(_mm512_cvtepi32_ps(number), half);
        }
        const auto given = load<count>(p.log_alpha, i, here);
        // In this order NaN stays.
        const auto log_alpha = for_each([&](__m512 x) { return _mm512_min_ps(high, _mm512_max_ps(low, x)); }, given);
        __mmask16 outside = 0;
#pragma GCC unroll 4
        for (int k = 0; k < count; ++k)
            outside |= _mm512_mask_cmp_ps_mask(here, given.each[k], log_alpha.each[k], _CMP_NEQ_OQ);
        if (__builtin_expect(outside != 0, 0)) store(p.log_alpha, i, here, log_alpha);
        const auto e = exp_of_minus(log_alpha);
        const auto r = for_each([&](__m512 x, __m512 y) { return _mm512_mul_ps(_mm512_sub_ps(unit, x), y); }, a, e);
        const auto odds = for_each([&](__m512 x) { return _mm512_fmadd_ps(closed, x, one); }, e);
        const auto root = root_of(for_each(product, r, a)), aa = for_each(product, a, a);
        const auto whole = for_each([](__m512 x, __m512 y, __m512 z) { return _mm512_fmadd_ps(x, y, z); }, r, root, aa);
        const auto over_both = for_each(inverse_of, for_each(product, whole, odds));
        const auto s = for_each(product, for_each(product, aa, odds), over_both);
        const auto z = for_each([&](__m512 x) {
            return _mm512_min_ps(one, _mm512_max_ps(_mm512_setzero_ps(), _mm512_fmadd_ps(x, span, gamma)));
        }, s);
#pragma GCC unroll 4
        for (int k = 0; k < count; ++k)
            sum = _mm512_mask_add_ps(sum, here, sum, _mm512_mul_ps(whole.each[k], over_both.each[k]));
        store(p.gate, i, here, z);
        if (has_weight) store(p.out, i, here, for_each(product, z, load<count>(p.weight, i, here)));
    });
    return static_cast<double>(_mm512_reduce_add_ps(sum));
}

// As `gradient_block`.
template <bool has_weight, bool has_count>
static inline void gradient_by_estimates(const Law<float>& law, int64_t first, int64_t end, const GateGradient<float>& p) {
    const auto all = [](float value) { return _mm512_set1_ps(value); };
    const __m512 one = all(1.0f), zero = _mm512_setzero_ps(), over_span = all(1.0f / law.span), slope = all(law.span * law.over_beta);
    const __m512 low = all(-law.gamma / law.span), closed = all(law.closed), scale = all(static_cast<float>(p.scale));
    in_stretches(first, end, [&](auto several, int64_t i, __mmask16 here) {
        constexpr int count = decltype(several)::value;
        const auto z = load<count>(p.gate, i, here), grad = load<count>(p.grad, i, here);
        auto of_gate = grad;
        if (has_weight) of_gate = for_each(product, grad, load<count>(p.weight, i, here));
        auto found = for_each([&](__m512 gate, __m512 g) {
            const __m512 s = _mm512_fmadd_ps(gate, over_span, low);
            const __mmask16 inside = _mm512_cmp_ps_mask(gate, zero, _CMP_GT_OQ) & _mm512_cmp_ps_mask(gate, one, _CMP_LT_OQ);
            return _mm512_mul_ps(g, _mm512_maskz_mul_ps(inside, slope, _mm512_fnmadd_ps(s, s, s)));
        }, z, of_gate);
        if (has_count) {
            const auto e = exp_of_minus(load<count>(p.log_alpha, i, here));
            const auto odds = for_each([&](__m512 x) { return _mm512_mul_ps(closed, x); }, e);
            const auto open = for_each([&](__m512 x) { return inverse_of(_mm512_add_ps(x, one)); }, odds);
            found = for_each([&](__m512 f, __m512 x, __m512 y) {
                return _mm512_fmadd_ps(_mm512_mul_ps(scale, x), _mm512_mul_ps(y, y), f);
            }, found, odds, open);
        }
        store(p.grad_log_alpha, i, here, found);
        if (has_weight) store(p.grad_weight, i, here, for_each(product, grad, z));
    });
}
#endif

}  // namespace KARUI_ISA
}  // namespace karui
