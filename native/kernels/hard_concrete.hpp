// Hard concrete gates (Louizos, Welling, Kingma 2018, equations 10 to 13): draws, products with a weight, gradients, the
// expected number of open gates. See src/karui/ops/hard_concrete.
#pragma once
#include <cstdint>

namespace karui {

struct HardConcreteLaw {
    double beta, gamma, zeta;  // temperature; the stretched interval
    double low, high;          // bounds of log alpha
    double shift;              // P(gate > 0) = sigmoid(log_alpha - shift)
};

template <typename R>
struct GateDraw {
    R* log_alpha;     // (n), brought within its bounds
    const R* weight;  // (n), or null: gates alone
    R *gate, *out;    // (n); out = weight * gate, or null
};

template <typename R>
struct GateGradient {
    const R *grad, *weight, *gate, *log_alpha;  // (n); weight null: grad is that of the gates
    R *grad_weight, *grad_log_alpha;             // (n); grad_weight null where weight is, or grad itself; or gate itself
    double scale;                                // gradient of the expected number of open gates, added
};

template <typename R>
struct BlockProduct {
    int64_t rows, columns, height, width;  // a matrix in blocks, those at the lower and right edge cut off
    const R *weight, *gate;                // (rows, columns), (blocks down, blocks across)
    R* out;                                // (rows, columns)
    const R* grad;                         // below for gradients only
    R* grad_gate;                          // out is then grad times the gates; may be grad itself
};

template <typename R>
struct OpenCount {
    int64_t n;
    double shift;
    const R *log_alpha, *sizes;  // (n); sizes null: one each
};

template <typename R>
struct HardConcreteFunctions {
    // Returns the expected number of open gates.
    double (*draw)(int64_t n, int threads, uint64_t seed, const HardConcreteLaw& law, const GateDraw<R>& arrays);
    void (*gradient)(int64_t n, int threads, const HardConcreteLaw& law, const GateGradient<R>& arrays);
    void (*block_product)(int threads, const BlockProduct<R>& p);
    void (*block_gradient)(int threads, const BlockProduct<R>& p);
    double (*open_count)(int threads, const OpenCount<R>& p);  // sum of sizes * sigmoid(log_alpha - shift)
    void (*open_gradient)(int threads, double scale, const OpenCount<R>& p, R* grad);
};

struct HardConcreteTable {
    HardConcreteFunctions<float> f32;
    HardConcreteFunctions<double> f64;
};

namespace generic { extern const HardConcreteTable hard_concrete_table; }
namespace avx2 { extern const HardConcreteTable hard_concrete_table; }
namespace avx512 { extern const HardConcreteTable hard_concrete_table; }

}  // namespace karui
