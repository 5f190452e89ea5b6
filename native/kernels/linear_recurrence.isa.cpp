// A task walks time for some rows and columns (scan_grid.hpp); the state lives in the cells of c_n or grad_c_0 it owns.
#include "kernels/linear_recurrence.hpp"

#include "scan_grid.hpp"

namespace karui {
namespace KARUI_ISA {

template <typename R>
static inline void forward_row(int64_t n, const R* __restrict f, const R* __restrict b, R* __restrict state, R* __restrict c) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
        const R now = f[j] * state[j] + b[j];
        state[j] = now;
        c[j] = now;
    }
}

template <typename R>
static void forward_task(const LinearSizes& s, const LinearForward<R>& a, const ScanGrid::Task& k) {
    const int64_t n = k.j1 - k.j0, states = k.d * s.B * s.H + k.j0;
    for (int64_t b = k.b0; b < k.b1; ++b)
        for (int64_t j = 0; j < n; ++j) a.c_n[states + b * s.H + j] = a.c_0[states + b * s.H + j];
    for (int64_t i = 0; i < s.T; ++i) {
        const int64_t t = k.d == 0 ? i : s.T - 1 - i;
        for (int64_t b = k.b0; b < k.b1; ++b) {
            const int64_t at = ((t * s.B + b) * s.D + k.d) * s.H + k.j0;
            R* state = a.c_n + states + b * s.H;
            if (a.padding && a.padding[t * s.B + b])
                for (int64_t j = 0; j < n; ++j) a.c[at + j] = state[j];
            else
                forward_row(n, a.f + at, a.b + at, state, a.c + at);
        }
    }
}

template <typename R>
static inline void backward_row(int64_t n, const R* __restrict f, const R* __restrict c_old, const R* __restrict grad_c,
                                R* __restrict state, R* __restrict grad_f, R* __restrict grad_b) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
        const R now = grad_c[j] + state[j];
        grad_f[j] = now * c_old[j];
        grad_b[j] = now;
        state[j] = now * f[j];
    }
}

template <typename R>
static void backward_task(const LinearSizes& s, const LinearBackward<R>& a, const ScanGrid::Task& k) {
    const int64_t n = k.j1 - k.j0, states = k.d * s.B * s.H + k.j0, step = k.d == 0 ? 1 : -1;
    for (int64_t b = k.b0; b < k.b1; ++b)
        for (int64_t j = 0; j < n; ++j) a.grad_c_0[states + b * s.H + j] = a.grad_c_n[states + b * s.H + j];
    for (int64_t i = s.T - 1; i >= 0; --i) {
        const int64_t t = k.d == 0 ? i : s.T - 1 - i;
        for (int64_t b = k.b0; b < k.b1; ++b) {
            const int64_t at = ((t * s.B + b) * s.D + k.d) * s.H + k.j0;
            R* state = a.grad_c_0 + states + b * s.H;
            if (a.padding && a.padding[t * s.B + b]) {
                for (int64_t j = 0; j < n; ++j) state[j] += a.grad_c[at + j];
                for (int64_t j = 0; j < n; ++j) a.grad_f[at + j] = R(0);
                for (int64_t j = 0; j < n; ++j) a.grad_b[at + j] = R(0);
                continue;
            }
            const R* c_old = i == 0 ? a.c_0 + states + b * s.H : a.c + (((t - step) * s.B + b) * s.D + k.d) * s.H + k.j0;
            backward_row(n, a.f + at, c_old, a.grad_c + at, state, a.grad_f + at, a.grad_b + at);
        }
    }
}

template <typename R>
static void forward(const LinearSizes& s, const LinearForward<R>& a) {
    use_huge_pages(a.c, s.T * s.B * s.D * s.H * static_cast<int64_t>(sizeof(R)));
    const ScanGrid grid(s.T, s.B, s.D, s.H, s.threads);
#pragma omp parallel for schedule(static) num_threads(grid.threads) if (grid.threads > 1)
    for (int64_t k = 0; k < grid.tasks(); ++k) forward_task(s, a, grid.task(k));
}

template <typename R>
static void backward(const LinearSizes& s, const LinearBackward<R>& a) {
    const int64_t bytes = s.T * s.B * s.D * s.H * static_cast<int64_t>(sizeof(R));
    use_huge_pages(a.grad_f, bytes);
    use_huge_pages(a.grad_b, bytes);
    const ScanGrid grid(s.T, s.B, s.D, s.H, s.threads);
#pragma omp parallel for schedule(static) num_threads(grid.threads) if (grid.threads > 1)
    for (int64_t k = 0; k < grid.tasks(); ++k) backward_task(s, a, grid.task(k));
}

extern const LinearTable linear_table;
const LinearTable linear_table = {forward<float>, forward<double>, backward<float>, backward<double>};

}  // namespace KARUI_ISA
}  // namespace karui
