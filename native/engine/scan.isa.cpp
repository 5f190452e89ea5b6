// Two directions are walked in one loop: their chains of dependent steps overlap in the processor.
#include "engine/scan.hpp"

#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {
namespace {

typedef float Lanes __attribute__((vector_size(4 * lanes), aligned(4), may_alias));

// y[begin ...] += x W for `blocks` groups of 16 outputs, whose sums stay in registers.
template <int blocks>
inline void dense_block(const ProductView& p, const float* __restrict x, float* __restrict y, int64_t begin) {
    Lanes sum[blocks];
    Lanes* out = reinterpret_cast<Lanes*>(y + begin);
#pragma GCC unroll 4
    for (int j = 0; j < blocks; ++j) sum[j] = out[j];
    const float* __restrict row = p.dense + begin;
    for (int64_t k = 0; k < p.n_live; ++k, row += p.width) {
        const float x_k = x[p.live[k]];
        const Lanes* weights = reinterpret_cast<const Lanes*>(row);
#pragma GCC unroll 4
        for (int j = 0; j < blocks; ++j) sum[j] += x_k * weights[j];
    }
#pragma GCC unroll 4
    for (int j = 0; j < blocks; ++j) out[j] = sum[j];
}

void product(const ProductView& p, const float* __restrict x, float* __restrict y) {
    if (!p.dense) {
        for (int64_t k = 0; k < p.n_live; ++k) {
            const float x_k = x[p.live[k]];
            for (int64_t at = p.begin[k]; at < p.begin[k + 1]; ++at) y[p.column[at]] += x_k * p.value[at];
        }
        return;
    }
    int64_t begin = 0;
    for (; begin + 4 * lanes <= p.width; begin += 4 * lanes) dense_block<4>(p, x, y, begin);
    if (begin + 2 * lanes <= p.width) {
        dense_block<2>(p, x, y, begin);
        begin += 2 * lanes;
    }
    if (begin < p.width) dense_block<1>(p, x, y, begin);
}

template <bool with_tanh>
inline void sru_step(const Walk& w, const float* __restrict row, int64_t H) {
    const float* __restrict candidate = row;
    const float* __restrict forget = row + H;
    const float* __restrict reset = row + 2 * H;
    const float* __restrict skip = row + 3 * H;
    const float* __restrict v_f = w.weight_c;
    const float* __restrict v_r = w.weight_c + H;
    float* __restrict c = w.c;
    float* __restrict h = w.h;
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) {
        const float old = c[j];
        const float f = sigmoid_(forget[j] + v_f[j] * old);
        const float r = sigmoid_(reset[j] + v_r[j] * old);  // reads the old state
        const float now = (old - candidate[j]) * f + candidate[j];
        const float g = with_tanh ? tanh_(now) : now;
        c[j] = now;
        h[j] = (g - skip[j]) * r + skip[j];
    }
}

inline void lstm_step(const Walk& w, const float* __restrict row, int64_t H) {
    float* __restrict gates = w.scratch;
    for (int64_t j = 0; j < 4 * H; ++j) gates[j] = row[j];
    product(w.hidden, w.h, gates);
    float* __restrict c = w.c;
    float* __restrict h = w.h;
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) {
        const float i = sigmoid_(gates[j]);
        const float f = sigmoid_(gates[H + j]);
        const float g = tanh_(gates[2 * H + j]);
        const float o = sigmoid_(gates[3 * H + j]);
        const float now = f * c[j] + i * g;
        c[j] = now;
        h[j] = o * tanh_(now);
    }
}

inline void gru_step(const Walk& w, const float* __restrict row, int64_t H) {
    float* __restrict part = w.scratch;
    for (int64_t j = 0; j < 2 * H; ++j) part[j] = row[j];
    for (int64_t j = 0; j < H; ++j) part[2 * H + j] = w.bias_n[j];
    product(w.hidden, w.h, part);
    const float* __restrict input_n = row + 2 * H;
    float* __restrict h = w.h;
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) {
        const float r = sigmoid_(part[j]);
        const float z = sigmoid_(part[H + j]);
        const float n = tanh_(input_n[j] + r * part[2 * H + j]);
        h[j] = (h[j] - n) * z + n;
    }
}

inline void keep(const Walk& w, int64_t t, int64_t H) {
    const float* __restrict h = w.h;
    if (w.sum) {
        float* __restrict sum = w.sum;
#pragma omp simd
        for (int64_t j = 0; j < H; ++j) sum[j] += h[j];
    }
    if (w.max) {
        float* __restrict max = w.max;
#pragma omp simd
        for (int64_t j = 0; j < H; ++j) max[j] = h[j] > max[j] ? h[j] : max[j];
    }
    if (w.out) {
        float* __restrict out = w.out + t * w.out_stride;
        for (int64_t j = 0; j < w.out_size; ++j) out[j] = h[j];
    }
}

// Fixed H == 16 lets the compiler hold everything in registers.
template <Kind kind, bool with_tanh, bool narrow>
void walk(Walk* walks, int count, int64_t begin, int64_t length) {
    for (int64_t i = begin; i < begin + length; ++i)
        for (int d = 0; d < count; ++d) {
            const Walk& w = walks[d];
            const int64_t H = narrow ? lanes : w.H, t = w.first + i * w.step;
            if constexpr (kind == Kind::sru) sru_step<with_tanh>(w, w.rows[t], H);
            if constexpr (kind == Kind::lstm) lstm_step(w, w.rows[t], H);
            if constexpr (kind == Kind::gru) gru_step(w, w.rows[t], H);
            keep(w, t, H);
        }
}

template <bool narrow>
void choose(Kind kind, bool with_tanh, Walk* walks, int count, int64_t begin, int64_t length) {
    if (kind == Kind::lstm) walk<Kind::lstm, false, narrow>(walks, count, begin, length);
    else if (kind == Kind::gru) walk<Kind::gru, false, narrow>(walks, count, begin, length);
    else if (with_tanh) walk<Kind::sru, true, narrow>(walks, count, begin, length);
    else walk<Kind::sru, false, narrow>(walks, count, begin, length);
}

void scan(Kind kind, bool with_tanh, Walk* walks, int count, int64_t begin, int64_t length) {
    bool narrow = true;
    for (int d = 0; d < count; ++d) narrow = narrow && walks[d].H == lanes;
    if (narrow) choose<true>(kind, with_tanh, walks, count, begin, length);
    else choose<false>(kind, with_tanh, walks, count, begin, length);
}

}  // namespace

extern const EngineTable engine_table;
const EngineTable engine_table = {&scan, &product};

}  // namespace KARUI_ISA
}  // namespace karui
