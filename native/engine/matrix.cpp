#include "engine/matrix.hpp"

#include <algorithm>

#include "isa.hpp"

namespace karui {

const MatrixTable& matrix_table() { return KARUI_TABLE(matrix_table); }

void Stripes::pack(const float* x, int64_t M, int64_t columns, int64_t stride) {
    const int64_t tile = matrix_table().tile_rows;
    M_ = M;
    columns_ = columns;
    values_.resize(size_t((M + tile - 1) / tile * tile * columns));
    matrix_table().pack_stripes(x, M, columns, stride, values_.data());
}

PackedMatrix::PackedMatrix(const float* rows, int64_t n, int64_t columns) : n_(n), columns_(columns), panel_(matrix_table().panel) {
    n_panels_ = (n + panel_ - 1) / panel_;
    values_.resize(size_t(n_panels_ * panel_ * columns));
    matrix_table().pack(rows, n, columns, values_.data());
}

void PackedMatrix::product_part(const Stripes& x, int64_t first, int64_t count, float* y, int64_t y_stride) const {
    matrix_table().product(x.data(), x.rows(), columns_, values_.data() + first * panel_ * columns_, count, y, y_stride, false);
}

void PackedMatrix::product(const Stripes& x, float* y, int64_t y_stride, bool add, int threads) const {
    auto share = [&](int64_t first, int64_t end) {
        matrix_table().product(x.data(), x.rows(), columns_, values_.data() + first * panel_ * columns_, end - first, y + first * panel_, y_stride, add);
    };
    if (threads < 2 || n_panels_ < 2 * threads) {
        share(0, n_panels_);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int part = 0; part < threads; ++part) share(n_panels_ * part / threads, n_panels_ * (part + 1) / threads);
}

void PackedMatrix::copy_row(int64_t row, float* out) const {
    const float* from = values_.data() + row / panel_ * panel_ * columns_ + row % panel_;
    for (int64_t k = 0; k < columns_; ++k) out[k] = from[k * panel_];
}

}  // namespace karui
