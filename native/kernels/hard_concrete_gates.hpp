// Gates of one stretch: draws and gradients, for whole arrays and for the tiles of a product.
#pragma once
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/hard_concrete_estimates.hpp"
#include "random.hpp"

namespace karui {
namespace KARUI_ISA {

constexpr int64_t block = 1024;  // partial sums of these: any number of threads, equal bits

static inline int64_t blocks_of(int64_t n) { return (n + block - 1) / block; }

static inline double total_of(const std::vector<double>& sums) {
    double total = 0.0;
    for (const double sum : sums) total += sum;
    return total;
}

template <typename R>
using Room = std::unique_ptr<R[]>;

// Left as it is: all of it is written before it is read.
template <typename R>
static Room<R> room_for(int64_t numbers) {
    return Room<R>(new R[static_cast<size_t>(numbers)]);
}

template <typename R>
static inline void multiply(const R* __restrict weight, const R* __restrict gate, R* __restrict to, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = weight[i] * gate[i];
}

// Of n elements, of which `grad` is the gradient by weight * gate: that by the weight, and what adds up to those by the
// gates. grad_weight may be grad.
template <typename R>
static inline void add_gradients(const R* grad, const R* __restrict weight, const R* __restrict gate, R* grad_weight,
                                 R* __restrict total, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const R g = grad[i];
        total[i] += g * weight[i];
        grad_weight[i] = g * gate[i];
    }
}

// Gates (blocks down, blocks across) of the elements of one row of a matrix at a time, spread where blocks have several
// columns.
template <typename R>
class GateRows {
public:
    GateRows(const R* gate, int64_t columns, int64_t height_, int64_t width_, int64_t most)
        : gates(gate), height(height_), width(width_), across((columns + width - 1) / width),
          room(width == 1 ? nullptr : room_for<R>(most)) {}

    // Of columns [c0, c0 + columns) of row r, at most `most` of them; good until the next call.
    const R* at(int64_t r, int64_t c0, int64_t columns) {
        const int64_t down = r / height;
        const R* row = gates + down * across;
        if (width == 1) return row + c0;
        if (down != last_down || c0 != last_c0 || columns != last_columns) {
            for (int64_t c = 0, j = c0 / width, left = width - c0 % width; c < columns; ++c) {
                room[static_cast<size_t>(c)] = row[j];
                if (--left == 0) left = width, ++j;
            }
            last_down = down, last_c0 = c0, last_columns = columns;
        }
        return room.get();
    }

private:
    const R* const gates;
    const int64_t height, width, across;
    const Room<R> room;
    int64_t last_down = -1, last_c0 = -1, last_columns = -1;
};

template <typename R>
static inline R between(R x, R low, R high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// e = exp(-log alpha) of n gates; log alpha is written to only where something is out of bounds.
template <typename R, bool is_published>
static inline void bound_and_exp(const Law<R> law, R* __restrict log_alpha, R* __restrict e, int64_t n) {
    const R low = law.low, high = law.high;
    int outside = 0;
#pragma omp simd reduction(| : outside)
    for (int64_t i = 0; i < n; ++i) {
        const R x = log_alpha[i];
        outside |= (x < low) | (x > high);
        e[i] = is_published ? exp_bounded_(-between(x, low, high)) : exp_(-between(x, low, high));
    }
    if (!outside) return;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) log_alpha[i] = between(log_alpha[i], low, high);
}

// With u = a / (a + b) and r = b e, e = exp(-log alpha), s = 1 / (1 + (r / a)^(1 / beta)); for the published beta = 2/3
// that is a^2 / (a^2 + r sqrt(r a)), without a logarithm, and its division serves P(z > 0) = 1 / (1 + closed e) too.
template <typename R, bool is_published>
static inline void gates_of(const Law<R> law, const uint16_t* __restrict halves, const R* __restrict log_alpha,
                            R* __restrict e_then_open, R* __restrict gate, int64_t n) {
    const R over_beta = law.over_beta, span = law.span, gamma = law.gamma, closed = law.closed;
    constexpr R unit = R(1.0 / 65536.0);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const R a = (static_cast<R>(halves[i]) + R(0.5)) * unit, b = R(1) - a;
        const R odds = R(1) + closed * e_then_open[i];
        R s;
        if (is_published) {
            const R r = b * e_then_open[i];
            const R whole = a * a + r * sqrt_(r * a), over_both = R(1) / (whole * odds);
            s = a * a * odds * over_both;
            e_then_open[i] = whole * over_both;
        } else {
            s = R(1) / (R(1) + exp_((log_(b / a) - log_alpha[i]) * over_beta));
            e_then_open[i] = R(1) / odds;
        }
        gate[i] = between(s * span + gamma, R(0), R(1));
    }
}

// n <= block gates of the given random numbers; returns the expected number of open ones. In short loops one after the
// other, all in the first cache: each is a chain too long to overlap with the next.
template <typename R, bool is_published>
static inline double draw_with(const Law<R> law, const uint16_t* halves, int64_t n, const GateDraw<R>& p) {
    alignas(64) R e[block];
    bound_and_exp<R, is_published>(law, p.log_alpha, e, n);
    gates_of<R, is_published>(law, halves, p.log_alpha, e, p.gate, n);
    R sum = R(0);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += e[i];
    if (p.weight) multiply(p.weight, p.gate, p.out, n);
    return static_cast<double>(sum);
}

#if defined(__AVX512F__)
template <>
inline double draw_with<float, true>(const Law<float> law, const uint16_t* halves, int64_t n, const GateDraw<float>& p) {
    return p.weight ? draw_by_estimates<true>(law, halves, n, p) : draw_by_estimates<false>(law, halves, n, p);
}
#endif

// Gates [position, position + n), n <= block, of an array whose part begins where the pointers of p do.
template <typename R, bool is_published>
static double draw_block(const Law<R> law, uint64_t seed, int64_t position, int64_t n, const GateDraw<R>& p) {
    alignas(64) uint16_t halves[block + halves_group_size];
    const int64_t skip = position % halves_group_size;
    for (int64_t i = 0; i < skip + n; i += halves_group_size) {
        Words words;
        draw_words(seed, static_cast<uint64_t>((position + i) / halves_group_size), words);
        std::memcpy(halves + i, &words, sizeof words);
    }
    return draw_with<R, is_published>(law, halves + skip, n, p);
}

// The arrays from element `at` on.
template <typename R>
static inline GateDraw<R> part_of(const GateDraw<R>& p, int64_t at) {
    return {p.log_alpha + at, p.weight ? p.weight + at : nullptr, p.gate + at, p.out ? p.out + at : nullptr};
}

// As draw_block, for any n.
template <typename R>
static double draw_gates(const Law<R>& law, uint64_t seed, int64_t position, int64_t n, const GateDraw<R>& p) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i += block) {
        const int64_t size = n - i < block ? n - i : block;
        sum += law.is_published ? draw_block<R, true>(law, seed, position + i, size, part_of(p, i))
                                : draw_block<R, false>(law, seed, position + i, size, part_of(p, i));
    }
    return sum;
}

// As draw_gates from position 0 on, by several threads.
template <typename R>
static double draw_all(const Law<R>& law, int threads, uint64_t seed, int64_t n, const GateDraw<R>& p) {
    const int64_t blocks = blocks_of(n);
    std::vector<double> sums(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t at = k * block, size = n - at < block ? n - at : block;
        sums[static_cast<size_t>(k)] = draw_gates(law, seed, at, size, part_of(p, at));
    }
    return total_of(sums);
}

// dz / d log alpha = (zeta - gamma) s (1 - s) / beta inside the clip, where z = s (zeta - gamma) + gamma.
template <typename R, bool has_weight, bool has_count, bool is_published>
static void gradient_block(const Law<R>& law, int64_t first, int64_t end, const GateGradient<R>& p) {
    const R over_span = R(1) / law.span, slope = law.span * law.over_beta, gamma = law.gamma, closed = law.closed;
    const R scale = static_cast<R>(p.scale) * closed;
    const R* grad = p.grad;  // may be grad_weight too
    const R* __restrict weight = p.weight;
    const R* gate = p.gate;  // may be grad_log_alpha too
    const R* __restrict log_alpha = p.log_alpha;
    R* grad_weight = p.grad_weight;
    R* grad_log_alpha = p.grad_log_alpha;
#pragma omp simd
    for (int64_t i = first; i < end; ++i) {
        const R z = gate[i];
        const R s = (z - gamma) * over_span;
        const R inside = z > R(0) && z < R(1) ? slope : R(0);
        const R g = grad[i], of_gate = has_weight ? g * weight[i] : g;
        R found = of_gate * inside * s * (R(1) - s);
        if (has_count) {  // d open / d log alpha = open (1 - open), open = 1 / (1 + closed e)
            const R e = is_published ? exp_bounded_(-log_alpha[i]) : exp_(-log_alpha[i]), odds = R(1) + closed * e;
            found += scale * e / (odds * odds);
        }
        grad_log_alpha[i] = found;
        if (has_weight) grad_weight[i] = g * z;
    }
}

template <typename R>
using GradientOf = void (*)(const Law<R>&, int64_t first, int64_t end, const GateGradient<R>& p);

template <typename R, bool has_weight, bool has_count>
static inline GradientOf<R> gradient_with(const Law<R>& law) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4)
        if (law.is_published) return gradient_by_estimates<has_weight, has_count>;
#endif
    return law.is_published ? gradient_block<R, has_weight, has_count, true> : gradient_block<R, has_weight, has_count, false>;
}

// The function that computes elements [first, end) of all gradients.
template <typename R>
static GradientOf<R> gradient_of(const Law<R>& law, const GateGradient<R>& p) {
    if (p.weight) return p.scale != 0.0 ? gradient_with<R, true, true>(law) : gradient_with<R, true, false>(law);
    return p.scale != 0.0 ? gradient_with<R, false, true>(law) : gradient_with<R, false, false>(law);
}

}  // namespace KARUI_ISA
}  // namespace karui
