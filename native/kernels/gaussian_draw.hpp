// Draws y = mean + deviation * noise of sparse variational dropout, and the gradients with respect to log sigma^2 or to
// the variance; the noise is drawn again from its seed. See src/karui/ops/gaussian_draw.
#pragma once
#include <cstdint>

namespace karui {

// How the deviation is given: as log sigma^2 (deviation exp(x / 2)) or as a variance (sqrt(x + tiny)).
enum class Spread { log_variance, variance };

template <typename R>
struct GaussianDraw {
    int64_t rows, columns;     // of what is drawn
    const int64_t* index;      // (rows): which rows of mean and spread they are; null: all, in order
    const R *mean, *spread;    // (any, columns)
    R* out;                    // (rows, columns); for gradients that of spread, at the drawn rows
    const R* grad;             // (rows, columns), for gradients only
};

template <typename R>
struct GaussianFunctions {
    void (*draw)(int threads, uint64_t seed, Spread kind, const GaussianDraw<R>& p);
    void (*gradient)(int threads, uint64_t seed, Spread kind, const GaussianDraw<R>& p);
};

struct GaussianTable {
    GaussianFunctions<float> f32;
    GaussianFunctions<double> f64;
};

namespace generic { extern const GaussianTable gaussian_table; }
namespace avx2 { extern const GaussianTable gaussian_table; }
namespace avx512 { extern const GaussianTable gaussian_table; }

}  // namespace karui
