// A dense layer whose weight is drawn: gates, products and all gradients, strip by strip, so that neither the drawn weight
// nor the gradient by it is ever a whole array. See src/karui/ops/hard_concrete.
#pragma once
#include "kernels/hard_concrete.hpp"

namespace karui {

// A gate belongs to a block of the weight; blocks at the lower and right edge are cut off.
struct DrawnLinearSizes {
    int64_t N, C, R;  // rows of the input, columns of the input, columns of the output
    int64_t height, width;
    int threads;

    bool by_element() const { return height == 1 && width == 1; }
    int64_t down() const { return (R + height - 1) / height; }
    int64_t across() const { return (C + width - 1) / width; }
};

template <typename R>
struct DrawnLinearForward {
    const R *input, *weight, *bias;  // (N, C), (R, C), (R) or null
    R *log_alpha, *gate;             // (down, across) brought within its bounds, (down, across)
    R *panels, *output;              // (N, C rounded up to 32): the input as the kernel wants it; (N, R)
};

template <typename R>
struct DrawnLinearBackward {
    const R *grad, *panels, *weight, *log_alpha;  // (N, R), of the forward pass, (R, C), (down, across)
    R* gate;                                      // (down, across), in the end the gradient of log alpha
    R *grad_input, *grad_weight, *grad_bias;      // (N, C) or null, (R, C), (R) or null
    double scale;                                 // gradient of the expected number of open gates, added
};

template <typename R>
struct DrawnLinearFunctions {
    // Returns the expected number of open gates.
    double (*forward)(const DrawnLinearSizes& s, uint64_t seed, const HardConcreteLaw& law, const DrawnLinearForward<R>& a);
    void (*backward)(const DrawnLinearSizes& s, const HardConcreteLaw& law, const DrawnLinearBackward<R>& a);
};

struct DrawnLinearTable {
    DrawnLinearFunctions<float> f32;
    DrawnLinearFunctions<double> f64;
};

namespace generic { extern const DrawnLinearTable drawn_linear_table; }
namespace avx2 { extern const DrawnLinearTable drawn_linear_table; }
namespace avx512 { extern const DrawnLinearTable drawn_linear_table; }

}  // namespace karui
