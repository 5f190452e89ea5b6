#include "kernels/variational_kl.hpp"

#include <vector>

#include "huge_pages.hpp"
#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {

static constexpr int64_t block = 1024;  // partial sums of fixed blocks: the same total for any number of threads

template <typename R>
static inline R clipped(R a) {
    a = a < R(-8) ? R(-8) : a;
    return a > R(8) ? R(8) : a;
}

template <typename R>
static double value(int64_t n, int threads, const R* __restrict weight, const R* __restrict log_sigma2) {
    const int64_t blocks = (n + block - 1) / block;
    std::vector<double> sums(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t end = (k + 1) * block < n ? (k + 1) * block : n;
        R sum = R(0);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = k * block; i < end; ++i) {
            const R a = clipped(log_sigma2[i] - log_(weight[i] * weight[i] + R(1e-8)));
            const R e = exp_(-a);
            const R y = R(1) + e;
            const R Q = R(1) + exp_(R(1.87320) + R(1.48695) * a);
            // k1 / Q is k1 (1 - sigmoid(k2 + k3 a)) without cancellation; the rest is log1p(e) / 2, whose second term is
            // what y lost by rounding. One division serves both.
            sum += (R(0.63576) * y - R(0.5) * ((y - R(1)) - e) * Q) / (Q * y) + R(0.5) * log_(y);
        }
        sums[static_cast<size_t>(k)] = static_cast<double>(sum);
    }
    double total = 0.0;
    for (const double sum : sums) total += sum;
    return total;
}

template <typename R>
static void gradient_block(int64_t n, R s, const R* __restrict weight, const R* __restrict log_sigma2, R* __restrict grad_weight,
                           R* __restrict grad_log_sigma2) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const R w = weight[i];
        const R square = w * w + R(1e-8);
        const R a = log_sigma2[i] - log_(square);
        const R c = clipped(a);
        const R e = exp_(-c);
        const R E = exp_(R(1.87320) + R(1.48695) * c);
        const R y = R(1) + e;
        const R QQ = (R(1) + E) * (R(1) + E);  // at most 1e12, y at most 3e3
        const R inside = a > R(-8) && a < R(8) ? s : R(0);
        const R slope = -inside * (R(0.63576 * 1.48695) * E * y + R(0.5) * e * QQ) / (QQ * y);
        grad_log_sigma2[i] = slope;
        grad_weight[i] = R(-2) * slope * w / square;
    }
}

template <typename R>
static void gradient(int64_t n, int threads, double scale, const KlGradient<R>& arrays) {
    use_huge_pages(arrays.grad_weight, n * static_cast<int64_t>(sizeof(R)));
    use_huge_pages(arrays.grad_log_sigma2, n * static_cast<int64_t>(sizeof(R)));
    const int64_t blocks = (n + block - 1) / block;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t i = k * block, size = n - i < block ? n - i : block;
        gradient_block<R>(size, static_cast<R>(scale), arrays.weight + i, arrays.log_sigma2 + i, arrays.grad_weight + i,
                          arrays.grad_log_sigma2 + i);
    }
}

extern const KlTable kl_table;
const KlTable kl_table = {value<float>, value<double>, gradient<float>, gradient<double>};

}  // namespace KARUI_ISA
}  // namespace karui
