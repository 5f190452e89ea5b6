// First-order linear recurrence c_t = f_t c_{t-1} + b_t, element by element.
// T time, B batch, D directions, H hidden size per direction. See ops/linear_recurrence/README.md.
#pragma once
#include <cstdint>

namespace karui {

struct LinearSizes {
    int64_t T, B, D, H;
    int threads;
};

template <typename R>
struct LinearForward {
    const R* f;              // (T, B, D, H)
    const R* b;              // (T, B, D, H)
    const R* c_0;            // (D, B, H)
    const uint8_t* padding;  // (T, B) or null: 1 = padding
    R* c;                    // (T, B, D, H)
    R* c_n;                  // (D, B, H)
};

template <typename R>
struct LinearBackward {
    const R* f;              // (T, B, D, H)
    const R* c_0;            // (D, B, H)
    const uint8_t* padding;  // (T, B) or null
    const R* c;              // (T, B, D, H)     what the forward wrote
    const R* grad_c;         // (T, B, D, H)
    const R* grad_c_n;       // (D, B, H)
    R* grad_f;               // (T, B, D, H)
    R* grad_b;               // (T, B, D, H)
    R* grad_c_0;             // (D, B, H)
};

struct LinearTable {
    void (*forward_f32)(const LinearSizes&, const LinearForward<float>&);
    void (*forward_f64)(const LinearSizes&, const LinearForward<double>&);
    void (*backward_f32)(const LinearSizes&, const LinearBackward<float>&);
    void (*backward_f64)(const LinearSizes&, const LinearBackward<double>&);
};

namespace generic { extern const LinearTable linear_table; }
namespace avx2 { extern const LinearTable linear_table; }
namespace avx512 { extern const LinearTable linear_table; }

}  // namespace karui
