#include "kernels/row_update.hpp"

#include <cmath>
#include <vector>

namespace karui {
namespace KARUI_ISA {

// The row at a place, counted through all parts.
template <typename R>
static inline const R* row_at(const RowParts<R>& parts, int64_t place, int64_t H) {
    int64_t p = 0;
    while (p + 1 < parts.parts && place >= parts.sizes[p]) place -= parts.sizes[p++];
    return parts.values[p] + place * H;
}

template <typename R>
static inline void add_up(const RowGroups& groups, const RowParts<R>& parts, int64_t r, int64_t H, R* __restrict total) {
    const int64_t first = groups.starts[r], end = groups.starts[r + 1];
    const R* __restrict row = row_at(parts, groups.order[first], H);
    for (int64_t h = 0; h < H; ++h) total[h] = row[h];
    for (int64_t m = first + 1; m < end; ++m) {
        row = row_at(parts, groups.order[m], H);
        for (int64_t h = 0; h < H; ++h) total[h] += row[h];
    }
}

template <typename R>
static void sum(const RowSizes& s, const RowGroups& groups, const RowParts<R>& parts, R* total) {
#pragma omp parallel for schedule(static) num_threads(s.threads) if (s.threads > 1 && s.R > 64)
    for (int64_t r = 0; r < s.R; ++r) add_up(groups, parts, r, s.H, total + r * s.H);
}

template <typename R>
static void adagrad(const RowSizes& s, const RowGroups& groups, const RowParts<R>& parts, const AdagradRule& rule,
                    const AdagradTable<R>& table) {
    const int64_t H = s.H;
    constexpr int64_t ahead = 4, line = 64 / static_cast<int64_t>(sizeof(R));
#pragma omp parallel num_threads(s.threads) if (s.threads > 1 && s.R > 64)
    {
        std::vector<R> own(static_cast<size_t>(H));
        R* __restrict g = own.data();
#pragma omp for schedule(static)
        for (int64_t r = 0; r < s.R; ++r) {
            if (r + ahead < s.R) {  // rows lie anywhere in the table: the next ones are fetched meanwhile
                const int64_t next = groups.distinct[r + ahead];
                for (int64_t h = 0; h < H && h < 8 * line; h += line) __builtin_prefetch(table.weight + next * H + h, 1);
                __builtin_prefetch(table.sum_of_squares + next, 1);
            }
            add_up(groups, parts, r, H, g);
            R squares = R(0);
#pragma omp simd reduction(+ : squares)
            for (int64_t h = 0; h < H; ++h) squares += g[h] * g[h];
            const int64_t row = groups.distinct[r];
            const R a = table.sum_of_squares[row] + squares / static_cast<R>(H);
            table.sum_of_squares[row] = a;
            const R step = static_cast<R>(rule.lr) / (std::sqrt(a) + static_cast<R>(rule.eps));
            R* __restrict w = table.weight + row * H;
            for (int64_t h = 0; h < H; ++h) w[h] -= step * g[h];
        }
    }
}

extern const RowUpdateTable row_update_table;
const RowUpdateTable row_update_table = {sum<float>, sum<double>, adagrad<float>, adagrad<double>};

}  // namespace KARUI_ISA
}  // namespace karui
