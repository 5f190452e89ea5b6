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

constexpr int lanes = 32, per_lane = 8, tile = lanes * per_lane;

// Nats of one weight without log(1 + e) / 2, whose 1 + e is multiplied into `product`: the logarithms of several weights
// are one logarithm of their product, at most 2982^8 < 1e28.
template <typename R>
static inline R nats(R w, R log_sigma2, R& product) {
    const R a = clipped(log_sigma2 - log_(w * w + R(1e-8)));
    const R e = exp_bounded_(-a);
    const R y = R(1) + e;
    const R Q = R(1) + exp_bounded_(R(1.87320) + R(1.48695) * a);
    product *= y;
    // k1 / Q is k1 (1 - sigmoid(k2 + k3 a)) without cancellation; the second term is what y lost by rounding.
    return (R(0.63576) * y - R(0.5) * ((y - R(1)) - e) * Q) / (Q * y);
}

template <typename R>
static inline void add_tile(const R* __restrict weight, const R* __restrict log_sigma2, R* __restrict sums) {
#pragma omp simd
    for (int l = 0; l < lanes; ++l) {
        R sum = R(0), product = R(1);
#pragma GCC unroll 8
        for (int j = 0; j < per_lane; ++j) sum += nats(weight[j * lanes + l], log_sigma2[j * lanes + l], product);
        sums[l] += sum + R(0.5) * log_(product);
    }
}

template <typename R>
static double value(int64_t n, int threads, const R* weight, const R* log_sigma2) {
    const int64_t blocks = (n + block - 1) / block;
    std::vector<double> sums(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t end = (k + 1) * block < n ? (k + 1) * block : n;
        alignas(64) R by_lane[lanes] = {};
        int64_t i = k * block;
        for (; i + tile <= end; i += tile) add_tile(weight + i, log_sigma2 + i, by_lane);
        double sum = 0.0;
        for (const R one : by_lane) sum += static_cast<double>(one);
        for (; i < end; ++i) {
            R product = R(1);
            const R rest = nats(weight[i], log_sigma2[i], product);
            sum += static_cast<double>(rest + R(0.5) * log_(product));
        }
        sums[static_cast<size_t>(k)] = sum;
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
        const R e = exp_bounded_(-c);
        const R E = exp_bounded_(R(1.87320) + R(1.48695) * c);
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
