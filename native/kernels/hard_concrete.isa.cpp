#include "kernels/hard_concrete.hpp"

#include <cstring>
#include <vector>

#include "random.hpp"

namespace karui {
namespace KARUI_ISA {

constexpr int64_t block = 1024;  // whole groups of random words; partial sums of these: any number of threads, equal bits

static inline int64_t blocks_of(int64_t n) { return (n + block - 1) / block; }

template <typename R>
struct Law {
    R low, high, over_beta, span, gamma, closed;  // closed: P(gate = 0) / P(gate > 0) at log alpha 0
    uint32_t least;  // random words below are raised to it, and lowered at the other end
    explicit Law(const HardConcreteLaw& law)
        : low(static_cast<R>(law.low)), high(static_cast<R>(law.high)), over_beta(static_cast<R>(1.0 / law.beta)),
          span(static_cast<R>(law.zeta - law.gamma)), gamma(static_cast<R>(law.gamma)), closed(exp_(static_cast<R>(law.shift))),
          least(static_cast<uint32_t>(law.epsilon * 4294967296.0)) {}
};

template <typename R>
static inline R between(R x, R low, R high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// Written to only where something is out of bounds: a look costs half as much.
template <typename R>
static inline void bound(R low, R high, R* __restrict x, int64_t n) {
    int outside = 0;
#pragma omp simd reduction(| : outside)
    for (int64_t i = 0; i < n; ++i) outside |= (x[i] < low) | (x[i] > high);
    if (!outside) return;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[i] = between(x[i], low, high);
}

// With u = a / (a + b) and r = b e, e = exp(-log alpha), s = 1 / (1 + (r / a)^(1 / beta)); for the published beta = 2/3
// that is a^2 / (a^2 + r sqrt(r a)), without a logarithm, and its division serves P(z > 0) = 1 / (1 + closed e) too.
template <typename R, bool is_published>
static inline void gates_of(const Law<R> law, const uint32_t* __restrict words, const R* __restrict log_alpha,
                            R* __restrict e_then_open, R* __restrict gate, int64_t n) {
    const R over_beta = law.over_beta, span = law.span, gamma = law.gamma, closed = law.closed;
    const uint32_t least = law.least;
    constexpr R unit = R(1.0 / 4294967296.0);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        uint32_t word = words[i] < least ? least : words[i];
        word = word > ~least ? ~least : word;
        const R a = (static_cast<R>(word) + R(0.5)) * unit, b = (static_cast<R>(~word) + R(0.5)) * unit;
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

// In short loops one after the other, all in the first cache: each is a chain too long to overlap with the next.
template <typename R, bool is_published>
static double draw_block(const Law<R> law, uint64_t seed, int64_t first, int64_t end, const GateDraw<R>& p) {
    const int64_t n = end - first;
    R* __restrict log_alpha = p.log_alpha + first;
    R* __restrict gate = p.gate + first;
    alignas(64) uint32_t words[block];
    alignas(64) R e[block];
    bound(law.low, law.high, log_alpha, n);
    for (int64_t i = 0; i < n; i += group_size) {
        Words two;
        draw_words(seed, static_cast<uint64_t>((first + i) / group_size), two);
        std::memcpy(words + i, two.first, sizeof two.first);
        std::memcpy(words + i + 16, two.second, sizeof two.second);
    }
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) e[i] = is_published ? exp_bounded_(-log_alpha[i]) : exp_(-log_alpha[i]);
    gates_of<R, is_published>(law, words, log_alpha, e, gate, n);
    R sum = R(0);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += e[i];
    if (p.weight) {
        const R* __restrict weight = p.weight + first;
        R* __restrict out = p.out + first;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) out[i] = weight[i] * gate[i];
    }
    return static_cast<double>(sum);
}

static double total_of(const std::vector<double>& sums) {
    double total = 0.0;
    for (const double sum : sums) total += sum;
    return total;
}

// No overflow on the short way.
static bool takes_short_way(const HardConcreteLaw& law) {
    return law.beta == 2.0 / 3.0 && law.low >= -40.0 && law.high <= 40.0;
}

template <typename R>
static double draw(int64_t n, int threads, uint64_t seed, const HardConcreteLaw& given, const GateDraw<R>& p) {
    const Law<R> law(given);
    const bool is_published = takes_short_way(given);
    const int64_t blocks = blocks_of(n);
    std::vector<double> sums(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t end = (k + 1) * block < n ? (k + 1) * block : n;
        sums[static_cast<size_t>(k)] = is_published ? draw_block<R, true>(law, seed, k * block, end, p)
                                                    : draw_block<R, false>(law, seed, k * block, end, p);
    }
    return total_of(sums);
}

// dz / d log alpha = (zeta - gamma) s (1 - s) / beta inside the clip, where z = s (zeta - gamma) + gamma.
template <typename R, bool has_weight, bool has_count, bool is_published>
static void gradient_block(const Law<R> law, int64_t first, int64_t end, const GateGradient<R>& p) {
    const R over_span = R(1) / law.span, slope = law.span * law.over_beta, gamma = law.gamma, closed = law.closed;
    const R scale = static_cast<R>(p.scale) * closed;
    const R* grad = p.grad;  // may be grad_weight too
    const R* __restrict weight = p.weight;
    const R* __restrict gate = p.gate;
    const R* __restrict log_alpha = p.log_alpha;
    R* grad_weight = p.grad_weight;
    R* __restrict grad_log_alpha = p.grad_log_alpha;
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

template <typename R, bool is_published>
static auto gradient_of(const GateGradient<R>& p) {
    return p.weight ? (p.scale != 0.0 ? gradient_block<R, true, true, is_published> : gradient_block<R, true, false, is_published>)
                    : (p.scale != 0.0 ? gradient_block<R, false, true, is_published> : gradient_block<R, false, false, is_published>);
}

template <typename R>
static void gradient(int64_t n, int threads, const HardConcreteLaw& given, const GateGradient<R>& p) {
    const Law<R> law(given);
    const int64_t blocks = blocks_of(n);
    const auto run = takes_short_way(given) ? gradient_of<R, true>(p) : gradient_of<R, false>(p);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) run(law, k * block, (k + 1) * block < n ? (k + 1) * block : n, p);
}

// Gates of one row of blocks, spread over the columns.
template <typename R>
static const R* spread(const BlockProduct<R>& p, int64_t down, std::vector<R>& room) {
    const int64_t across = (p.columns + p.width - 1) / p.width;
    const R* gates = p.gate + down * across;
    if (p.width == 1) return gates;
    room.resize(static_cast<size_t>(across * p.width));
    for (int64_t j = 0; j < across; ++j)
        for (int64_t k = 0; k < p.width; ++k) room[static_cast<size_t>(j * p.width + k)] = gates[j];
    return room.data();
}

template <typename R>
static void block_product(int threads, const BlockProduct<R>& p) {
    const int64_t down = (p.rows + p.height - 1) / p.height;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<R> room;
#pragma omp for schedule(static)
        for (int64_t d = 0; d < down; ++d) {
            const R* __restrict gates = spread(p, d, room);
            const int64_t end = (d + 1) * p.height < p.rows ? (d + 1) * p.height : p.rows;
            for (int64_t r = d * p.height; r < end; ++r) {
                const R* __restrict weight = p.weight + r * p.columns;
                R* __restrict out = p.out + r * p.columns;
#pragma omp simd
                for (int64_t c = 0; c < p.columns; ++c) out[c] = weight[c] * gates[c];
            }
        }
    }
}

// Columns are worked on in strips, each by one thread from top to bottom of its row of blocks: wide ones, so that memory
// is read in its order, unless there are too few rows of blocks for all threads.
template <typename R>
static void block_gradient(int threads, const BlockProduct<R>& p) {
    const int64_t down = (p.rows + p.height - 1) / p.height, across = (p.columns + p.width - 1) / p.width;
    const int64_t across_strip = threads == 1 || down >= 4 * threads ? 2048 : 256;
    const int64_t strip = across_strip * p.width, strips = (p.columns + strip - 1) / strip;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<R> room, sums(static_cast<size_t>(strip));
#pragma omp for schedule(static) collapse(2)
        for (int64_t d = 0; d < down; ++d) {
            for (int64_t s = 0; s < strips; ++s) {
                const R* __restrict gates = spread(p, d, room) + s * strip;
                const int64_t width = p.columns - s * strip < strip ? p.columns - s * strip : strip;
                const int64_t end = (d + 1) * p.height < p.rows ? (d + 1) * p.height : p.rows;
                R* __restrict total = sums.data();
                const int64_t units = (width + p.width - 1) / p.width;
                for (int64_t c = 0; c < units * p.width; ++c) total[c] = R(0);
                for (int64_t r = d * p.height; r < end; ++r) {
                    const R* __restrict weight = p.weight + r * p.columns + s * strip;
                    const R* grad = p.grad + r * p.columns + s * strip;
                    R* out = p.out + r * p.columns + s * strip;
#pragma omp simd
                    for (int64_t c = 0; c < width; ++c) {
                        const R g = grad[c];
                        total[c] += g * weight[c];
                        out[c] = g * gates[c];
                    }
                }
                R* __restrict of_gate = p.grad_gate + d * across + s * across_strip;
                for (int64_t j = 0; j < units; ++j) {
                    R sum = R(0);
                    for (int64_t k = 0; k < p.width; ++k) sum += total[j * p.width + k];
                    of_gate[j] = sum;
                }
            }
        }
    }
}

template <typename R>
static double open_count(int threads, const OpenCount<R>& p) {
    const R* __restrict log_alpha = p.log_alpha;
    const R* __restrict sizes = p.sizes;
    const R shift = static_cast<R>(p.shift);
    const int64_t blocks = blocks_of(p.n);
    std::vector<double> sums(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t end = (k + 1) * block < p.n ? (k + 1) * block : p.n;
        R sum = R(0);
        if (sizes) {
#pragma omp simd reduction(+ : sum)
            for (int64_t i = k * block; i < end; ++i) sum += sizes[i] * sigmoid_(log_alpha[i] - shift);
        } else {
#pragma omp simd reduction(+ : sum)
            for (int64_t i = k * block; i < end; ++i) sum += sigmoid_(log_alpha[i] - shift);
        }
        sums[static_cast<size_t>(k)] = static_cast<double>(sum);
    }
    return total_of(sums);
}

template <typename R>
static void open_gradient(int threads, double scale, const OpenCount<R>& p, R* __restrict grad) {
    const R* __restrict log_alpha = p.log_alpha;
    const R* __restrict sizes = p.sizes;
    const R shift = static_cast<R>(p.shift), factor = static_cast<R>(scale);
    const int64_t blocks = blocks_of(p.n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t end = (k + 1) * block < p.n ? (k + 1) * block : p.n;
#pragma omp simd
        for (int64_t i = k * block; i < end; ++i) {
            const R e = exp_(log_alpha[i] - shift), open = e / (R(1) + e);
            grad[i] = factor * open / (R(1) + e);
        }
        if (!sizes) continue;
#pragma omp simd
        for (int64_t i = k * block; i < end; ++i) grad[i] *= sizes[i];
    }
}

template <typename R>
static constexpr HardConcreteFunctions<R> functions() {
    return {draw<R>, gradient<R>, block_product<R>, block_gradient<R>, open_count<R>, open_gradient<R>};
}

extern const HardConcreteTable hard_concrete_table;
const HardConcreteTable hard_concrete_table = {functions<float>(), functions<double>()};

}  // namespace KARUI_ISA
}  // namespace karui
