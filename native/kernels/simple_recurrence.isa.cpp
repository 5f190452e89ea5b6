// A thread walks time once and takes a step of each of its tasks, some rows and columns (scan_grid.hpp), so that memory is
// read in long runs; the innermost loop over H is what the compiler vectorises.
#include "kernels/simple_recurrence_row.hpp"

#include <omp.h>

#include "scan_grid.hpp"

namespace karui {
namespace KARUI_ISA {

template <typename R>
static Gates<R> gates_of(const ScanSizes& s, const ScanForward<R>& a, int64_t d, int64_t j0) {
    const R* b = a.bias + d * 2 * s.H + j0;
    const R* v = a.weight_c ? a.weight_c + d * 2 * s.H + j0 : nullptr;
    return {b, b + s.H, v, v ? v + s.H : nullptr};
}

template <typename R>
static void begin_state(const ScanSizes& s, const ScanGrid::Task& k, const R* from, R* to) {
    for (int64_t b = k.b0; b < k.b1; ++b)
        for (int64_t j = k.j0; j < k.j1; ++j) to[(k.d * s.B + b) * s.H + j] = from[(k.d * s.B + b) * s.H + j];
}

template <typename R, typename K>
static inline void forward_step(const ScanSizes& s, const ScanForward<R>& a, const ScanGrid::Task& k, int64_t i) {
    const int64_t H = s.H, n = k.j1 - k.j0, t = k.d == 0 ? i : s.T - 1 - i;
    const Gates<R> w = gates_of(s, a, k.d, k.j0);
    R* const state = a.c_n + k.d * s.B * H + k.j0;  // the running state lives in c_n, whose cells this task owns
    const R alpha = static_cast<R>(s.scale);
    for (int64_t b = k.b0; b < k.b1; ++b) {
        const int64_t at = (t * s.B + b) * s.D + k.d;
        R* c = state + b * H;
        R* h_t = a.h + at * H + k.j0;
        R* c_t = a.c ? a.c + at * H + k.j0 : nullptr;
        if (a.padding && a.padding[t * s.B + b]) {
            for (int64_t j = 0; j < n; ++j) h_t[j] = R(0);
            if (c_t) for (int64_t j = 0; j < n; ++j) c_t[j] = c[j];
            continue;
        }
        const R* u = a.u + at * s.G * H + k.j0;
        const R* x_t = K::skip == Skip::input ? a.x + at * H + k.j0 : u + 3 * H;
        const ForwardRow<R> row{u, x_t, c, c_t, h_t, nullptr, nullptr};
        if (a.dropout_mask)
            forward_row<R, K, true, false>(n, H, w, row, a.dropout_mask + (b * s.D + k.d) * H + k.j0, alpha);
        else
            forward_row<R, K, false, false>(n, H, w, row, nullptr, alpha);
    }
}

template <typename R, typename K>
static inline void backward_step(const ScanSizes& s, const ScanBackward<R>& a, const ScanGrid::Task& k, int64_t i) {
    const ScanForward<R>& fw = a.forward;
    const int64_t H = s.H, n = k.j1 - k.j0, t = k.d == 0 ? i : s.T - 1 - i, before = k.d == 0 ? t - 1 : t + 1;
    const Gates<R> w = gates_of(s, fw, k.d, k.j0);
    R* const own = a.scratch + (k.chunk * s.D + k.d) * 4 * H + k.j0;
    const Sums<R> sums{own, own + H, own + 2 * H, own + 3 * H};
    const int64_t states = k.d * s.B * H + k.j0;  // where this direction's states start
    const R alpha = static_cast<R>(s.scale);
    for (int64_t b = k.b0; b < k.b1; ++b) {
        const int64_t at = (t * s.B + b) * s.D + k.d;
        R* gu = a.grad_u + at * s.G * H + k.j0;
        R* gx = K::skip == Skip::input && a.grad_x ? a.grad_x + at * H + k.j0 : nullptr;
        if (fw.padding && fw.padding[t * s.B + b]) {
            for (int64_t block = 0; block < s.G; ++block)
                for (int64_t j = 0; j < n; ++j) gu[block * H + j] = R(0);
            if (gx) for (int64_t j = 0; j < n; ++j) gx[j] = R(0);
            continue;
        }
        const R* u = fw.u + at * s.G * H + k.j0;
        const R* c_old = i == 0 ? fw.c_0 + states + b * H : fw.c + ((before * s.B + b) * s.D + k.d) * H + k.j0;
        const BackwardRow<R> row{u, K::skip == Skip::input ? fw.x + at * H + k.j0 : u + 3 * H, fw.c + at * H + k.j0,
                                 c_old, a.grad_h + at * H + k.j0, gu, gx, a.grad_c_0 + states + b * H};
        if (fw.dropout_mask)
            backward_row<R, K, true, false>(n, H, H, w, row, fw.dropout_mask + (b * s.D + k.d) * H + k.j0, alpha, sums);
        else
            backward_row<R, K, false, false>(n, H, H, w, row, nullptr, alpha, sums);
    }
}

// Calls begin(task) for every task and step(task, i) for i = 0, 1, ... T - 1, each thread with tasks of its own.
template <typename Begin, typename Step>
static void walk(const ScanGrid& grid, int64_t T, Begin begin, Step step) {
#pragma omp parallel num_threads(grid.threads) if (grid.threads > 1)
    {
        const int64_t count = omp_get_num_threads(), own = omp_get_thread_num();
        const int64_t first = grid.tasks() * own / count, last = grid.tasks() * (own + 1) / count;
        for (int64_t k = first; k < last; ++k) begin(grid.task(k));
        for (int64_t i = 0; i < T; ++i)
            for (int64_t k = first; k < last; ++k) step(grid.task(k), i);
    }
}

template <typename R, typename K>
static void run_forward(const ScanSizes& s, const ScanForward<R>& a) {
    const int64_t bytes = s.T * s.B * s.D * s.H * static_cast<int64_t>(sizeof(R));
    use_huge_pages(a.h, bytes);
    use_huge_pages(a.c, bytes);
    const ScanGrid grid(s.T, s.B, s.D, s.H, s.threads);
    walk(
        grid, s.T, [&](const ScanGrid::Task& k) { begin_state(s, k, a.c_0, a.c_n); },
        [&](const ScanGrid::Task& k, int64_t i) { forward_step<R, K>(s, a, k, i); });
}

template <typename R, typename K>
static void run_backward(const ScanSizes& s, const ScanBackward<R>& a) {
    const int64_t bytes = s.T * s.B * s.D * s.H * static_cast<int64_t>(sizeof(R));
    use_huge_pages(a.grad_u, s.G * bytes);
    use_huge_pages(a.grad_x, bytes);
    const ScanGrid grid(s.T, s.B, s.D, s.H, s.threads);
    auto begin = [&](const ScanGrid::Task& k) {
        begin_state(s, k, a.grad_c_n, a.grad_c_0);
        R* const sums = a.scratch + (k.chunk * s.D + k.d) * 4 * s.H;
        for (int64_t block = 0; block < 4; ++block)
            for (int64_t j = k.j0; j < k.j1; ++j) sums[block * s.H + j] = R(0);
    };
    walk(grid, s.T, begin, [&](const ScanGrid::Task& k, int64_t i) {
        backward_step<R, K>(s, a, k, s.T - 1 - i);
    });
    for (int64_t d = 0; d < s.D; ++d) {
        for (int64_t j = 0; j < 2 * s.H; ++j) {
            R sum_v = R(0), sum_b = R(0);
            for (int64_t chunk = 0; chunk < grid.chunks; ++chunk) {
                const R* one = a.scratch + (chunk * s.D + d) * 4 * s.H;
                sum_v += one[j];
                sum_b += one[2 * s.H + j];
            }
            if (!K::v1) a.grad_weight_c[d * 2 * s.H + j] = sum_v;
            a.grad_bias[d * 2 * s.H + j] = sum_b;
        }
    }
}

template <typename R>
static void forward(const ScanSizes& s, const ScanForward<R>& a) {
    with_kind(s.G, a.x != nullptr, s.activation, a.weight_c != nullptr,
              [&](auto kind) { run_forward<R, decltype(kind)>(s, a); });
}

template <typename R>
static void backward(const ScanSizes& s, const ScanBackward<R>& a) {
    with_kind(s.G, a.forward.x != nullptr, s.activation, a.forward.weight_c != nullptr,
              [&](auto kind) { run_backward<R, decltype(kind)>(s, a); });
}

extern const ScanTable scan_table;
const ScanTable scan_table = {forward<float>, forward<double>, backward<float>, backward<double>};

}  // namespace KARUI_ISA
}  // namespace karui
