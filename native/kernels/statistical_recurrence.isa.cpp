// A block of a few sequences is walked by one thread; products are vectorised over their outputs, with the
// weights packed once into panels that stream from the second-level cache for the whole block.
#include "kernels/statistical_recurrence.hpp"

#include <algorithm>

#include "scan_grid.hpp"
#include "vector_math.hpp"

namespace karui {
namespace KARUI_ISA {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kBlock = 8;
#elif defined(__AVX2__)
constexpr int kBytes = 32, kBlock = 6;
#else
constexpr int kBytes = 16, kBlock = 6;
#endif

template <typename F>
struct Vector {  // any alignment; two of them make a panel's row
    typedef F type __attribute__((vector_size(kBytes), aligned(sizeof(F)), may_alias));
    static constexpr int64_t width = kBytes / sizeof(F), panel = 2 * width;
};

// packed[panel][k][j] = w(panel * width + j, k), zero beyond N; w(n, k) reads one weight.
template <typename F, typename Weight>
static void pack(int64_t N, int64_t K, F* __restrict packed, Weight w) {
    constexpr int64_t width = Vector<F>::panel;
    for (int64_t first = 0; first < N; first += width)
        for (int64_t k = 0; k < K; ++k)
            for (int64_t j = 0; j < width; ++j) *packed++ = first + j < N ? w(first + j, k) : F(0);
}

// out[i][n] = sum_k w(n, k) x[i][k] for NB sequences; out has room for whole panels.
template <typename F, int NB>
static void product(int64_t N, int64_t K, const F* __restrict packed, const F* __restrict x, int64_t ldx,
                    F* __restrict out, int64_t ldo) {
    using V = typename Vector<F>::type;
    constexpr int64_t half = Vector<F>::width;
    for (int64_t first = 0; first < N; first += 2 * half) {
        V low[NB] = {}, high[NB] = {};
        for (int64_t k = 0; k < K; ++k, packed += 2 * half) {
            const V w_low = *reinterpret_cast<const V*>(packed);
            const V w_high = *reinterpret_cast<const V*>(packed + half);
#pragma GCC unroll 8
            for (int i = 0; i < NB; ++i) {
                const F value = x[i * ldx + k];
                low[i] += w_low * value;
                high[i] += w_high * value;
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < NB; ++i) {
            *reinterpret_cast<V*>(out + i * ldo + first) = low[i];
            *reinterpret_cast<V*>(out + i * ldo + first + half) = high[i];
        }
    }
}

template <typename F>
static void product(int64_t count, int64_t N, int64_t K, const F* packed, const F* x, int64_t ldx, F* out, int64_t ldo) {
    switch (count) {
        case 1: return product<F, 1>(N, K, packed, x, ldx, out, ldo);
        case 2: return product<F, 2>(N, K, packed, x, ldx, out, ldo);
        case 3: return product<F, 3>(N, K, packed, x, ldx, out, ldo);
        case 4: return product<F, 4>(N, K, packed, x, ldx, out, ldo);
        case 5: return product<F, 5>(N, K, packed, x, ldx, out, ldo);
        case 6: return product<F, 6>(N, K, packed, x, ldx, out, ldo);
        case 7: return product<F, 7>(N, K, packed, x, ldx, out, ldo);
        default: return product<F, 8>(N, K, packed, x, ldx, out, ldo);
    }
}

// The batch in blocks of at most kBlock sequences, evenly, a whole number of blocks a thread where B allows.
struct Blocks {
    int64_t B, count;
    Blocks(int64_t B, int threads) : B(B) {
        count = (B + kBlock - 1) / kBlock;
        count = std::min(B, (count + threads - 1) / threads * threads);
    }
    int64_t first(int64_t block) const { return B * block / count; }
};

// x = f(x + offset); a NaN stays one.
template <typename F>
static void activate(Activation f, int64_t n, F* __restrict x, const F* __restrict offset) {
    if (f == Activation::relu) {
        for (int64_t j = 0; j < n; ++j) {
            const F sum = x[j] + offset[j];
            x[j] = sum < F(0) ? F(0) : sum;
        }
    } else if (f == Activation::tanh) {
        for (int64_t j = 0; j < n; ++j) x[j] = tanh_(x[j] + offset[j]);
    } else {
        for (int64_t j = 0; j < n; ++j) {
            const F sum = x[j] + offset[j];
            const F below = exp_(sum < F(0) ? sum : F(0)) - F(1);
            x[j] = sum < F(0) ? below : sum;
        }
    }
}

// grad * f'(x), from the value f(x).
template <typename F>
static void chain(Activation f, int64_t n, const F* grad, const F* __restrict value, F* __restrict out) {
    if (f == Activation::relu)
        for (int64_t j = 0; j < n; ++j) out[j] = value[j] > F(0) ? grad[j] : F(0);
    else if (f == Activation::tanh)
        for (int64_t j = 0; j < n; ++j) out[j] = grad[j] * (F(1) - value[j] * value[j]);
    else
        for (int64_t j = 0; j < n; ++j) out[j] = value[j] > F(0) ? grad[j] : grad[j] * (value[j] + F(1));
}

template <typename F>
static void forward_block(const StatisticalSizes& s, const StatisticalForward<F>& a, int64_t first, int64_t count,
                          const F* packed_r, const F* packed_phi, F* states) {
    const int64_t P = s.P, R = s.R, AP = s.A * P, ldr = padded(R), ldp = padded(P);
    F* mu = states + first * (AP + ldr + ldp);
    F* r = mu + count * AP;
    F* phi = r + count * ldr;
    std::copy(a.mu_0 + first * AP, a.mu_0 + (first + count) * AP, mu);
    for (int64_t t = 0; t < s.T; ++t) {
        const int64_t at = t * s.B + first;
        if (R > 0) {
            product(count, R, AP, packed_r, mu, AP, r, ldr);
            for (int64_t i = 0; i < count; ++i) activate(s.activation, R, r + i * ldr, a.bias_r);
            product(count, P, R, packed_phi, r, ldr, phi, ldp);
        } else {
            std::fill(phi, phi + count * ldp, F(0));
        }
        for (int64_t i = 0; i < count; ++i) {
            F* __restrict mu_i = mu + i * AP;
            F* __restrict phi_i = phi + i * ldp;
            const bool pad = a.padding && a.padding[at + i];
            if (pad) {
                std::fill(phi_i, phi_i + P, F(0));
                std::fill(r + i * ldr, r + i * ldr + R, F(0));
            } else {
                activate(s.activation, P, phi_i, a.projected + (at + i) * P);
                for (int64_t k = 0; k < s.A; ++k) {
                    const F alpha = a.alphas[k], beta = F(1) - alpha;
                    for (int64_t j = 0; j < P; ++j) mu_i[k * P + j] = alpha * mu_i[k * P + j] + beta * phi_i[j];
                }
            }
            if (a.phi) std::copy(phi_i, phi_i + P, a.phi + (at + i) * P);
            if (a.r) std::copy(r + i * ldr, r + i * ldr + R, a.r + (at + i) * R);
        }
        if (a.mu) std::copy(mu, mu + count * AP, a.mu + at * AP);
    }
    std::copy(mu, mu + count * AP, a.mu_n + first * AP);
}

template <typename F>
static void forward(const StatisticalSizes& s, const StatisticalForward<F>& a) {
    const int64_t AP = s.A * s.P, rows_bytes = s.T * s.B * static_cast<int64_t>(sizeof(F));
    use_huge_pages(a.mu, rows_bytes * AP);
    use_huge_pages(a.phi, rows_bytes * s.P);
    use_huge_pages(a.r, rows_bytes * s.R);
    F* packed_r = a.scratch;
    F* packed_phi = packed_r + padded(s.R) * AP;
    F* states = packed_phi + padded(s.P) * s.R;
    pack<F>(s.R, AP, packed_r, [&](int64_t n, int64_t k) { return a.weight_r[n * AP + k]; });
    pack<F>(s.R ? s.P : 0, s.R, packed_phi, [&](int64_t n, int64_t k) { return a.weight_phi[n * s.R + k]; });
    const Blocks blocks(s.B, s.threads);
#pragma omp parallel for schedule(static) num_threads(s.threads) if (s.threads > 1)
    for (int64_t block = 0; block < blocks.count; ++block) {
        const int64_t first = blocks.first(block);
        forward_block(s, a, first, blocks.first(block + 1) - first, packed_r, packed_phi, states);
    }
}

// E and Z are running sums, E over the gradients given from outside and Z over those of the feedback.
template <typename F>
static void backward_block(const StatisticalSizes& s, const StatisticalBackward<F>& a, int64_t first, int64_t count,
                           const F* packed_r, const F* packed_phi, F* states) {
    const int64_t P = s.P, R = s.R, A = s.A, AP = A * P, AR = A * R, ldr = padded(R), ldp = padded(P);
    F* scaled = states + first * (AR + 2 * ldp + ldr);  // (1 - alpha) Z
    F* grad_phi = scaled + count * AR;
    F* grad_r = grad_phi + count * ldp;
    F* pre_phi = grad_r + count * ldr;  // a row a sequence, as wide as grad_phi
    F* e = a.e_0 + first * AP;
    F* z = a.z_0 + first * AR;
    if (a.grad_mu_n) std::copy(a.grad_mu_n + first * AP, a.grad_mu_n + (first + count) * AP, e);
    else std::fill(e, e + count * AP, F(0));
    std::fill(z, z + count * AR, F(0));
    for (int64_t t = s.T - 1; t >= 0; --t) {
        const int64_t at = t * s.B + first;
        for (int64_t i = 0; i < count; ++i)
            for (int64_t k = 0; k < A; ++k)
                for (int64_t j = 0; j < R; ++j) scaled[i * AR + k * R + j] = (F(1) - a.alphas[k]) * z[i * AR + k * R + j];
        if (R > 0) product(count, P, AR, packed_r, scaled, AR, grad_phi, ldp);
        else std::fill(grad_phi, grad_phi + count * ldp, F(0));
        for (int64_t i = 0; i < count; ++i) {
            F* __restrict e_i = e + i * AP;
            F* __restrict grad = grad_phi + i * ldp;
            F* __restrict pre = pre_phi + i * ldp;
            const F* __restrict given = a.grad_mu ? a.grad_mu + (at + i) * AP : nullptr;
            if (given) for (int64_t j = 0; j < AP; ++j) e_i[j] += given[j];
            if (a.padding && a.padding[at + i]) {
                std::fill(pre, pre + P, F(0));
                std::fill(scaled + i * AR, scaled + (i + 1) * AR, F(0));
            } else {
                for (int64_t k = 0; k < A; ++k) {
                    const F alpha = a.alphas[k], beta = F(1) - alpha;
                    for (int64_t j = 0; j < P; ++j) {
                        grad[j] += beta * e_i[k * P + j];
                        e_i[k * P + j] *= alpha;
                    }
                }
                chain(s.activation, P, grad, a.phi + (at + i) * P, pre);
            }
            std::copy(pre, pre + P, a.grad_projected + (at + i) * P);
        }
        if (R == 0) continue;
        std::copy(scaled, scaled + count * AR, a.z + at * AR);
        product(count, R, P, packed_phi, pre_phi, ldp, grad_r, ldr);
        for (int64_t i = 0; i < count; ++i) {
            F* __restrict pre_r = a.grad_pre_r + (at + i) * R;
            F* __restrict z_i = z + i * AR;
            if (a.padding && a.padding[at + i]) {
                std::fill(pre_r, pre_r + R, F(0));
                continue;
            }
            chain(s.activation, R, grad_r + i * ldr, a.r + (at + i) * R, pre_r);
            for (int64_t k = 0; k < A; ++k)
                for (int64_t j = 0; j < R; ++j) z_i[k * R + j] = a.alphas[k] * z_i[k * R + j] + pre_r[j];
        }
    }
}

template <typename F>
static void backward(const StatisticalSizes& s, const StatisticalBackward<F>& a) {
    const int64_t P = s.P, R = s.R, AR = s.A * R, rows_bytes = s.T * s.B * static_cast<int64_t>(sizeof(F));
    use_huge_pages(a.grad_projected, rows_bytes * P);
    use_huge_pages(a.grad_pre_r, rows_bytes * R);
    use_huge_pages(a.z, rows_bytes * AR);
    F* packed_r = a.scratch;
    F* packed_phi = packed_r + padded(P) * AR;
    F* states = packed_phi + padded(R) * P;
    pack<F>(R ? P : 0, AR, packed_r, [&](int64_t n, int64_t k) { return a.weight_r[(k % R) * s.A * P + (k / R) * P + n]; });
    pack<F>(R, P, packed_phi, [&](int64_t n, int64_t k) { return a.weight_phi[k * R + n]; });
    const Blocks blocks(s.B, s.threads);
#pragma omp parallel for schedule(static) num_threads(s.threads) if (s.threads > 1)
    for (int64_t block = 0; block < blocks.count; ++block) {
        const int64_t first = blocks.first(block);
        backward_block(s, a, first, blocks.first(block + 1) - first, packed_r, packed_phi, states);
    }
}

template <typename F>
static F dot(int64_t n, const F* __restrict a, const F* __restrict b) {
    F sum = F(0);
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; ++j) sum += a[j] * b[j];
    return sum;
}

template <typename F>
static void alpha_slope(const AlphaSlope<F>& a) {
    const int64_t K = a.K, AK = a.A * K;
#pragma omp parallel for schedule(static) num_threads(a.threads) if (a.threads > 1)
    for (int64_t b = 0; b < a.B; ++b) {
        F* __restrict state = a.scratch + b * 2 * K;
        F* __restrict slope = state + K;  // d state / d alpha
        for (int64_t k = 0; k < a.A; ++k) {
            const F alpha = a.alphas[k], beta = F(1) - alpha;
            std::copy(a.s_0 + b * AK + k * K, a.s_0 + b * AK + (k + 1) * K, state);
            std::fill(slope, slope + K, F(0));
            F sum = F(0);
            for (int64_t t = 0; t < a.T; ++t) {
                const int64_t at = t * a.B + b;
                const bool pad = a.padding && a.padding[at];
                const F* __restrict y = a.one_y ? a.y + at * K : a.y + at * AK + k * K;
                if (a.g && a.one_g && !pad) sum += dot(K, a.g + at * K, slope);
                if (!pad) {
                    for (int64_t j = 0; j < K; ++j) {
                        slope[j] = alpha * slope[j] + state[j] - y[j];
                        state[j] = alpha * state[j] + beta * y[j];
                    }
                }
                if (a.g && !a.one_g) sum += dot(K, a.g + at * AK + k * K, slope);
            }
            if (a.g_n) sum += dot(K, a.g_n + b * AK + k * K, slope);
            a.grad[b * a.A + k] = sum;
        }
    }
}

extern const StatisticalTable statistical_table;
const StatisticalTable statistical_table = {forward<float>,   forward<double>,    backward<float>,
                                            backward<double>, alpha_slope<float>, alpha_slope<double>};

}  // namespace KARUI_ISA
}  // namespace karui
