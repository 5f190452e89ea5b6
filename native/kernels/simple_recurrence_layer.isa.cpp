// Products and scan of a layer, chunk by chunk, so that what lies between them stays in cache. The products of a chunk are
// cut into tiles, the scan into columns (and rows of the batch, where there are few columns); no sum depends on the cut.
#include "kernels/simple_recurrence_layer.hpp"

#include <omp.h>

#include "huge_pages.hpp"
#include "kernels/simple_recurrence_layer_products.hpp"
#include "kernels/simple_recurrence_row.hpp"

namespace karui {
namespace KARUI_ISA {

struct Steps {  // [t0, t1) of the rows [b0, b1) of the batch
    int64_t t0, t1, b0, b1;
    int64_t rows() const { return (t1 - t0) * (b1 - b0); }
};

// A row of a panel for reading: itself where the matrix fills the panel, else a copy with zeros.
template <typename R>
static inline const R* whole(const R* from, int64_t n, R* local) {
    if (n == panel<R>) return from;
    copy_into_panel(from, n, local);
    return local;
}

// Forward: panel p of a chunk. u: the panel's blocks, `stride` apart, overwritten by the gates where they are kept;
// c: states (rows, width), or null; packed: the rows of the skip input where they lie in a panel already, or null.
template <typename R, typename K, bool keep>
static void scan_forward(const LayerPlan<R>& plan, const LayerForward<R>& a, const LayerVectors<R>& v, R alpha, int64_t p,
                         const Steps& steps, R* u, int64_t stride, R* c, const R* packed) {
    constexpr int64_t width = panel<R>;
    const int64_t at = p * width, n = std::min(width, plan.H - at);
    const Gates<R> gates{v.b_f + at, v.b_r + at, v.v_f + at, v.v_r + at};
    R local_x[width], local_h[width];
    int64_t r = 0;
    for (int64_t t = steps.t0; t < steps.t1; ++t) {
        for (int64_t b = steps.b0; b < steps.b1; ++b, ++r) {
            const int64_t cell = t * plan.B + b, of_state = (p * plan.B + b) * width;
            R* const h = a.h + cell * plan.H + at;
            R* const c_t = keep ? c + r * width : nullptr;
            if (a.padding && a.padding[cell]) {
                std::fill(h, h + n, R(0));
                if constexpr (keep) std::memcpy(c_t, v.state + of_state, width * sizeof(R));
                continue;
            }
            R* const u_t = u + r * width;
            const R* x = u_t + 3 * stride;
            if (K::skip == Skip::input) x = packed ? packed + r * width : whole(a.skip + cell * plan.H + at, n, local_x);
            const ForwardRow<R> row{u_t, x, v.state + of_state, c_t, n == width ? h : local_h, u_t + stride, u_t + 2 * stride};
            if (a.dropout_mask)
                forward_row<R, K, true, keep>(width, stride, gates, row, v.mask + of_state, alpha);
            else
                forward_row<R, K, false, keep>(width, stride, gates, row, nullptr, alpha);
            if (n < width) std::copy(local_h, local_h + n, h);
        }
    }
}

template <typename R>
using ForwardScan = decltype(&scan_forward<R, Kind<Skip::none, Activation::identity, true>, false>);

template <typename R>
static void pack_input(const LayerPlan<R>& plan, const R* x, const Steps& steps, int64_t stride, R* to) {
    const int64_t rows = steps.b1 - steps.b0;
    for (int64_t t = steps.t0; t < steps.t1; ++t, to += rows * panel<R>)
        pack_panels(x + (t * plan.B + steps.b0) * plan.I, rows, plan.I, to, stride);
}

// All of time for one group of rows and one range of panels.
template <typename R>
static void forward_task(const LayerPlan<R>& plan, const LayerForward<R>& a, const ForwardScratch<R>& room, R alpha,
                         ForwardScan<R> scan, int64_t task, int64_t own) {
    constexpr int64_t width = panel<R>;
    const int64_t group = task / plan.columns, column = task % plan.columns;
    const int64_t b0 = plan.first_row(group), b1 = plan.first_row(group + 1);
    const int64_t p0 = plan.panels * column / plan.columns, p1 = plan.panels * (column + 1) / plan.columns;
    const int64_t stride = plan.spread(room.steps * (b1 - b0));
    R* const x = room.x + own * room.x_size;
    for (int64_t t0 = 0; t0 < plan.T && b0 < b1; t0 += room.steps) {
        const Steps steps{t0, std::min(plan.T, t0 + room.steps), b0, b1};
        const Cut tiles = Cut::into_tiles(steps.rows());
        pack_input(plan, a.x, steps, stride, x);
        for (int64_t p = p0; p < p1; ++p) {
            R* u = room.u + own * room.u_size;
            int64_t between = stride * width;
            if (a.kept) {
                u = a.kept + plan.kept_at(group, p) + t0 * (b1 - b0) * width;
                between = plan.plane(group);
            }
            for (int64_t g = 0; g < plan.G; ++g) {
                const R* weight = room.weight + (p * plan.G + g) * plan.inputs * width * width;
                for (int64_t i = 0; i < tiles.count; ++i)
                    along_columns<R>(tiles.size(i))({plan.inputs, width, stride * width}, x + tiles.begin(i) * width, weight,
                                                    u + g * between + tiles.begin(i) * width, width, false);
            }
            const R* packed = a.skip == a.x ? x + p * stride * width : nullptr;
            scan(plan, a, room.vectors, alpha, p, steps, u, between, a.kept ? u + plan.G * between : nullptr, packed);
        }
    }
    for (int64_t p = p0; p < p1; ++p) room.vectors.read_state(plan, p, b0, b1, a.c_n);
}

template <typename R>
static void forward(const LayerSizes& s, const LayerForward<R>& a) {
    constexpr int64_t width = panel<R>;
    const LayerPlan<R> plan(s);
    Scratch<R> scratch{a.scratch};
    ForwardScratch<R> room(plan, scratch);
    const R alpha = static_cast<R>(s.scale);
    const auto scan = with_kind(s.G, a.skip != nullptr, s.activation, a.weight_c != nullptr, [&](auto kind) -> ForwardScan<R> {
        if (a.kept) return scan_forward<R, decltype(kind), true>;
        return scan_forward<R, decltype(kind), false>;
    });
    // Only what is used again: where memory lies in pieces, each huge page costs a search for a whole one.
    use_huge_pages(a.kept, plan.kept_size() * static_cast<int64_t>(sizeof(R)));
#pragma omp parallel num_threads(plan.threads) if (plan.threads > 1)
    {
        const int64_t own = omp_get_thread_num(), count = omp_get_num_threads();
        share(plan.panels, own, count, [&](int64_t p) { room.vectors.fill(plan, p, a, a.c_0); });
        share(plan.outputs, own, count, [&](int64_t q) {
            const int64_t p = q / plan.G, first = q % plan.G * plan.H + p * width;
            pack_transposed(a.weight + first * plan.I, std::min(width, plan.H - p * width), plan.I, plan.inputs * width,
                            room.weight + q * plan.inputs * width * width);
        });
#pragma omp barrier
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < plan.tasks(); ++task) forward_task(plan, a, room, alpha, scan, task, own);
    }
}

// Backward: panel p of a chunk, from the last step. u: the panel's kept gates, with c behind them; `before` the states
// before the first step (B, width) or null where they lie before c; gu: the panel's blocks, grad_stride apart.
template <typename R, typename K>
static void scan_backward(const LayerPlan<R>& plan, const LayerBackward<R>& a, const BackwardScratch<R>& room, R alpha,
                          int64_t p, const Steps& steps, const R* u, int64_t stride, const R* before, R* gu, R* grad_skip) {
    constexpr int64_t width = panel<R>;
    const LayerForward<R>& fw = a.forward;
    const LayerVectors<R>& v = room.vectors;
    const int64_t at = p * width, n = std::min(width, plan.H - at), rows = steps.b1 - steps.b0;
    const int64_t grad_stride = room.stride * width;
    const Gates<R> gates{v.b_f + at, v.b_r + at, v.v_f + at, v.v_r + at};
    const R* const c = u + plan.G * stride;
    R local_x[width], local_gh[width], local_gx[width];
    for (int64_t t = steps.t1 - 1; t >= steps.t0; --t) {
        for (int64_t b = steps.b1 - 1; b >= steps.b0; --b) {  // backwards too: addresses only fall, and are foreseen
            const int64_t cell = t * plan.B + b, of_state = (p * plan.B + b) * width;
            const int64_t r = (t - steps.t0) * rows + b - steps.b0;
            R* const gu_t = gu + (plan.apart ? r : (t - steps.t0) * plan.B + b) * width;
            R* const gx = grad_skip ? grad_skip + cell * plan.H + at : nullptr;
            if (fw.padding && fw.padding[cell]) {
                for (int64_t g = 0; g < plan.G; ++g) std::fill(gu_t + g * grad_stride, gu_t + g * grad_stride + width, R(0));
                if (gx) std::fill(gx, gx + n, R(0));
                continue;
            }
            const R* const u_t = u + r * width;
            const R* x = u_t + 3 * stride;
            if (K::skip == Skip::input) x = whole(fw.skip + cell * plan.H + at, n, local_x);
            const R* const old = t == 0 ? before + of_state : c + (r - rows) * width;
            const BackwardRow<R> row{u_t, x, c + r * width, old, whole(a.grad_h + cell * plan.H + at, n, local_gh),
                                     gu_t, gx && n < width ? local_gx : gx, v.state + of_state};
            R* const sum = room.sums + (b / plan.block_rows * plan.panels + p) * 4 * width;
            const Sums<R> sums{sum, sum + width, sum + 2 * width, sum + 3 * width};
            if (fw.dropout_mask)
                backward_row<R, K, true, true>(width, stride, grad_stride, gates, row, v.mask + of_state, alpha, sums);
            else
                backward_row<R, K, false, true>(width, stride, grad_stride, gates, row, nullptr, alpha, sums);
            if (gx && n < width) std::copy(local_gx, local_gx + n, gx);
        }
    }
}

template <typename R>
using BackwardScan = decltype(&scan_backward<R, Kind<Skip::none, Activation::identity, true>>);

template <typename R>
static void backward_scan_task(const LayerPlan<R>& plan, const LayerBackward<R>& a, const BackwardScratch<R>& room, R alpha,
                               BackwardScan<R> scan, int64_t task, int64_t t0, int64_t t1, R* grad_u) {
    constexpr int64_t width = panel<R>;
    const int64_t group = task / plan.columns, column = task % plan.columns;
    const Steps steps{t0, t1, plan.first_row(group), plan.first_row(group + 1)};
    for (int64_t p = plan.panels * column / plan.columns; p < plan.panels * (column + 1) / plan.columns; ++p)
        scan(plan, a, room, alpha, p, steps, a.forward.kept + plan.kept_at(group, p) + t0 * plan.rows(group) * width,
             plan.plane(group), room.c_0, grad_u + p * plan.G * room.stride * width,
             a.forward.skip == a.forward.x ? a.grad_x : a.grad_skip);
}

template <typename R>
static void add_up(const LayerPlan<R>& plan, const LayerBackward<R>& a, const BackwardScratch<R>& room, int64_t p) {
    constexpr int64_t width = panel<R>;
    for (int64_t j = 0; j < std::min(width, plan.H - p * width); ++j) {
        R total[4] = {};
        for (int64_t block = 0; block < plan.blocks; ++block)
            for (int64_t k = 0; k < 4; ++k) total[k] += room.sums[((block * plan.panels + p) * 4 + k) * width + j];
        for (int64_t k = 0; k < 2; ++k) {
            if (a.grad_weight_c) a.grad_weight_c[k * plan.H + p * width + j] = total[k];
            a.grad_bias[k * plan.H + p * width + j] = total[2 + k];
        }
    }
}

// What is read and written in panels, brought there; all sums set to zero.
template <typename R>
static void prepare(const LayerPlan<R>& plan, const LayerBackward<R>& a, BackwardScratch<R>& room, int64_t own,
                    int64_t count) {
    constexpr int64_t width = panel<R>;
    share(plan.panels, own, count, [&](int64_t p) {
        room.vectors.fill(plan, p, a.forward, a.grad_c_n);
        R* const c_0 = room.c_0 + p * plan.B * width;
        if (!a.forward.c_0) std::fill(c_0, c_0 + plan.B * width, R(0));
        for (int64_t b = 0; a.forward.c_0 && b < plan.B; ++b)
            copy_into_panel(a.forward.c_0 + b * plan.H + p * width, std::min(width, plan.H - p * width), c_0 + b * width);
        for (int64_t block = 0; block < plan.blocks; ++block) {
            R* const sums = room.sums + (block * plan.panels + p) * 4 * width;
            std::fill(sums, sums + 4 * width, R(0));
        }
    });
    if (!a.grad_x) return;
    share(plan.inputs * plan.outputs, own, count, [&](int64_t item) {
        const int64_t i = item / plan.outputs, q = item % plan.outputs, p = q / plan.G, g = q % plan.G;
        R* to = room.weight + item * width * width;
        for (int64_t j = 0; j < width; ++j, to += width) {
            const int64_t row = p * width + j;
            if (row < plan.H)
                copy_into_panel(a.forward.weight + (g * plan.H + row) * plan.I + i * width,
                                std::min(width, plan.I - i * width), to);
            else
                std::fill(to, to + width, R(0));
        }
    });
}

// All threads at one chunk of all rows: the scan, a barrier, the products.
template <typename R>
static void backward_together(const LayerPlan<R>& plan, const LayerBackward<R>& a, const BackwardScratch<R>& room, R alpha,
                              BackwardScan<R> scan, int64_t own, int64_t count) {
    const LayerForward<R>& fw = a.forward;
    const int64_t chunks = plan.B ? (plan.T + room.steps - 1) / room.steps : 0;
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
        const int64_t t0 = chunk * room.steps, t1 = std::min(plan.T, t0 + room.steps), rows = (t1 - t0) * plan.B;
        R* const grad_u = room.grad_u + (chunk & 1) * room.grad_u_size(plan);
        R* const x = room.x + (chunk & 1) * room.x_size();
        for (int64_t task = own; task < plan.tasks(); task += count)
            backward_scan_task(plan, a, room, alpha, scan, task, t0, t1, grad_u);
        if (a.grad_weight) {
            share(room.stripes, own, count, [&](int64_t stripe) {
                pack_stripe(fw.x + t0 * plan.B * plan.I + stripe * tile_rows, plan.I, rows,
                            std::min(tile_rows, plan.I - stripe * tile_rows), x + stripe * room.stride * tile_rows);
            });
        }
#pragma omp barrier
        const Rows all{rows, plan.B, plan.B};
        if (a.grad_x) multiply_for_x(plan, room, grad_u, all, a.grad_x + t0 * plan.B * plan.I, fw.skip == fw.x, own, count);
        if (a.grad_weight)
            multiply_for_weight(plan, room, x, grad_u, rows, room.grad_weight, chunk < chunks - 1, own, count);
    }
}

// One thread at all of time of one group of rows: nothing that a chunk leaves behind is read by another core.
template <typename R>
static void backward_apart(const LayerPlan<R>& plan, const LayerBackward<R>& a, const BackwardScratch<R>& room, R alpha,
                           BackwardScan<R> scan, int64_t group, int64_t own) {
    const LayerForward<R>& fw = a.forward;
    const int64_t b0 = plan.first_row(group), each = plan.rows(group), chunks = (plan.T + room.steps - 1) / room.steps;
    R* const grad_u = room.grad_u + own * room.grad_u_size(plan);
    R* const x = room.x + own * room.x_size();
    R* const grad_weight = room.grad_weight + group * room.grad_weight_size(plan);
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
        const int64_t t0 = chunk * room.steps, t1 = std::min(plan.T, t0 + room.steps), first = (t0 * plan.B + b0) * plan.I;
        const Rows rows{(t1 - t0) * each, each, plan.B};
        for (int64_t column = 0; column < plan.columns; ++column)
            backward_scan_task(plan, a, room, alpha, scan, group * plan.columns + column, t0, t1, grad_u);
        if (a.grad_x) multiply_for_x(plan, room, grad_u, rows, a.grad_x + first, fw.skip == fw.x, 0, 1);
        if (!a.grad_weight) continue;
        for (int64_t t = t0; t < t1; ++t)
            pack_stripes(fw.x + (t * plan.B + b0) * plan.I, plan.I, each, x + (t - t0) * each * tile_rows, room.stride);
        multiply_for_weight(plan, room, x, grad_u, rows.count, grad_weight, chunk < chunks - 1, 0, 1);
    }
}

template <typename R>
static void backward_part(const LayerPlan<R>& plan, const LayerBackward<R>& a, BackwardScratch<R>& room, R alpha,
                          BackwardScan<R> scan, int64_t own, int64_t count) {
    prepare(plan, a, room, own, count);
#pragma omp barrier
    if (plan.apart) {
#pragma omp for schedule(static) nowait
        for (int64_t group = 0; group < plan.groups; ++group) backward_apart(plan, a, room, alpha, scan, group, own);
    } else {
        backward_together(plan, a, room, alpha, scan, own, count);
    }
#pragma omp barrier
    if (a.grad_weight) share(plan.outputs, own, count, [&](int64_t q) { finish_weight(plan, a, room, q); });
    share(plan.panels, own, count, [&](int64_t p) {
        add_up(plan, a, room, p);
        if (a.grad_c_0) room.vectors.read_state(plan, p, 0, plan.B, a.grad_c_0);
    });
}

template <typename R>
static void backward(const LayerSizes& s, const LayerBackward<R>& a) {
    const LayerPlan<R> plan(s);
    Scratch<R> scratch{a.scratch};
    BackwardScratch<R> room(plan, scratch);
    const R alpha = static_cast<R>(s.scale);
    const auto scan = with_kind(s.G, a.forward.skip != nullptr, s.activation, a.forward.weight_c != nullptr,
                                [](auto kind) -> BackwardScan<R> { return scan_backward<R, decltype(kind)>; });
#pragma omp parallel num_threads(plan.threads) if (plan.threads > 1)
    backward_part(plan, a, room, alpha, scan, omp_get_thread_num(), omp_get_num_threads());
}

template <typename R>
static LayerRoom room(const LayerSizes& s) {
    const LayerPlan<R> plan(s);
    Scratch<R> forward{nullptr}, backward{nullptr};
    ForwardScratch<R> first(plan, forward);
    BackwardScratch<R> second(plan, backward);
    return {plan.kept_size(), forward.used, backward.used};
}

extern const LayerTable layer_table;
const LayerTable layer_table = {room<float>, room<double>, forward<float>, forward<double>, backward<float>, backward<double>};

}  // namespace KARUI_ISA
}  // namespace karui
