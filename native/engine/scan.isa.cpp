// Two directions are walked in one loop: their chains of dependent steps overlap in the processor.
#include "engine/scan.hpp"

#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {
namespace {

typedef float Lanes __attribute__((vector_size(4 * lanes), aligned(4), may_alias));

// y[begin ...] += x W for `blocks` groups of 16 outputs, whose sums stay in registers: at least four, because a chain of
// dependent additions waits four cycles for each.
template <int blocks>
inline void dense_block(const ProductView& p, const float* __restrict x, float* __restrict y, int64_t begin) {
    constexpr int chains = blocks < 4 ? 4 / blocks : 1;
    Lanes sum[chains][blocks];
    Lanes* out = reinterpret_cast<Lanes*>(y + begin);
#pragma GCC unroll 4
    for (int j = 0; j < blocks; ++j) {
        sum[0][j] = out[j];
#pragma GCC unroll 4
        for (int i = 1; i < chains; ++i) sum[i][j] = Lanes{};
    }
    const float* __restrict row = p.dense + begin;
    int64_t k = 0;
    for (; k + chains <= p.n_live; k += chains, row += chains * p.width)
#pragma GCC unroll 4
        for (int i = 0; i < chains; ++i) {
            const float x_k = x[p.live[k + i]];
            const Lanes* weights = reinterpret_cast<const Lanes*>(row + i * p.width);
#pragma GCC unroll 4
            for (int j = 0; j < blocks; ++j) sum[i][j] += x_k * weights[j];
        }
    for (; k < p.n_live; ++k, row += p.width) {
        const float x_k = x[p.live[k]];
        const Lanes* weights = reinterpret_cast<const Lanes*>(row);
#pragma GCC unroll 4
        for (int j = 0; j < blocks; ++j) sum[0][j] += x_k * weights[j];
    }
#pragma GCC unroll 4
    for (int j = 0; j < blocks; ++j) {
#pragma GCC unroll 4
        for (int i = 1; i < chains; ++i) sum[0][j] += sum[i][j];
        out[j] = sum[0][j];
    }
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

template <Activation kind>
inline float activate(float x) {
    if constexpr (kind == Activation::tanh) return tanh_(x);
    if constexpr (kind == Activation::relu) return x < 0.0f ? 0.0f : x;  // NaN stays NaN
    if constexpr (kind == Activation::elu) return x < 0.0f ? exp_(x) - 1.0f : x;
    return x;
}

template <Activation activation>
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
        const float g = activate<activation>(now);
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

template <bool output_gate, bool adds_before>
inline void qrnn_step(const Walk& w, int64_t t, int64_t H) {
    if (!H) return;  // a direction without units has no rows
    const float* __restrict row = w.rows[t];
    const float* __restrict before = adds_before ? w.before[t] : row;
    float* __restrict c = w.c;
    float* __restrict h = w.h;
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) {
        const float z = tanh_(adds_before ? row[j] + before[j] : row[j]);
        const float f = sigmoid_(adds_before ? row[H + j] + before[H + j] : row[H + j]);
        const float now = (c[j] - z) * f + z;
        c[j] = now;
        h[j] = output_gate ? now * sigmoid_(adds_before ? row[2 * H + j] + before[2 * H + j] : row[2 * H + j]) : now;
    }
}

// Lanes of padding have g(0) = 1/2; nobody reads them.
inline void mingru_step(const Walk& w, const float* __restrict row, int64_t H) {
    float* __restrict h = w.h;
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) {
        const float a = row[j], old = h[j];
        const float g = a < 0.0f ? sigmoid_(a) : a + 0.5f;
        h[j] = old + sigmoid_(row[H + j]) * (g - old);
    }
}

// The output reads the statistics of its own step alone: `with_output` is false where nobody will look at it.
template <Activation activation>
inline void statistical_step(const Walk& w, const float* __restrict row, int64_t H, bool with_output) {
    float* __restrict phi = w.scratch;
    float* __restrict r = w.scratch + w.P;
    for (int64_t j = 0; j < w.P; ++j) phi[j] = row[j];
    if (w.R) {
        for (int64_t j = 0; j < w.R; ++j) r[j] = w.bias_r[j];
        product(w.hidden, w.mu, r);
#pragma omp simd
        for (int64_t j = 0; j < w.R; ++j) r[j] = activate<activation>(r[j]);
        product(w.phi, r, phi);
    }
#pragma omp simd
    for (int64_t j = 0; j < w.P; ++j) phi[j] = activate<activation>(phi[j]);
    for (int64_t k = 0; k < w.n_alphas; ++k) {
        const float alpha = w.alphas[k], rest = 1.0f - alpha;
        float* __restrict mu = w.mu + k * w.P;
#pragma omp simd
        for (int64_t j = 0; j < w.P; ++j) mu[j] = alpha * mu[j] + rest * phi[j];
    }
    if (!with_output) return;
    float* __restrict h = w.h;
    for (int64_t j = 0; j < H; ++j) h[j] = w.bias_o[j];
    product(w.read, w.mu, h);
#pragma omp simd
    for (int64_t j = 0; j < H; ++j) h[j] = activate<activation>(h[j]);
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

// One step of each form; `is_last` says that the walk pauses after it.
template <Activation activation>
struct SruStep {
    static void run(const Walk& w, int64_t t, int64_t H, bool) { sru_step<activation>(w, w.rows[t], H); }
};
struct LstmStep {
    static void run(const Walk& w, int64_t t, int64_t H, bool) { lstm_step(w, w.rows[t], H); }
};
struct GruStep {
    static void run(const Walk& w, int64_t t, int64_t H, bool) { gru_step(w, w.rows[t], H); }
};
template <Activation activation>
struct StatisticalStep {
    static void run(const Walk& w, int64_t t, int64_t H, bool is_last) {
        statistical_step<activation>(w, w.rows[t], H, is_last || w.sum || w.max || w.out);
    }
};
template <bool output_gate, bool adds_before>
struct QrnnStep {
    static void run(const Walk& w, int64_t t, int64_t H, bool) { qrnn_step<output_gate, adds_before>(w, t, H); }
};
struct MinGruStep {
    static void run(const Walk& w, int64_t t, int64_t H, bool) { mingru_step(w, w.rows[t], H); }
};

// Fixed H == 16 lets the compiler hold everything in registers.
template <class Step, bool narrow>
void walk(Walk* walks, int count, int64_t begin, int64_t length) {
    for (int64_t i = begin; i < begin + length; ++i)
        for (int d = 0; d < count; ++d) {
            const Walk& w = walks[d];
            const int64_t H = narrow ? lanes : w.H, t = w.first + i * w.step;
            Step::run(w, t, H, i + 1 == begin + length);
            keep(w, t, H);
        }
}

using Walker = void (*)(Walk* walks, int count, int64_t begin, int64_t length);

template <template <Activation> class Step, bool narrow>
Walker with_activation(Activation activation) {
    if (activation == Activation::tanh) return walk<Step<Activation::tanh>, narrow>;
    if (activation == Activation::relu) return walk<Step<Activation::relu>, narrow>;
    if (activation == Activation::elu) return walk<Step<Activation::elu>, narrow>;
    return walk<Step<Activation::identity>, narrow>;
}

template <bool narrow>
Walker walker_of(const Form& form, bool adds_before) {
    switch (form.kind) {
        case Kind::lstm: return walk<LstmStep, narrow>;
        case Kind::gru: return walk<GruStep, narrow>;
        case Kind::mingru: return walk<MinGruStep, narrow>;
        case Kind::statistical: return with_activation<StatisticalStep, narrow>(form.activation);
        case Kind::qrnn:
            if (adds_before) return form.output_gate ? walk<QrnnStep<true, true>, narrow> : walk<QrnnStep<false, true>, narrow>;
            return form.output_gate ? walk<QrnnStep<true, false>, narrow> : walk<QrnnStep<false, false>, narrow>;
        default: return with_activation<SruStep, narrow>(form.activation);
    }
}

void scan(const Form& form, Walk* walks, int count, int64_t begin, int64_t length) {
    bool narrow = true;
    for (int d = 0; d < count; ++d) narrow = narrow && walks[d].H == lanes;
    bool adds_before = false;  // of all directions with units, or of none
    for (int d = 0; d < count; ++d) adds_before = adds_before || walks[d].before;
    (narrow ? walker_of<true>(form, adds_before) : walker_of<false>(form, adds_before))(walks, count, begin, length);
}

}  // namespace

extern const EngineTable engine_table;
const EngineTable engine_table = {&scan, &product};

}  // namespace KARUI_ISA
}  // namespace karui
