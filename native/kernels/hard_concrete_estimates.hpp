// The constants of a gate as its loops take them, and the published gate in float32 by the estimates of AVX-512.
#pragma once
#if defined(__AVX512F__)
#include <immintrin.h>
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

// exp(-x), |x| < 80: 2^((k + r) / 32), |r| <= 1 / 2, with k in the lowest bits of `shifted`; the cubic term of r is in the
// linear one (Chebyshev), its rest 5e-8.
static inline __m512 exp_of_minus(__m512 x) {
    const auto all = [](float value) { return _mm512_set1_ps(value); };
    constexpr double part_of_e = 0.693147180559945309 / 32.0, half_squared = part_of_e * part_of_e / 4.0;
    const __m512 parts = all(-32.0f * 1.44269504088896341f), magic = all(12582912.0f);
    const __m512 linear = all(static_cast<float>(part_of_e * (1.0 + half_squared / 8.0)));
    const __m512 square = all(static_cast<float>(part_of_e * part_of_e / 2.0));
    const __m512 shifted = _mm512_fmadd_ps(x, parts, magic), r = _mm512_fmsub_ps(x, parts, _mm512_sub_ps(shifted, magic));
    const __m512 rest = _mm512_mul_ps(r, _mm512_fmadd_ps(r, square, linear));
    const __m512i bits = _mm512_castps_si512(shifted);
    const __m512 part = _mm512_permutex2var_ps(_mm512_load_ps(parts_of_two), bits, _mm512_load_ps(parts_of_two + 16));
    const __m512 y = _mm512_fmadd_ps(part, rest, part);
    const __m512i power = _mm512_slli_epi32(_mm512_srli_epi32(bits, 5), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), power));
}

// 1 / x by an estimate of 14 bits and one step of Newton's.
static inline __m512 inverse_of(__m512 x) {
    const __m512 y = _mm512_rcp14_ps(x);
    return _mm512_fmadd_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(1.0f)), y);
}

// As `draw_with`, with a and b in units of 2^-16, which cancel, and the root like the quotient by an estimate: the
// processor's own take ten times as long as a product.
template <bool has_weight>
static inline double draw_by_estimates(const Law<float>& law, const uint16_t* halves, int64_t n, const GateDraw<float>& p) {
    const auto all = [](float value) { return _mm512_set1_ps(value); };
    const __m512 one = all(1.0f), half = all(0.5f), unit = all(65536.0f);
    const __m512 low = all(law.low), high = all(law.high), closed = all(law.closed), span = all(law.span), gamma = all(law.gamma);
    __m512 sum = _mm512_setzero_ps();
    const auto draw = [&](int64_t i, __mmask16 here) {
        const __m512i number = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(here, halves + i));
        const __m512 given = _mm512_maskz_loadu_ps(here, p.log_alpha + i);
        const __m512 log_alpha = _mm512_min_ps(high, _mm512_max_ps(low, given));  // in this order NaN stays
        const __mmask16 outside = _mm512_mask_cmp_ps_mask(here, given, log_alpha, _CMP_NEQ_OQ);
        if (__builtin_expect(outside != 0, 0)) _mm512_mask_storeu_ps(p.log_alpha + i, outside, log_alpha);
        const __m512 e = exp_of_minus(log_alpha), odds = _mm512_fmadd_ps(closed, e, one);
        const __m512 a = _mm512_add_ps(_mm512_cvtepi32_ps(number), half), r = _mm512_mul_ps(_mm512_sub_ps(unit, a), e);
        const __m512 square = _mm512_mul_ps(r, a), over_root = _mm512_rsqrt14_ps(square), near = _mm512_mul_ps(square, over_root);
        const __m512 root = _mm512_fmadd_ps(_mm512_mul_ps(half, over_root), _mm512_fnmadd_ps(near, near, square), near);
        const __m512 aa = _mm512_mul_ps(a, a), whole = _mm512_fmadd_ps(r, root, aa);
        const __m512 over_both = inverse_of(_mm512_mul_ps(whole, odds));
        const __m512 s = _mm512_mul_ps(_mm512_mul_ps(aa, odds), over_both);
        const __m512 z = _mm512_min_ps(one, _mm512_max_ps(_mm512_setzero_ps(), _mm512_fmadd_ps(s, span, gamma)));
        sum = _mm512_mask_add_ps(sum, here, sum, _mm512_mul_ps(whole, over_both));
        _mm512_mask_storeu_ps(p.gate + i, here, z);
        if (has_weight) _mm512_mask_storeu_ps(p.out + i, here, _mm512_mul_ps(z, _mm512_maskz_loadu_ps(here, p.weight + i)));
    };
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) draw(i, __mmask16(0xFFFF));
    if (i < n) draw(i, static_cast<__mmask16>((1u << (n - i)) - 1u));
    return static_cast<double>(_mm512_reduce_add_ps(sum));
}

// As `gradient_block`.
template <bool has_weight, bool has_count>
static inline void gradient_by_estimates(const Law<float>& law, int64_t first, int64_t end, const GateGradient<float>& p) {
    const auto all = [](float value) { return _mm512_set1_ps(value); };
    const __m512 one = all(1.0f), zero = _mm512_setzero_ps(), over_span = all(1.0f / law.span), slope = all(law.span * law.over_beta);
    const __m512 low = all(-law.gamma / law.span), closed = all(law.closed), scale = all(static_cast<float>(p.scale));
    const auto differentiate = [&](int64_t i, __mmask16 here) {
        const __m512 z = _mm512_maskz_loadu_ps(here, p.gate + i), grad = _mm512_maskz_loadu_ps(here, p.grad + i);
        const __m512 s = _mm512_fmadd_ps(z, over_span, low);
        const __mmask16 inside = _mm512_cmp_ps_mask(z, zero, _CMP_GT_OQ) & _mm512_cmp_ps_mask(z, one, _CMP_LT_OQ);
        __m512 of_gate = grad;
        if (has_weight) of_gate = _mm512_mul_ps(grad, _mm512_maskz_loadu_ps(here, p.weight + i));
        const __m512 by_log_alpha = _mm512_maskz_mul_ps(inside, slope, _mm512_fnmadd_ps(s, s, s));
        __m512 found = _mm512_mul_ps(of_gate, by_log_alpha);
        if (has_count) {
            const __m512 e = exp_of_minus(_mm512_maskz_loadu_ps(here, p.log_alpha + i));
            const __m512 odds = _mm512_mul_ps(closed, e), open = inverse_of(_mm512_add_ps(odds, one));
            found = _mm512_fmadd_ps(_mm512_mul_ps(scale, odds), _mm512_mul_ps(open, open), found);
        }
        _mm512_mask_storeu_ps(p.grad_log_alpha + i, here, found);
        if (has_weight) _mm512_mask_storeu_ps(p.grad_weight + i, here, _mm512_mul_ps(grad, z));
    };
    int64_t i = first;
    for (; i + 16 <= end; i += 16) differentiate(i, __mmask16(0xFFFF));
    if (i < end) differentiate(i, static_cast<__mmask16>((1u << (end - i)) - 1u));
}
#endif

}  // namespace KARUI_ISA
}  // namespace karui
