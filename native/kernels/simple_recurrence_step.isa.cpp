// The weights are read once, row by row as they lie, each row against all sequences: memory is what bounds this.
#include "kernels/simple_recurrence_step.hpp"

#include <algorithm>
#include <memory>

namespace karui {
namespace KARUI_ISA {

// kRows..: rows read side by side against 1, 2 and 4 sequences, as many as the registers hold: more streams, less waiting.
#if defined(__AVX512F__)
constexpr int kBytes = 64, kRowsOfOne = 16, kRowsOfTwo = 8, kRowsOfFour = 4;
#elif defined(__AVX2__)
constexpr int kBytes = 32, kRowsOfOne = 8, kRowsOfTwo = 4, kRowsOfFour = 2;
#else
constexpr int kBytes = 16, kRowsOfOne = 8, kRowsOfTwo = 4, kRowsOfFour = 2;
#endif
constexpr int64_t kBlock = 32;                       // rows of one task: no thread count changes how a row is summed
constexpr int64_t kWorthAThread = int64_t(1) << 17;  // products below this are done before a second thread has woken

template <typename R>
struct Lanes {
    typedef R type __attribute__((vector_size(kBytes), aligned(sizeof(R)), may_alias));
    static constexpr int64_t width = kBytes / sizeof(R);
};

// out[b][n] = sum_k w[n][k] x[b][k] for N rows and NB sequences.
template <typename R, int N, int NB>
static inline void dots(int64_t K, const R* __restrict w, const R* __restrict x, R* __restrict out, int64_t ldo) {
    using V = typename Lanes<R>::type;
    constexpr int64_t width = Lanes<R>::width;
    V sums[N][NB] = {};
    int64_t k = 0;
    for (; k + width <= K; k += width) {
        V x_k[NB];
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) x_k[b] = *reinterpret_cast<const V*>(x + b * K + k);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
            const V w_k = *reinterpret_cast<const V*>(w + n * K + k);
#pragma GCC unroll 4
            for (int b = 0; b < NB; ++b) sums[n][b] += w_k * x_k[b];
        }
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) {
            R lanes[width], sum = R(0);
            *reinterpret_cast<V*>(lanes) = sums[n][b];
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < width; ++i) sum += lanes[i];
            for (int64_t j = k; j < K; ++j) sum += w[n * K + j] * x[b * K + j];
            out[b * ldo + n] = sum;
        }
    }
}

template <typename R, int N, int NB>
static void rows(int64_t count, int64_t K, const R* w, const R* x, R* out, int64_t ldo) {
    int64_t n = 0;
    for (; n + N <= count; n += N) dots<R, N, NB>(K, w + n * K, x, out + n, ldo);
    for (; n < count; ++n) dots<R, 1, NB>(K, w + n * K, x, out + n, ldo);
}

template <typename R>
static void product(const ScanSizes& s, const ScanStep<R>& a, R* u) {
    const int64_t N = s.G * s.H, tasks = (N + kBlock - 1) / kBlock;
    const int threads = static_cast<int>(std::min<int64_t>({s.threads, tasks, 1 + s.B * N * a.I / kWorthAThread}));
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; ++task) {
        const int64_t n = task * kBlock, count = std::min(kBlock, N - n);
        const R* w = a.weight_ih + n * a.I;
        int64_t b = 0;
        for (; b + 4 <= s.B; b += 4) rows<R, kRowsOfFour, 4>(count, a.I, w, a.x + b * a.I, u + b * N + n, N);
        for (; b + 2 <= s.B; b += 2) rows<R, kRowsOfTwo, 2>(count, a.I, w, a.x + b * a.I, u + b * N + n, N);
        if (b < s.B) rows<R, kRowsOfOne, 1>(count, a.I, w, a.x + b * a.I, u + b * N + n, N);
    }
}

template <typename R>
static void step(const ScanSizes& s, const ScanStep<R>& a, void (*run)(const ScanSizes&, const ScanForward<R>&)) {
    const std::unique_ptr<R[]> u(new R[s.B * s.G * s.H]);
    product(s, a, u.get());
    ScanForward<R> scan = a.scan;
    scan.u = u.get();
    run(s, scan);
}

static void step_f32(const ScanSizes& s, const ScanStep<float>& a) { step(s, a, scan_table.forward_f32); }
static void step_f64(const ScanSizes& s, const ScanStep<double>& a) { step(s, a, scan_table.forward_f64); }

extern const ScanStepTable scan_step_table;
const ScanStepTable scan_step_table = {step_f32, step_f64};

}  // namespace KARUI_ISA
}  // namespace karui
