// Walk over time of the Statistical Recurrent Unit (Oliva, Poczos, Schneider, ICML 2017, equations 7 to 10).
// T time, B batch, P statistics, R recurrent statistics (0: no feedback), A scales. See
// ops/statistical_recurrence/README.md for the derivation and the letters of the backward pass.
#pragma once
#include <cstdint>

namespace karui {

enum class Activation { relu, elu, tanh };

struct StatisticalSizes {
    int64_t T, B, P, R, A;
    Activation activation;
    int threads;  // torch's number: its OpenMP runtime may be another copy than ours
};

// Weights are kept in panels of this many outputs at most, so each product's width is rounded up to it.
constexpr int64_t kPanel = 32;
constexpr int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

template <typename F>
struct StatisticalForward {
    const F* projected;      // (T, B, P)    W_phi_x x + b_phi
    const F* weight_r;       // (R, A*P)
    const F* bias_r;         // (R)
    const F* weight_phi;     // (P, R)
    const F* alphas;         // (A)
    const F* mu_0;           // (B, A*P)
    const uint8_t* padding;  // (T, B) or null: not 0 = the state passes through
    F* mu;                   // (T, B, A*P) or null
    F* mu_n;                 // (B, A*P)
    F* phi;                  // (T, B, P) or null: kept for the backward pass, 0 in padding
    F* r;                    // (T, B, R) or null: same
    F* scratch;              // forward_scratch(sizes)
};

template <typename F>
struct StatisticalBackward {
    const F* weight_r;       // as above
    const F* weight_phi;
    const F* alphas;
    const uint8_t* padding;
    const F* phi;
    const F* r;
    const F* grad_mu;        // (T, B, A*P) or null
    const F* grad_mu_n;      // (B, A*P) or null
    F* grad_projected;       // (T, B, P)
    F* grad_pre_r;           // (T, B, R)    before the activation: sums to the gradient of bias_r
    F* z;                    // (T, B, A*R)  (1 - alpha) Z_t: times phi_t gives the gradient of weight_r
    F* e_0;                  // (B, A*P)     E_0
    F* z_0;                  // (B, A*R)     Z_0
    F* scratch;              // backward_scratch(sizes)
};

// Sum over time of <g_t, d s_t / d alpha> for s_t = alpha s_{t-1} + (1 - alpha) y_t, sequence by sequence.
template <typename F>
struct AlphaSlope {
    int64_t T, B, A, K;
    int threads;
    bool one_y;     // y (T, B, K), the same for all scales; else (T, B, A*K)
    bool one_g;     // g (T, B, K), and it belongs to the state before step t; else (T, B, A*K), after it
    const F* y;
    const F* g;             // or null
    const F* g_n;           // (B, A*K) or null: gradient of the last state
    const F* s_0;           // (B, A*K)
    const F* alphas;        // (A)
    const uint8_t* padding;
    F* scratch;             // (B, 2, K)
    F* grad;                // (B, A)
};

inline int64_t forward_scratch(const StatisticalSizes& s) {
    return padded(s.R) * s.A * s.P + padded(s.P) * s.R + s.B * (s.A * s.P + padded(s.R) + padded(s.P));
}
inline int64_t backward_scratch(const StatisticalSizes& s) {
    return padded(s.P) * s.A * s.R + padded(s.R) * s.P + s.B * (s.A * s.R + 2 * padded(s.P) + padded(s.R));
}

struct StatisticalTable {
    void (*forward_f32)(const StatisticalSizes&, const StatisticalForward<float>&);
    void (*forward_f64)(const StatisticalSizes&, const StatisticalForward<double>&);
    void (*backward_f32)(const StatisticalSizes&, const StatisticalBackward<float>&);
    void (*backward_f64)(const StatisticalSizes&, const StatisticalBackward<double>&);
    void (*alpha_f32)(const AlphaSlope<float>&);
    void (*alpha_f64)(const AlphaSlope<double>&);
};

namespace generic { extern const StatisticalTable statistical_table; }
namespace avx2 { extern const StatisticalTable statistical_table; }
namespace avx512 { extern const StatisticalTable statistical_table; }

}  // namespace karui
