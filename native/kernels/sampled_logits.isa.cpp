#include "kernels/sampled_logits.hpp"

#include <cmath>
#include <limits>

#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {

// log(1 + x) with what y = 1 + x lost by rounding put back; y is handed in.
template <typename R>
static inline R log1p_(R x, R y) {
    return log_(y) - ((y - R(1)) - x) / y;
}
static inline double log1p_(double x, double) { return std::log1p(x); }

// z = score + offset, -infinity where the word is the target; returns the largest.
template <typename R>
static inline R place(int64_t K, R* __restrict z, const R* __restrict offset, const int64_t* __restrict noise, int64_t target) {
    constexpr R out = -std::numeric_limits<R>::infinity();
    R most = out;
    if (noise) {
        for (int64_t k = 0; k < K; ++k) z[k] = noise[k] == target ? out : z[k] + offset[k];
    } else {
        for (int64_t k = 0; k < K; ++k) z[k] += offset[k];
    }
#pragma omp simd reduction(max : most)
    for (int64_t k = 0; k < K; ++k) most = z[k] > most ? z[k] : most;
    return most;
}

// Replaces z by exp(z - most) and returns the sum; exp_ ends at 1e-38, a word left out has 0.
template <typename R>
static inline R exponentials(int64_t K, R* __restrict z, R most) {
    constexpr R out = -std::numeric_limits<R>::infinity();
    R sum = R(0);
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < K; ++k) {
        const R e = z[k] == out ? R(0) : exp_(z[k] - most);
        z[k] = e;
        sum += e;
    }
    return sum;
}

template <typename R>
static inline R softplus_row(int64_t K, R* __restrict z) {
    constexpr R out = -std::numeric_limits<R>::infinity();
    R sum = R(0);
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < K; ++k) {
        const R x = z[k];
        const R e = exp_(x > R(0) ? -x : x);
        const R y = R(1) + e;
        const R value = (x > R(0) ? x : R(0)) + log1p_(e, y);
        const R slope = (x > R(0) ? R(1) : e) / y;
        sum += x == out ? R(0) : value;
        z[k] = x == out ? R(0) : slope;
    }
    return sum;
}

// z holds exp(z - most); p = z / total is the share of each word.
template <typename R>
static inline R blackout_row(int64_t K, R* __restrict z, R inverse, R& odds) {
    const R limit = R(1) - std::numeric_limits<R>::epsilon();
    R sum = R(0), of_odds = R(0);
#pragma omp simd reduction(+ : sum, of_odds)
    for (int64_t k = 0; k < K; ++k) {
        const R share = z[k] * inverse;
        const R p = share > limit ? limit : share;
        const R rest = R(1) - p;
        sum += log1p_(-p, rest);
        of_odds += share > limit ? R(0) : p / rest;
    }
    const R common = R(1) - of_odds;
    for (int64_t k = 0; k < K; ++k) {
        const R share = z[k] * inverse;
        z[k] = share * (common + (share > limit ? R(0) : R(1) / (R(1) - share)));
    }
    odds = of_odds;
    return sum;
}

template <typename R>
static void reduce(const NoiseSizes& s, const NoiseArrays<R>& a) {
    const int64_t K = s.K;
#pragma omp parallel for schedule(static) num_threads(s.threads) if (s.threads > 1)
    for (int64_t n = 0; n < s.N; ++n) {
        R* z = a.scores + n * K;
        R most = place(K, z, a.offset, a.noise, a.target ? a.target[n] : int64_t(-1));
        if (s.term == NoiseTerm::softplus) {
            a.reduced[n] = softplus_row(K, z);
            continue;
        }
        R own = R(0);
        if (a.first) most = a.first[n] > most ? a.first[n] : most;
        R total = exponentials(K, z, most);
        if (a.first) {
            own = std::exp(a.first[n] - most);
            total += own;
        }
        const R inverse = R(1) / total;
        R reduced = most + std::log(total), odds = R(0);  // the library's: NaN stays NaN
        if (s.term == NoiseTerm::blackout) {
            reduced -= blackout_row(K, z, inverse, odds);
        } else {
            for (int64_t k = 0; k < K; ++k) z[k] *= inverse;
        }
        a.reduced[n] = reduced;
        if (a.slope_first) a.slope_first[n] = own * inverse * (R(1) - odds);
    }
}

extern const SampledLogitsTable sampled_logits_table;
const SampledLogitsTable sampled_logits_table = {reduce<float>, reduce<double>};

}  // namespace KARUI_ISA
}  // namespace karui
