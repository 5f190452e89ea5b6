// KL divergence of sparse variational dropout and its gradient, each in one pass over the weights
// (Molchanov et al. 2017, equation 14). See src/karui/ops/variational_kl.
#pragma once
#include <cstdint>

namespace karui {

template <typename R>
struct KlGradient {
    const R *weight, *log_sigma2;  // (n)
    R *grad_weight, *grad_log_sigma2;  // (n), overwritten
};

struct KlTable {
    // The sum over n weights, in nats.
    double (*value_f32)(int64_t n, int threads, const float* weight, const float* log_sigma2);
    double (*value_f64)(int64_t n, int threads, const double* weight, const double* log_sigma2);
    // Gradients of scale times the sum.
    void (*gradient_f32)(int64_t n, int threads, double scale, const KlGradient<float>& arrays);
    void (*gradient_f64)(int64_t n, int threads, double scale, const KlGradient<double>& arrays);
};

namespace generic { extern const KlTable kl_table; }
namespace avx2 { extern const KlTable kl_table; }
namespace avx512 { extern const KlTable kl_table; }

}  // namespace karui
