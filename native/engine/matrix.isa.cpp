#include "engine/matrix.hpp"

#include <algorithm>
#include <limits>

#include "kernels/gemm.hpp"
#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {
namespace {

constexpr int64_t width = panel<float>;

void pack(const float* rows, int64_t n, int64_t columns, float* panels) {
    for (int64_t first = 0; first < n; first += width)
        pack_transposed(rows + first * columns, std::min(width, n - first), columns, columns, panels + first * columns);
}

void pack_stripes(const float* x, int64_t M, int64_t columns, int64_t stride, float* stripes) {
    for (int64_t first = 0; first < M; first += tile_rows) {
        const int64_t count = std::min(tile_rows, M - first);
        float* to = stripes + first * columns;
        for (int64_t m = 0; m < tile_rows; ++m) {
            const float* from = x + (first + m) * stride;
            for (int64_t k = 0; k < columns; ++k) to[k * tile_rows + m] = m < count ? from[k] : 0.0f;
        }
    }
}

void product(const float* stripes, int64_t M, int64_t columns, const float* panels, int64_t n_panels, float* y, int64_t y_stride, bool add) {
    const Terms terms{1, columns, 0};
    for (int64_t p = 0; p < n_panels; ++p)
        for (int64_t first = 0; first < M; first += tile_rows)
            along_rows<float>(std::min(tile_rows, M - first))(terms, stripes + first * columns, panels + p * width * columns, y + first * y_stride + p * width,
                                                              y_stride, add);
}

void exp_sums(float* y, int64_t M, int64_t y_stride, int64_t n, const float* __restrict bias, float* largest, double* sum) {
    for (int64_t m = 0; m < M; ++m) {
        float* __restrict row = y + m * y_stride;
        float most = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : most)
        for (int64_t j = 0; j < n; ++j) {
            row[j] += bias[j];
            most = row[j] > most ? row[j] : most;
        }
        float total = 0.0f;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < n; ++j) total += exp_(row[j] - most);
        largest[m] = most;
        sum[m] = double(total);
    }
}

float dot(const float* __restrict a, const float* __restrict b, int64_t n) {
    float total = 0.0f;
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < n; ++k) total += a[k] * b[k];
    return total;
}

}  // namespace

extern const MatrixTable matrix_table;
const MatrixTable matrix_table = {width, tile_rows, &pack, &pack_stripes, &product, &exp_sums, &dot};

}  // namespace KARUI_ISA
}  // namespace karui
