#include "kernels/hard_concrete.hpp"

#include <vector>

#include "kernels/hard_concrete_gates.hpp"

namespace karui {
namespace KARUI_ISA {

template <typename R>
static double draw(int64_t n, int threads, uint64_t seed, const HardConcreteLaw& law, const GateDraw<R>& p) {
    return draw_all(Law<R>(law), threads, seed, n, p);
}

template <typename R>
static void gradient(int64_t n, int threads, const HardConcreteLaw& given, const GateGradient<R>& p) {
    const Law<R> law(given);
    const int64_t blocks = blocks_of(n);
    const auto run = gradient_of(law, p);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) run(law, k * block, (k + 1) * block < n ? (k + 1) * block : n, p);
}

template <typename R>
static void block_product(int threads, const BlockProduct<R>& p) {
    const int64_t down = (p.rows + p.height - 1) / p.height;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        GateRows<R> gates(p.gate, p.columns, p.height, p.width, p.columns);
#pragma omp for schedule(static)
        for (int64_t d = 0; d < down; ++d) {
            const int64_t end = (d + 1) * p.height < p.rows ? (d + 1) * p.height : p.rows;
            for (int64_t r = d * p.height; r < end; ++r)
                multiply(p.weight + r * p.columns, gates.at(r, 0, p.columns), p.out + r * p.columns, p.columns);
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
        GateRows<R> gates(p.gate, p.columns, p.height, p.width, strip);
        std::vector<R> sums(static_cast<size_t>(strip));
#pragma omp for schedule(static) collapse(2)
        for (int64_t d = 0; d < down; ++d) {
            for (int64_t s = 0; s < strips; ++s) {
                const int64_t width = p.columns - s * strip < strip ? p.columns - s * strip : strip;
                const int64_t end = (d + 1) * p.height < p.rows ? (d + 1) * p.height : p.rows;
                R* __restrict total = sums.data();
                const int64_t units = (width + p.width - 1) / p.width;
                for (int64_t c = 0; c < units * p.width; ++c) total[c] = R(0);
                for (int64_t r = d * p.height; r < end; ++r) {
                    const int64_t at = r * p.columns + s * strip;
                    add_gradients(p.grad + at, p.weight + at, gates.at(r, s * strip, width), p.out + at, total, width);
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
