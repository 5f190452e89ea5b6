// Strips of 16 panels of the input's columns and one panel of the weight's rows (forward, gradient of the input) or one
// stripe of them (gradients of weight and gates): what is drawn or multiplied for a strip stays in the second cache.
#include "kernels/drawn_linear.hpp"

#include <memory>
#include <vector>

#include "kernels/gemm.hpp"
#include "kernels/hard_concrete_gates.hpp"

namespace karui {
namespace KARUI_ISA {

constexpr int64_t panels_at_once = 16;

template <typename R>
static inline int64_t panels_of(int64_t columns) {
    return (columns + panel<R> - 1) / panel<R>;
}

// Even runs of panels, at most panels_at_once each.
static inline Cut into_strips(int64_t panels) { return Cut(panels, (panels + panels_at_once - 1) / panels_at_once); }

template <typename R>
using Room = std::unique_ptr<R[]>;

// Left as it is: all of it is written before it is read.
template <typename R>
static Room<R> room_for(int64_t numbers) {
    return Room<R>(new R[static_cast<size_t>(numbers)]);
}

// What is read or written next comes into the cache while a tile is multiplied, which leaves memory idle.
template <typename R, bool is_written = false>
static inline void fetch_panel(const R* from) {
    __builtin_prefetch(from, is_written, 2);
    __builtin_prefetch(from + lanes<R>, is_written, 2);
}

// A matrix (rows, columns) in panels (rows, panel), one after the other.
template <typename R>
static void pack_panels(const R* from, int64_t rows, int64_t columns, R* to) {
    constexpr int64_t width = panel<R>;
    const int64_t panels = panels_of<R>(columns);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < panels; ++i)
            copy_into_panel(from + r * columns + i * width, std::min(width, columns - i * width), to + (i * rows + r) * width);
}

// C (rows, columns <= panel) of `stride` += A B, A in panels of `rows` rows from `a` on; before each tile, `meanwhile` of
// its number and of the number of tiles.
template <typename R, typename Meanwhile>
static void add_product(const Terms& terms, const R* a, int64_t rows, const R* b, R* c, int64_t columns, int64_t stride,
                        Meanwhile meanwhile) {
    constexpr int64_t width = panel<R>;
    const Cut tiles = Cut::into_tiles(rows);
    for (int64_t tile = 0; tile < tiles.count; ++tile) {
        meanwhile(tile, tiles.count);
        const int64_t first = tiles.begin(tile), size = tiles.size(tile);
        R* const to = c + first * stride;
        if (columns == width) {
            along_columns<R>(size)(terms, a + first * width, b, to, stride, true);
            continue;
        }
        R local[tile_rows * width];
        along_columns<R>(size, columns)(terms, a + first * width, b, local, width, false);
        for (int64_t r = 0; r < size; ++r)
            for (int64_t j = 0; j < columns; ++j) to[r * stride + j] += local[r * width + j];
    }
}

template <typename R>
static double forward(const DrawnLinearSizes& s, uint64_t seed, const HardConcreteLaw& given, const DrawnLinearForward<R>& a) {
    constexpr int64_t width = panel<R>;
    const Law<R> law(given);
    const int64_t inputs = panels_of<R>(s.C), outputs = panels_of<R>(s.R);
    const Cut strips = into_strips(inputs);
    const Room<R> input = room_for<R>(inputs * s.N * width);
    pack_panels(a.input, s.N, s.C, input.get());
    std::vector<double> sums(static_cast<size_t>(outputs));
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
        constexpr int64_t most = panels_at_once * width;
        const Room<R> room = room_for<R>(2 * most * width);
        R *const drawn = room.get(), *const turned = drawn + most * width;
#pragma omp for schedule(static)
        for (int64_t q = 0; q < outputs; ++q) {
            const int64_t r0 = q * width, rows = std::min(width, s.R - r0);
            for (int64_t n = 0; n < s.N; ++n) {
                R* const to = a.output + n * s.R + r0;
                if (a.bias) std::copy(a.bias + r0, a.bias + r0 + rows, to);
                else std::fill(to, to + rows, R(0));
            }
            double sum = 0.0;
            for (int64_t k = 0; k < strips.count; ++k) {
                const int64_t first = strips.begin(k), c0 = first * width, padded = strips.size(k) * width;
                const int64_t columns = std::min(padded, s.C - c0);
                for (int64_t r = 0; r < rows; ++r) {
                    const int64_t at = (r0 + r) * s.C + c0;
                    sum += draw_gates<R>(law, seed, at, columns, {a.log_alpha + at, a.weight + at, a.gate + at, drawn + r * columns});
                }
                pack_transposed(drawn, rows, columns, padded, turned);
                const bool is_last = k + 1 == strips.count;
                const int64_t next_row = is_last ? r0 + width : r0, next = is_last ? 0 : k + 1;
                add_product<R>({strips.size(k), width, s.N * width}, input.get() + first * s.N * width, s.N, turned,
                               a.output + r0, rows, s.R, [&](int64_t tile, int64_t tiles) {
                                   const int64_t last = std::min(next_row + width * (tile + 1) / tiles, s.R);
                                   for (int64_t r = next_row + width * tile / tiles; r < last; ++r)
                                       for (int64_t i = 0; i < strips.size(next); ++i) {
                                           const int64_t at = r * s.C + (strips.begin(next) + i) * width;
                                           fetch_panel(a.log_alpha + at);
                                           fetch_panel(a.weight + at);
                                           fetch_panel<R, true>(a.gate + at);
                                       }
                               });
            }
            sums[static_cast<size_t>(q)] = sum;
        }
    }
    double total = 0.0;
    for (const double sum : sums) total += sum;
    return total;
}

// Gradients of weight and gates: G = grad' input, a stripe of rows at a time.
template <typename R>
static void backward_of_weight(const DrawnLinearSizes& s, const HardConcreteLaw& given, const DrawnLinearBackward<R>& a) {
    constexpr int64_t width = panel<R>;
    const Law<R> law(given);
    const int64_t inputs = panels_of<R>(s.C), stripes = (s.R + tile_rows - 1) / tile_rows;
    const Cut strips = into_strips(inputs);
    const Room<R> input = room_for<R>(inputs * s.N * width), grad = room_for<R>(stripes * s.N * tile_rows);
    pack_panels(a.input, s.N, s.C, input.get());
    pack_stripes(a.grad, s.R, s.N, grad.get(), s.N);
    const auto run = gradient_of<R>(law, {a.grad, a.weight, a.gate, a.log_alpha, a.grad_weight, a.grad_log_alpha, a.scale});
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
        constexpr int64_t most = panels_at_once * width;
        const Room<R> product = room_for<R>(tile_rows * most);
#pragma omp for schedule(static)
        for (int64_t q = 0; q < stripes; ++q) {
            const int64_t r0 = q * tile_rows, rows = std::min(tile_rows, s.R - r0);
            for (int64_t k = 0; k < strips.count; ++k) {
                const int64_t first = strips.begin(k), c0 = first * width;
                const int64_t columns = std::min(strips.size(k) * width, s.C - c0);
                for (int64_t i = 0; i < strips.size(k); ++i) {
                    for (int64_t r = 0; r < rows; ++r) {
                        const int64_t at = (r0 + r) * s.C + c0 + i * width;
                        fetch_panel(a.weight + at);
                        fetch_panel(a.gate + at);
                        fetch_panel(a.log_alpha + at);
                        fetch_panel<R, true>(a.grad_weight + at);
                        fetch_panel<R, true>(a.grad_log_alpha + at);
                    }
                    along_rows<R>(rows, columns - i * width)({1, s.N, 0}, grad.get() + q * s.N * tile_rows,
                                                             input.get() + (first + i) * s.N * width,
                                                             product.get() + i * width, most, false);
                }
                for (int64_t r = 0; r < rows; ++r) {
                    const int64_t at = (r0 + r) * s.C + c0;
                    run(law, 0, columns, {product.get() + r * most, a.weight + at, a.gate + at, a.log_alpha + at,
                                          a.grad_weight + at, a.grad_log_alpha + at, a.scale});
                }
            }
        }
    }
}

// Gradient of the input: grad (weight * gate), a panel of the input's columns at a time.
template <typename R>
static void backward_of_input(const DrawnLinearSizes& s, const DrawnLinearBackward<R>& a) {
    constexpr int64_t width = panel<R>;
    const int64_t outputs = panels_of<R>(s.R);
    const Cut strips = into_strips(outputs);
    const Room<R> grad = room_for<R>(outputs * s.N * width);
    pack_panels(a.grad, s.N, s.R, grad.get());
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
        const Room<R> drawn = room_for<R>(panels_at_once * width * width);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < panels_of<R>(s.C); ++i) {
            const int64_t c0 = i * width, columns = std::min(width, s.C - c0);
            for (int64_t n = 0; n < s.N; ++n) std::fill(a.grad_input + n * s.C + c0, a.grad_input + n * s.C + c0 + columns, R(0));
            for (int64_t k = 0; k < strips.count; ++k) {
                const int64_t first = strips.begin(k), r0 = first * width, padded = strips.size(k) * width;
                const int64_t rows = std::min(padded, s.R - r0);
                std::fill(drawn.get(), drawn.get() + padded * width, R(0));
                for (int64_t r = 0; r < rows; ++r) {
                    const R* __restrict weight = a.weight + (r0 + r) * s.C + c0;
                    const R* __restrict gate = a.gate + (r0 + r) * s.C + c0;
                    R* __restrict to = drawn.get() + r * width;
                    for (int64_t c = 0; c < columns; ++c) to[c] = weight[c] * gate[c];
                }
                add_product<R>({strips.size(k), width, s.N * width}, grad.get() + first * s.N * width, s.N, drawn.get(),
                               a.grad_input + c0, columns, s.C, [](int64_t, int64_t) {});
            }
        }
    }
}

template <typename R>
static void backward_of_bias(const DrawnLinearSizes& s, const DrawnLinearBackward<R>& a) {
    R* __restrict to = a.grad_bias;
    std::fill(to, to + s.R, R(0));
    for (int64_t n = 0; n < s.N; ++n) {
        const R* __restrict grad = a.grad + n * s.R;
        for (int64_t r = 0; r < s.R; ++r) to[r] += grad[r];
    }
}

template <typename R>
static void backward(const DrawnLinearSizes& s, const HardConcreteLaw& law, const DrawnLinearBackward<R>& a) {
    if (a.grad_bias) backward_of_bias(s, a);
    backward_of_weight(s, law, a);
    if (a.grad_input) backward_of_input(s, a);
}

template <typename R>
static constexpr DrawnLinearFunctions<R> functions() {
    return {forward<R>, backward<R>};
}

extern const DrawnLinearTable drawn_linear_table;
const DrawnLinearTable drawn_linear_table = {functions<float>(), functions<double>()};

}  // namespace KARUI_ISA
}  // namespace karui
