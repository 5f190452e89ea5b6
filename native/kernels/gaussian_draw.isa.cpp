#include "kernels/gaussian_draw.hpp"

#include "random.hpp"

namespace karui {
namespace KARUI_ISA {

constexpr int64_t block = 1024;   // whole groups of random words
constexpr double tiny = 1e-8;     // keeps the square root's slope finite

template <typename R>
static void fill_normal(uint64_t seed, int64_t first, int64_t n, R* __restrict noise) {
    Words words;
    for (int64_t i = 0; i < n; i += group_size) {
        draw_words(seed, static_cast<uint64_t>((first + i) / group_size), words);
#pragma omp simd
        for (int l = 0; l < 16; ++l) normal_pair(words.first[l], words.second[l], noise[i + l], noise[i + 16 + l]);
    }
}

template <typename R>
static void draw_part(Spread kind, int64_t n, const R* __restrict noise, const R* __restrict mean, const R* __restrict spread,
                      R* __restrict out) {
    if (kind == Spread::log_variance) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) out[i] = mean[i] + exp_(R(0.5) * spread[i]) * noise[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) out[i] = mean[i] + sqrt_(spread[i] + R(tiny)) * noise[i];
    }
}

template <typename R>
static void gradient_part(Spread kind, int64_t n, const R* __restrict noise, const R* __restrict grad, const R* __restrict spread,
                          R* __restrict out) {
    if (kind == Spread::log_variance) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) out[i] = grad[i] * noise[i] * (R(0.5) * exp_(R(0.5) * spread[i]));
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) out[i] = grad[i] * noise[i] * R(0.5) / sqrt_(spread[i] + R(tiny));
    }
}

template <typename R, bool is_gradient>
static void run(int threads, uint64_t seed, Spread kind, const GaussianDraw<R>& p) {
    const int64_t n = p.rows * p.columns, blocks = (n + block - 1) / block;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        alignas(64) R noise[block];
        const int64_t first = k * block, end = first + block < n ? first + block : n;
        fill_normal(seed, first, end - first, noise);
        for (int64_t i = first; i < end;) {  // by rows where they are picked, else at once
            const int64_t row = p.index ? i / p.columns : 0;
            const int64_t stop = p.index && (row + 1) * p.columns < end ? (row + 1) * p.columns : end;
            const int64_t at = p.index ? p.index[row] * p.columns + (i - row * p.columns) : i;
            if (is_gradient)
                gradient_part<R>(kind, stop - i, noise + (i - first), p.grad + i, p.spread + at, p.out + i);
            else
                draw_part<R>(kind, stop - i, noise + (i - first), p.mean + at, p.spread + at, p.out + i);
            i = stop;
        }
    }
}

extern const GaussianTable gaussian_table;
const GaussianTable gaussian_table = {{run<float, false>, run<float, true>}, {run<double, false>, run<double, true>}};

}  // namespace KARUI_ISA
}  // namespace karui
