// Strips of 16 panels of the input's columns and one panel of the weight's rows (forward, gradient of the input) or one
// tile of them (gradients of weight and gates): what is drawn or multiplied for a strip stays in the second cache.
#include "kernels/drawn_linear.hpp"

#include <vector>

#include "kernels/gemm.hpp"
#include "kernels/hard_concrete_gates.hpp"

namespace karui {
namespace KARUI_ISA {

constexpr int64_t panels_at_once = 16;

// Even runs of panels, at most panels_at_once each.
static inline Cut into_strips(int64_t panels) { return Cut(panels, (panels + panels_at_once - 1) / panels_at_once); }

// What is read or written next comes into the cache while a tile is multiplied, which leaves memory idle.
template <typename R, bool is_written = false>
static inline void fetch_panel(const R* from) {
    __builtin_prefetch(from, is_written, 2);
    __builtin_prefetch(from + lanes<R>, is_written, 2);
}

// A matrix (rows, columns) in panels (rows, panel), one after the other.
template <typename R>
static Room<R> in_panels(const R* from, int64_t rows, int64_t columns) {
    Room<R> to = room_for<R>(panels_of<R>(columns) * rows * panel<R>);
    pack_panels(from, rows, columns, to.get(), rows);
    return to;
}

// C (rows, columns <= panel) of `stride` += A B over `terms`, A in panels of `rows` rows from `a` on; before each tile,
// `meanwhile` of its number and of the number of tiles.
template <typename R, typename Meanwhile>
static void add_product(int64_t terms, const R* a, int64_t rows, const R* b, R* c, int64_t columns, int64_t stride,
                        Meanwhile meanwhile) {
    constexpr int64_t width = panel<R>;
    const Terms whole{terms / width, width, rows * width}, rest{1, terms % width, 0};
    const Cut tiles = Cut::into_tiles(rows);
    for (int64_t tile = 0; tile < tiles.count; ++tile) {
        meanwhile(tile, tiles.count);
        const int64_t first = tiles.begin(tile), size = tiles.size(tile);
        const auto run = [&](R* to, int64_t to_stride, bool add) {
            const auto product = along_columns<R>(size, columns);
            const R* from = a + first * width;
            product(whole, from, b, to, to_stride, add);
            if (rest.inner) product(rest, from + whole.panels * rows * width, b + whole.panels * width * width, to, to_stride, true);
        };
        R* const to = c + first * stride;
        if (columns == width) {
            run(to, stride, true);
            continue;
        }
        R local[tile_rows * width];
        run(local, width, false);
        for (int64_t r = 0; r < size; ++r)
            for (int64_t j = 0; j < columns; ++j) to[r * stride + j] += local[r * width + j];
    }
}

template <typename R>
static void begin_with_bias(const DrawnLinearSizes& s, const R* bias, R* output, int64_t r0, int64_t rows) {
    for (int64_t n = 0; n < s.N; ++n) {
        R* const to = output + n * s.R + r0;
        if (bias) std::copy(bias + r0, bias + r0 + rows, to);
        else std::fill(to, to + rows, R(0));
    }
}

// A thread more for each half a million products: fewer take less time than threads to wake.
static inline DrawnLinearSizes with_few_threads(DrawnLinearSizes s) {
    s.threads = static_cast<int>(std::min<int64_t>(s.threads, 1 + s.N * s.C * s.R / (int64_t(1) << 19)));
    return s;
}

template <typename R>
static double forward(const DrawnLinearSizes& sizes, uint64_t seed, const HardConcreteLaw& given, const DrawnLinearForward<R>& a) {
    constexpr int64_t width = panel<R>, most = panels_at_once * width;
    static_assert(32 % width == 0, "a.panels has room for columns rounded up to 32");
    const DrawnLinearSizes s = with_few_threads(sizes);
    const Law<R> law(given);
    const int64_t inputs = panels_of<R>(s.C), outputs = panels_of<R>(s.R);
    const Cut strips = into_strips(inputs);
    const bool by_element = s.by_element();
    const double all = by_element ? 0.0
                                  : draw_all<R>(law, s.threads, seed, s.down() * s.across(), {a.log_alpha, nullptr, a.gate, nullptr});
    pack_panels(a.input, s.N, s.C, a.panels, s.N);
    std::vector<double> sums(static_cast<size_t>(outputs));
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
        const Room<R> room = room_for<R>(2 * most * width);
        R *const drawn = room.get(), *const turned = drawn + most * width;
        GateRows<R> gates(a.gate, s.C, s.height, s.width, most);
#pragma omp for schedule(static)
        for (int64_t q = 0; q < outputs; ++q) {
            const int64_t r0 = q * width, rows = std::min(width, s.R - r0);
            begin_with_bias(s, a.bias, a.output, r0, rows);
            double sum = 0.0;
            for (int64_t k = 0; k < strips.count; ++k) {
                const int64_t first = strips.begin(k), c0 = first * width;
                const int64_t columns = std::min(strips.size(k) * width, s.C - c0);
                for (int64_t r = 0; r < rows; ++r) {
                    const int64_t at = (r0 + r) * s.C + c0;
                    R* const to = drawn + r * columns;
                    if (by_element) sum += draw_gates<R>(law, seed, at, columns, {a.log_alpha + at, a.weight + at, a.gate + at, to});
                    else multiply(a.weight + at, gates.at(r0 + r, c0, columns), to, columns);
                }
                pack_transposed(drawn, rows, columns, columns, turned);
                const bool is_last = k + 1 == strips.count;
                const int64_t next_row = is_last ? r0 + width : r0, next = is_last ? 0 : k + 1;
                add_product<R>(columns, a.panels + first * s.N * width, s.N, turned,
                               a.output + r0, rows, s.R, [&](int64_t tile, int64_t tiles) {
                                   const int64_t last = std::min(next_row + width * (tile + 1) / tiles, s.R);
                                   for (int64_t r = next_row + width * tile / tiles; r < last; ++r)
                                       for (int64_t i = 0; i < strips.size(next); ++i) {
                                           const int64_t at = r * s.C + (strips.begin(next) + i) * width;
                                           fetch_panel(a.weight + at);
                                           if (!by_element) continue;
                                           fetch_panel(a.log_alpha + at);
                                           fetch_panel<R, true>(a.gate + at);
                                       }
                               });
            }
            sums[static_cast<size_t>(q)] = sum;
        }
    }
    return by_element ? total_of(sums) : all;
}

// The rows of the weight in bands whose gradients are found in one go: a row of blocks, or, with a gate an element, a tile.
struct Bands {
    int64_t R, height, count, tiles;
    explicit Bands(const DrawnLinearSizes& s)
        : R(s.R), height(s.by_element() ? tile_rows : s.height), count((R + height - 1) / height),
          tiles(Cut::into_tiles(std::min(height, R)).count) {}
    int64_t begin(int64_t band) const { return std::min(R, band * height); }
    Cut cut(int64_t band) const { return Cut::into_tiles(begin(band + 1) - begin(band)); }
};

// The columns of grad (N, R) in stripes (N, tile_rows), one a tile, bands.tiles a band.
template <typename R>
static void pack_bands(const Bands& bands, const R* grad, int64_t N, R* to) {
    for (int64_t band = 0; band < bands.count; ++band) {
        const Cut cut = bands.cut(band);
        for (int64_t tile = 0; tile < cut.count; ++tile)
            pack_stripe(grad + bands.begin(band) + cut.begin(tile), bands.R, N, cut.size(tile),
                        to + (band * bands.tiles + tile) * N * tile_rows);
    }
}

// Gradients of weight and gates, G = grad' input: of log alpha with a gate an element, else of_gate (down, across).
template <typename R>
static void backward_of_weight(const DrawnLinearSizes& s, const Law<R>& law, const DrawnLinearBackward<R>& a, R* of_gate) {
    constexpr int64_t width = panel<R>, most = panels_at_once * width;
    const Bands bands(s);
    const int64_t inputs = panels_of<R>(s.C);
    const Cut strips = into_strips(inputs);
    const int64_t parts = s.width == 1 ? strips.count : 1;  // a block of several columns may lie in two strips
    const Room<R> grad = room_for<R>(bands.count * bands.tiles * s.N * tile_rows);
    pack_bands(bands, a.grad, s.N, grad.get());
    const auto run = gradient_of<R>(law, {a.grad, a.weight, a.gate, a.log_alpha, a.grad_weight, a.gate, a.scale});
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
        const Room<R> product = room_for<R>(tile_rows * most), total = room_for<R>(of_gate ? inputs * width : 0);
        GateRows<R> gates(a.gate, s.C, s.height, s.width, most);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < bands.count * parts; ++task) {
            const int64_t band = task / parts, part = task % parts;
            const Cut tiles = bands.cut(band);
            if (of_gate) std::fill(total.get(), total.get() + inputs * width, R(0));
            for (int64_t k = part; k < (parts == 1 ? strips.count : part + 1); ++k) {
                const int64_t first = strips.begin(k), c0 = first * width, columns = std::min(strips.size(k) * width, s.C - c0);
                for (int64_t tile = 0; tile < tiles.count; ++tile) {
                    const int64_t r0 = bands.begin(band) + tiles.begin(tile), rows = tiles.size(tile);
                    for (int64_t i = 0; i < strips.size(k); ++i) {
                        for (int64_t r = 0; r < rows; ++r) {
                            const int64_t at = (r0 + r) * s.C + c0 + i * width;
                            fetch_panel(a.weight + at);
                            fetch_panel<R, true>(a.grad_weight + at);
                            if (of_gate) continue;
                            fetch_panel(a.log_alpha + at);
                            fetch_panel<R, true>(a.gate + at);
                        }
                        along_rows<R>(rows, columns - i * width)({1, s.N, 0}, grad.get() + (band * bands.tiles + tile) * s.N * tile_rows,
                                                                 a.panels + (first + i) * s.N * width,
                                                                 product.get() + i * width, most, false);
                    }
                    for (int64_t r = 0; r < rows; ++r) {
                        const int64_t at = (r0 + r) * s.C + c0;
                        if (of_gate)
                            add_gradients(product.get() + r * most, a.weight + at, gates.at(r0 + r, c0, columns),
                                          a.grad_weight + at, total.get() + c0, columns);
                        else
                            run(law, 0, columns, {product.get() + r * most, a.weight + at, a.gate + at, a.log_alpha + at,
                                                  a.grad_weight + at, a.gate + at, a.scale});
                    }
                }
                if (of_gate && s.width == 1) std::copy(total.get() + c0, total.get() + c0 + columns, of_gate + band * s.C + c0);
            }
            if (!of_gate || s.width == 1) continue;
            for (int64_t j = 0; j < s.across(); ++j) {
                R sum = R(0);
                for (int64_t c = j * s.width; c < std::min(s.C, (j + 1) * s.width); ++c) sum += total[static_cast<size_t>(c)];
                of_gate[band * s.across() + j] = sum;
            }
        }
    }
}

// Gradient of the input: grad (weight * gate), a panel of the input's columns at a time.
template <typename R>
static void backward_of_input(const DrawnLinearSizes& s, const DrawnLinearBackward<R>& a) {
    constexpr int64_t width = panel<R>;
    const Cut strips = into_strips(panels_of<R>(s.R));
    const Room<R> grad = in_panels(a.grad, s.N, s.R);
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
        const Room<R> drawn = room_for<R>(panels_at_once * width * width);
        GateRows<R> gates(a.gate, s.C, s.height, s.width, width);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < panels_of<R>(s.C); ++i) {
            const int64_t c0 = i * width, columns = std::min(width, s.C - c0);
            for (int64_t n = 0; n < s.N; ++n) std::fill(a.grad_input + n * s.C + c0, a.grad_input + n * s.C + c0 + columns, R(0));
            for (int64_t k = 0; k < strips.count; ++k) {
                const int64_t first = strips.begin(k), r0 = first * width;
                const int64_t rows = std::min(strips.size(k) * width, s.R - r0);
                if (columns < width) std::fill(drawn.get(), drawn.get() + rows * width, R(0));
                for (int64_t r = 0; r < rows; ++r)
                    multiply(a.weight + (r0 + r) * s.C + c0, gates.at(r0 + r, c0, columns), drawn.get() + r * width, columns);
                add_product<R>(rows, grad.get() + first * s.N * width, s.N, drawn.get(),
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
static void backward(const DrawnLinearSizes& sizes, const HardConcreteLaw& given, const DrawnLinearBackward<R>& a) {
    const DrawnLinearSizes s = with_few_threads(sizes);
    const Law<R> law(given);
    if (a.grad_bias) backward_of_bias(s, a);
    if (a.grad_input) backward_of_input(s, a);
    if (s.by_element()) return backward_of_weight<R>(s, law, a, nullptr);
    const int64_t units = s.down() * s.across();
    const Room<R> of_gate = room_for<R>(units);
    backward_of_weight(s, law, a, of_gate.get());
    const GateGradient<R> p{of_gate.get(), nullptr, a.gate, a.log_alpha, nullptr, a.gate, a.scale};
    gradient_of(law, p)(law, 0, units, p);
}

template <typename R>
static constexpr DrawnLinearFunctions<R> functions() {
    return {forward<R>, backward<R>};
}

extern const DrawnLinearTable drawn_linear_table;
const DrawnLinearTable drawn_linear_table = {functions<float>(), functions<double>()};

}  // namespace KARUI_ISA
}  // namespace karui
