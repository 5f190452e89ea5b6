#include "kernels/tree_path.hpp"

#include <algorithm>
#include <cmath>
#include <queue>
#include <vector>

namespace karui {
namespace KARUI_ISA {

template <typename R>
static inline R dot(int64_t H, const R* __restrict a, const R* __restrict b) {
    R sum = R(0);
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < H; ++j) sum += a[j] * b[j];
    return sum;
}

template <typename R>
static inline void add_scaled(int64_t H, R factor, const R* __restrict x, R* __restrict y) {
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) y[j] += factor * x[j];
}

// log sigmoid(x) without overflow; its slope sigmoid(-x) comes from the same exponential.
template <typename R>
static inline R log_sigmoid(R x, R& slope) {
    const R e = std::exp(-std::abs(x));
    slope = (x >= R(0) ? e : R(1)) / (R(1) + e);
    return (x < R(0) ? x : R(0)) - std::log1p(e);
}

template <typename R>
static void forward(const PathSizes& s, const PathForward<R>& a) {
#pragma omp parallel for schedule(dynamic, 16) num_threads(s.threads) if (s.threads > 1 && s.N > 16)
    for (int64_t n = 0; n < s.N; ++n) {
        const R* hidden = a.hidden + n * s.H;
        R* direction = a.direction ? a.direction + n * s.H : nullptr;
        if (direction) std::fill(direction, direction + s.H, R(0));
        R total = R(0);
        for (int64_t i = a.offsets[n]; i < a.offsets[n + 1]; ++i) {
            const R* row = a.weight + a.nodes[i] * s.H;
            R score = dot(s.H, hidden, row) + (a.bias ? a.bias[a.nodes[i]] : R(0));
            const R sign = a.codes[i] ? R(-1) : R(1);
            R slope;
            total += log_sigmoid(sign * score, slope);
            if (direction) {
                a.slope[i] = sign * slope;
                add_scaled(s.H, a.slope[i], row, direction);  // while the row is in the cache
            }
        }
        a.log_prob[n] = total;
    }
}

template <typename R>
static void backward(const PathSizes& s, const PathBackward<R>& a) {
#pragma omp parallel for schedule(dynamic, 8) num_threads(s.threads) if (s.threads > 1 && a.U > 64)
    for (int64_t u = 0; u < a.U; ++u) {  // the root, met by every row, comes first: its task is the longest
        R* out = a.rows_of_weight + u * s.H;
        std::fill(out, out + s.H, R(0));
        R total = R(0);
        for (int64_t i = a.starts[u]; i < a.starts[u + 1]; ++i) {
            const R factor = a.grad[a.rows[i]] * a.slope[a.order[i]];
            add_scaled(s.H, factor, a.hidden + a.rows[i] * s.H, out);
            total += factor;
        }
        if (a.rows_of_bias) a.rows_of_bias[u] = total;
    }
}

template <typename R>
struct Open {
    R log_prob;
    int32_t node;
    bool operator<(const Open& other) const { return log_prob < other.log_prob; }
};

// Best first: a leaf is no more probable than any node above it, so the first k leaves taken are the k best.
template <typename R>
static bool search_row(const PathSizes& s, const TreeSearch<R>& a, const R* hidden, R* log_prob, int64_t* ids) {
    std::vector<Open<R>> heap;
    std::priority_queue<R, std::vector<R>, std::greater<R>> best;  // the k best leaves met: nothing below enters
    heap.push_back({R(0), 0});
    for (int64_t found = 0; found < a.k;) {
        std::pop_heap(heap.begin(), heap.end());
        const Open<R> top = heap.back();
        heap.pop_back();
        if (top.node < 0) {
            log_prob[found] = top.log_prob;
            ids[found++] = ~top.node;
            continue;
        }
        const R score = dot(s.H, hidden, a.weight + top.node * s.H) + (a.bias ? a.bias[top.node] : R(0));
        if (std::isnan(score)) return false;
        for (int code = 0; code < 2; ++code) {
            R slope;
            const R now = top.log_prob + log_sigmoid(code ? -score : score, slope);
            const bool full = static_cast<int64_t>(best.size()) == a.k;
            if (full && now < best.top()) continue;
            const int32_t child = a.children[2 * top.node + code];
            if (child < 0) {
                if (full) best.pop();
                best.push(now);
            }
            heap.push_back({now, child});
            std::push_heap(heap.begin(), heap.end());
        }
    }
    return true;
}

template <typename R>
static void search(const PathSizes& s, const TreeSearch<R>& a) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(s.threads) if (s.threads > 1 && s.N > 1)
    for (int64_t n = 0; n < s.N; ++n) {
        R* log_prob = a.log_prob + n * a.k;
        int64_t* ids = a.ids + n * a.k;
        if (search_row(s, a, a.hidden + n * s.H, log_prob, ids)) continue;
        for (int64_t i = 0; i < a.k; ++i) {
            log_prob[i] = std::nan("");
            ids[i] = i;
        }
    }
}

extern const TreePathTable tree_path_table;
const TreePathTable tree_path_table = {forward<float>,  forward<double>, backward<float>,
                                       backward<double>, search<float>,   search<double>};

}  // namespace KARUI_ISA
}  // namespace karui
