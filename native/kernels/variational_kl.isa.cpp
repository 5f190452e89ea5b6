#include "kernels/variational_kl.hpp"

#include <cmath>

#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {

template <typename R>
static double kl(int64_t n, int threads, const R* __restrict weight, const R* __restrict log_sigma2, R* __restrict grad_weight,
                 R* __restrict grad_log_sigma2) {
    constexpr int64_t block = 1024;  // partial sums of fixed blocks: the same total for any number of threads
    const int64_t blocks = (n + block - 1) / block;
    double total = 0.0;
    double* sums = new double[blocks > 0 ? blocks : 1];
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < blocks; ++k) {
        const int64_t end = (k + 1) * block < n ? (k + 1) * block : n;
        R sum = R(0);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = k * block; i < end; ++i) {
            const R w = weight[i];
            const R square = w * w + R(1e-8);
            const R a = log_sigma2[i] - log_(square);
            const R inside = (a > R(-8) && a < R(8)) ? R(1) : R(0);
            const R clipped = a < R(-8) ? R(-8) : (a > R(8) ? R(8) : a);
            const R q = sigmoid_(-(R(1.87320) + R(1.48695) * clipped));  // 1 - sigmoid without cancellation
            const R e = exp_(-clipped);
            const R y = R(1) + e;
            const R softplus = log_(y) - ((y - R(1)) - e) / y;  // log1p: the second term is what y lost by rounding
            sum += R(0.63576) * q + R(0.5) * softplus;
            const R slope = inside * (R(-0.63576 * 1.48695) * q * (R(1) - q) - R(0.5) * e / y);
            grad_log_sigma2[i] = slope;
            grad_weight[i] = -slope * R(2) * w / square;
        }
        sums[k] = static_cast<double>(sum);
    }
    for (int64_t k = 0; k < blocks; ++k) total += sums[k];
    delete[] sums;
    return total;
}

extern const KlTable kl_table;
const KlTable kl_table = {kl<float>, kl<double>};

}  // namespace KARUI_ISA
}  // namespace karui
