// The matrix product that the compiled layers share: a tile of C in registers, operands packed beforehand.
//
// A panel is `panel` columns (two vectors) of a matrix, row after row: (rows, panel), contiguous. Packed matrices are
// panels one after the other, zero in the columns that the matrix lacks. See ops/simple_recurrence/README.md.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace karui {
namespace KARUI_ISA {

// Rows of a tile: as many as leave registers for one row of B and one number of A.
#if defined(__AVX512F__)
constexpr int64_t vector_bytes = 64, tile_rows = 14;
#elif defined(__AVX2__)
constexpr int64_t vector_bytes = 32, tile_rows = 6;
#else
constexpr int64_t vector_bytes = 16, tile_rows = 6;
#endif

template <typename R>
constexpr int64_t lanes = vector_bytes / static_cast<int64_t>(sizeof(R));
template <typename R>
constexpr int64_t panel = 2 * lanes<R>;

template <typename R>
constexpr int64_t panels_of(int64_t columns) {
    return (columns + panel<R> - 1) / panel<R>;
}

template <typename R>
struct Vector {
    typedef R type __attribute__((vector_size(vector_bytes), aligned(sizeof(R)), may_alias));
};

// What a tile sums over: `panels` stretches of `inner` terms; A moves on by a_stride a stretch, B is contiguous.
struct Terms {
    int64_t panels, inner, a_stride;
};

// C (M, panel) = or += A B, where A(m, k) stands at a[m * am + k * ak] of its stretch and B is a panel (terms, panel);
// with vectors = 1 only the first half of the panels of B and C.
template <typename R, int M, int am, int ak, int vectors>
static void tile_product(const Terms& terms, const R* a, const R* b, R* c, int64_t c_stride, bool add) {
    using V = typename Vector<R>::type;
    V sum[M][vectors];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
            sum[m][v] = V{};
            __builtin_prefetch(c + m * c_stride + v * lanes<R>, 1);
        }
    for (int64_t p = 0; p < terms.panels; ++p) {
        const R* from = a + p * terms.a_stride;
        for (int64_t k = 0; k < terms.inner; ++k, b += panel<R>) {
            V row[vectors];
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) row[v] = *reinterpret_cast<const V*>(b + v * lanes<R>);
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m) {
                const R x = from[m * am + k * ak];
#pragma GCC unroll 2
                for (int v = 0; v < vectors; ++v) sum[m][v] += x * row[v];
            }
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
            V* const to = reinterpret_cast<V*>(c + m * c_stride + v * lanes<R>);
            *to = add ? *to + sum[m][v] : sum[m][v];
        }
}

template <typename R>
using TileProduct = void (*)(const Terms&, const R* a, const R* b, R* c, int64_t c_stride, bool add);

template <typename R, int am, int ak, int vectors, int... M>
static constexpr std::array<TileProduct<R>, sizeof...(M)> tile_products(std::integer_sequence<int, M...>) {
    return {tile_product<R, M + 1, am, ak, vectors>...};
}

// For `rows` of a tile, and the columns of its panel that are wanted: half of it, or all.
template <typename R, int am, int ak>
static inline TileProduct<R> tile_product_of(int64_t rows, int64_t columns) {
    constexpr auto all = std::make_integer_sequence<int, static_cast<int>(tile_rows)>();
    static constexpr auto halves = tile_products<R, am, ak, 1>(all), wholes = tile_products<R, am, ak, 2>(all);
    return (columns <= lanes<R> ? halves : wholes)[static_cast<size_t>(rows - 1)];
}

// A in panels, summed along their columns: the product of `rows` <= tile_rows rows of A.
template <typename R>
static inline TileProduct<R> along_columns(int64_t rows, int64_t columns = panel<R>) {
    return tile_product_of<R, panel<R>, 1>(rows, columns);
}

// A in stripes of tile_rows columns (`pack_stripe`), summed along their rows: A' B for `rows` <= tile_rows columns of A.
template <typename R>
static inline TileProduct<R> along_rows(int64_t rows, int64_t columns = panel<R>) {
    return tile_product_of<R, 1, tile_rows>(rows, columns);
}

// Even cuts of `total` into `count` parts; part i is [begin(i), begin(i + 1)).
struct Cut {
    int64_t total, count;
    Cut(int64_t total_, int64_t count_) : total(total_), count(count_) {}
    static Cut into_tiles(int64_t rows) { return Cut(rows, (rows + tile_rows - 1) / tile_rows); }
    int64_t begin(int64_t i) const { return total * i / count; }
    int64_t size(int64_t i) const { return begin(i + 1) - begin(i); }
};

// Copies `n` <= panel numbers and fills up with zeros.
template <typename R>
static inline void copy_into_panel(const R* from, int64_t n, R* to) {
    if (n == panel<R>) {
        std::memcpy(to, from, panel<R> * sizeof(R));
    } else {
        std::copy(from, from + n, to);
        std::fill(to + n, to + panel<R>, R(0));
    }
}

// Whole rows (rows, columns) to panels, `between` rows of a panel apart; `to` is where the first row stands in the first.
template <typename R>
static inline void pack_panels(const R* from, int64_t rows, int64_t columns, R* to, int64_t between) {
    constexpr int64_t width = panel<R>;
    for (int64_t r = 0; r < rows; ++r, from += columns, to += width)
        for (int64_t i = 0; i < panels_of<R>(columns); ++i)
            copy_into_panel(from + i * width, std::min(width, columns - i * width), to + i * between * width);
}

// Rows (rows, stripe <= tile_rows) of a matrix with rows of `stride` numbers to (rows, tile_rows).
template <typename R>
static inline void pack_stripe(const R* from, int64_t stride, int64_t rows, int64_t columns, R* to) {
    if (columns == tile_rows) {
        for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * tile_rows, from + r * stride, tile_rows * sizeof(R));
    } else {
        for (int64_t r = 0; r < rows; ++r) std::copy(from + r * stride, from + r * stride + columns, to + r * tile_rows);
    }
}

// Whole rows (rows, columns) to one stripe after the other, `between` rows of a stripe apart.
template <typename R>
static inline void pack_stripes(const R* from, int64_t columns, int64_t rows, R* to, int64_t between) {
    for (int64_t r = 0; r < rows; ++r, from += columns, to += tile_rows) {
        R* here = to;
        int64_t i = 0;
        for (; i + tile_rows <= columns; i += tile_rows, here += between * tile_rows)
            std::memcpy(here, from + i, tile_rows * sizeof(R));
        std::copy(from + i, from + columns, here);
    }
}

template <typename R, int64_t apart, bool is_upper, size_t... j>
static inline typename Vector<R>::type exchange(typename Vector<R>::type a, typename Vector<R>::type b,
                                                std::index_sequence<j...>) {
    constexpr auto take = [](int64_t at) {
        const bool is_first = !(at & apart);
        return is_upper ? (is_first ? at + apart : at + lanes<R>) : (is_first ? at : at + lanes<R> - apart);
    };
#if defined(__clang__)
    return __builtin_shufflevector(a, b, take(j)...);
#else
    using Whole = std::conditional_t<sizeof(R) == 4, int32_t, int64_t>;
    return __builtin_shuffle(a, b, typename Vector<Whole>::type{static_cast<Whole>(take(j))...});
#endif
}

// The rows of a square in registers, turned into its columns: halves, quarters, ... are exchanged.
template <typename R, int64_t apart = lanes<R> / 2>
static inline void turn_square(typename Vector<R>::type* rows) {
    using Each = std::make_index_sequence<static_cast<size_t>(lanes<R>)>;
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes<R>; ++i) {
        if (i & apart) continue;
        const auto upper = rows[i], lower = rows[i + apart];
        rows[i] = exchange<R, apart, false>(upper, lower, Each{});
        rows[i + apart] = exchange<R, apart, true>(upper, lower, Each{});
    }
    if constexpr (apart > 1) turn_square<R, apart / 2>(rows);
}

// n <= panel rows (n, columns) of a matrix to the transposed panel (padded, panel), zero where the matrix ends.
template <typename R>
static inline void pack_transposed(const R* from, int64_t n, int64_t columns, int64_t padded, R* to) {
    using V = typename Vector<R>::type;
    constexpr int64_t side = lanes<R>;
    const int64_t whole = n == panel<R> ? columns - columns % side : 0;
    for (int64_t k = 0; k < whole; k += side)
        for (int64_t j = 0; j < panel<R>; j += side) {
            V rows[side];
#pragma GCC unroll 16
            for (int64_t i = 0; i < side; ++i) rows[i] = *reinterpret_cast<const V*>(from + (j + i) * columns + k);
            turn_square<R>(rows);
#pragma GCC unroll 16
            for (int64_t i = 0; i < side; ++i) *reinterpret_cast<V*>(to + (k + i) * panel<R> + j) = rows[i];
        }
    constexpr int64_t few = 16;
    for (int64_t k0 = whole; k0 < columns; k0 += few) {
        const int64_t k1 = std::min(columns, k0 + few);
        for (int64_t j = 0; j < n; ++j)
            for (int64_t k = k0; k < k1; ++k) to[k * panel<R> + j] = from[j * columns + k];
    }
    for (int64_t k = 0; k < columns; ++k) std::fill(to + k * panel<R> + n, to + (k + 1) * panel<R>, R(0));
    std::fill(to + columns * panel<R>, to + padded * panel<R>, R(0));
}

// The reverse: a panel (columns, panel) to n <= panel rows (n, columns).
template <typename R>
static inline void unpack_transposed(const R* from, int64_t n, int64_t columns, R* to) {
    constexpr int64_t few = 16;
    for (int64_t k0 = 0; k0 < columns; k0 += few) {
        const int64_t k1 = std::min(columns, k0 + few);
        for (int64_t j = 0; j < n; ++j)
            for (int64_t k = k0; k < k1; ++k) to[j * columns + k] = from[k * panel<R> + j];
    }
}

}  // namespace KARUI_ISA
}  // namespace karui
