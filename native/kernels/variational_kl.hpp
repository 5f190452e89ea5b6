// KL divergence of sparse variational dropout and its gradient in one pass over the weights
// (Molchanov et al. 2017, equation 14). See sparse/variational.py.
#pragma once
#include <cstdint>

namespace karui {

struct KlTable {
    // weight, log_sigma2 (n); grad_* (n) are overwritten; returns the sum in nats.
    double (*f32)(int64_t n, int threads, const float* weight, const float* log_sigma2, float* grad_weight, float* grad_log_sigma2);
    double (*f64)(int64_t n, int threads, const double* weight, const double* log_sigma2, double* grad_weight, double* grad_log_sigma2);
};

namespace generic { extern const KlTable kl_table; }
namespace avx2 { extern const KlTable kl_table; }
namespace avx512 { extern const KlTable kl_table; }

}  // namespace karui
