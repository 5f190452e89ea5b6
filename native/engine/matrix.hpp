// Products of whole blocks of positions with a matrix that stays, packed once (kernels/gemm.hpp).
#pragma once
#include <cstdint>
#include <vector>

namespace karui {

struct MatrixTable {
    int64_t panel, tile_rows;
    // Rows (n, columns) of a matrix to the transposed panels of kernels/gemm.hpp.
    void (*pack)(const float* rows, int64_t n, int64_t columns, float* panels);
    // M rows of x, `stride` apart, to stripes of tile_rows rows: (stripes, columns, tile_rows), zero where x ends.
    void (*pack_stripes)(const float* x, int64_t M, int64_t columns, int64_t stride, float* stripes);
    // y (M, n_panels * panel) = or += x W', rows of y `y_stride` apart.
    void (*product)(const float* stripes, int64_t M, int64_t columns, const float* panels, int64_t n_panels, float* y, int64_t y_stride, bool add);
    // y[m] += bias for m < M; of its n numbers the largest, and the sum of exp(y - largest).
    void (*exp_sums)(float* y, int64_t M, int64_t y_stride, int64_t n, const float* bias, float* largest, double* sum);
    float (*dot)(const float* a, const float* b, int64_t n);
};

namespace generic {
extern const MatrixTable matrix_table;
}
namespace avx2 {
extern const MatrixTable matrix_table;
}
namespace avx512 {
extern const MatrixTable matrix_table;
}

const MatrixTable& matrix_table();

// Positions as `product` takes them.
class Stripes {
  public:
    Stripes() = default;
    // M rows of x, `stride` apart.
    void pack(const float* x, int64_t M, int64_t columns, int64_t stride);
    const float* data() const { return values_.data(); }
    int64_t rows() const { return M_; }
    int64_t columns() const { return columns_; }

  private:
    std::vector<float> values_;
    int64_t M_ = 0, columns_ = 0;
};

class PackedMatrix {
  public:
    PackedMatrix() = default;
    // (n, columns), row-major.
    PackedMatrix(const float* rows, int64_t n, int64_t columns);
    int64_t rows() const { return n_; }
    int64_t columns() const { return columns_; }
    int64_t padded_rows() const { return n_panels_ * panel_; }
    int64_t n_panels() const { return n_panels_; }
    // y (M, padded_rows()) = or += x W'; each thread takes its share of the rows of W.
    void product(const Stripes& x, float* y, int64_t y_stride, bool add, int threads) const;
    // The same for the rows from `first` panel on: y begins there.
    void product_part(const Stripes& x, int64_t first, int64_t count, float* y, int64_t y_stride) const;
    // Row number `row` as it was given.
    void copy_row(int64_t row, float* out) const;

  private:
    std::vector<float> values_;
    int64_t n_ = 0, columns_ = 0, panel_ = 1, n_panels_ = 0;
};

}  // namespace karui
