// Sums and updates of the rows of a table that a step touched. See ops/row_update/README.md.
// M gradient rows with repeated ids, R distinct ids, H values a row.
#pragma once
#include <cstdint>

namespace karui {

// Rows sorted by id: distinct[r] comes at places order[starts[r]..starts[r + 1]), in the order in which they came.
struct RowGroups {
    int64_t* distinct;  // (R), room for M
    int64_t* starts;    // (R + 1), room for M + 1
    int64_t* order;     // (M)
};

// Returns R.
int64_t group_rows(int64_t M, const int64_t* ids, const RowGroups& groups);

struct RowSizes {
    int64_t R, H;
    int threads;
};

// Values come in parts, each (sizes[p], H) contiguous; a place counts through all of them.
template <typename R>
struct RowParts {
    int64_t parts;
    const R* const* values;
    const int64_t* sizes;
};

struct AdagradRule {
    double lr, eps;
};

template <typename R>
struct AdagradTable {
    R* weight;          // (V, H)
    R* sum_of_squares;  // (V)
};

struct RowUpdateTable {
    // total (R, H) = sums of the rows of each distinct id.
    void (*sum_f32)(const RowSizes&, const RowGroups&, const RowParts<float>&, float* total);
    void (*sum_f64)(const RowSizes&, const RowGroups&, const RowParts<double>&, double* total);
    // Row-wise Adagrad with those sums, which are never written.
    void (*adagrad_f32)(const RowSizes&, const RowGroups&, const RowParts<float>&, const AdagradRule&,
                        const AdagradTable<float>&);
    void (*adagrad_f64)(const RowSizes&, const RowGroups&, const RowParts<double>&, const AdagradRule&,
                        const AdagradTable<double>&);
};

namespace generic { extern const RowUpdateTable row_update_table; }
namespace avx2 { extern const RowUpdateTable row_update_table; }
namespace avx512 { extern const RowUpdateTable row_update_table; }

}  // namespace karui
