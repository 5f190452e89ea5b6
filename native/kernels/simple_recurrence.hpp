// Elementwise scan of the Simple Recurrent Unit: version 2 (Lei et al., EMNLP 2018, equations 1 to 4) and version 1
// (arXiv 1709.02755v1). T time, B batch, D directions, G gate blocks, H hidden size per direction.
// See ops/simple_recurrence/README.md.
#pragma once
#include <cstdint>

namespace karui {

enum class Activation { identity, tanh, relu };

struct ScanSizes {
    int64_t T, B, D, G, H;
    Activation activation;
    double scale;  // alpha of the skip term when G = 3
    int threads;   // torch's number: its OpenMP runtime may be another copy than ours
};

template <typename R>
struct ScanForward {
    const R* u;              // (T, B, D, G, H)  candidate, forget, reset[, skip]
    const R* x;              // (T, B, D*H) or null: skip input when G = 3; null means no skip term
    const R* weight_c;       // (D, 2, H)        v_f, v_r; null is version 1: gates that do not read the state
    const R* bias;           // (D, 2, H)        b_f, b_r
    const R* c_0;            // (D, B, H)
    const R* dropout_mask;   // (B, D*H) or null
    const uint8_t* padding;  // (T, B) or null: 1 = padding
    R* h;                    // (T, B, D*H)
    R* c;                    // (T, B, D, H)     states after each step, or null where nothing reads them
    R* c_n;                  // (D, B, H); may be c_0 itself
};

template <typename R>
struct ScanBackward {
    ScanForward<R> forward;  // h and c_n are not read
    const R* grad_h;         // (T, B, D*H)
    const R* grad_c_n;       // (D, B, H); may be grad_c_0 itself
    R* grad_u;               // as u
    R* grad_x;               // as x, or null
    R* grad_weight_c;        // (D, 2, H), or null in version 1
    R* grad_bias;            // (D, 2, H)
    R* grad_c_0;             // (D, B, H)
    R* scratch;              // (8, D, 4, H): sums of one chunk of rows, added in a fixed order afterwards
};

struct ScanTable {
    void (*forward_f32)(const ScanSizes&, const ScanForward<float>&);
    void (*forward_f64)(const ScanSizes&, const ScanForward<double>&);
    void (*backward_f32)(const ScanSizes&, const ScanBackward<float>&);
    void (*backward_f64)(const ScanSizes&, const ScanBackward<double>&);
};

namespace generic { extern const ScanTable scan_table; }
namespace avx2 { extern const ScanTable scan_table; }
namespace avx512 { extern const ScanTable scan_table; }

}  // namespace karui
