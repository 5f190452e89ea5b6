// Branch-free scalar functions that the compiler turns into vector code. Float versions are within about
// 2 units in the last place; double versions call the standard library.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace karui {

// exp(r) of exp(x) = 2^n exp(r), |r| <= ln(2)/2; Cephes' polynomial.
inline float exp_rest(float x, float n) {
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * r * r + r + 1.0f;
}

inline float exp_(float x) {
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float n = x * 1.44269504088896341f;
    n = (n + 12582912.0f) - 12582912.0f;  // round to nearest
    const float y = exp_rest(x, n);
    int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return y * scale;
}
inline double exp_(double x) { return std::exp(x); }

inline float exp_bounded_(float x) {
    // exp_ for |x| < 80: two thirds of its instructions.
    const float shifted = x * 1.44269504088896341f + 12582912.0f;  // its lowest bits hold the integer nearest to x / ln 2
    const float n = shifted - 12582912.0f;
    const float y = exp_rest(x, n);
    int32_t bits, power;
    std::memcpy(&bits, &y, 4);
    std::memcpy(&power, &shifted, 4);
    bits += static_cast<int32_t>(static_cast<uint32_t>(power) << 23);
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}
inline double exp_bounded_(double x) { return std::exp(x); }

inline float log_(float x) {
    // log(x) for x > 0: x = m 2^e with m in [sqrt(1/2), sqrt(2)); Cephes' polynomial for log(m).
    int32_t bits;
    std::memcpy(&bits, &x, 4);
    int32_t e = (bits - 0x3f3504f3) >> 23;
    bits -= e << 23;
    float m;
    std::memcpy(&m, &bits, 4);
    m -= 1.0f;
    float z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float n = static_cast<float>(e);
    float y = m * z * p + n * -2.12194440e-4f - 0.5f * z;
    return m + y + n * 0.693359375f;
}
inline double log_(double x) { return std::log(x); }

inline float sqrt_(float x) { return __builtin_sqrtf(x); }
inline double sqrt_(double x) { return std::sqrt(x); }

// Sine and cosine of |t| <= pi / 4; Cephes' polynomials.
inline void small_sine_cosine(float t, float& sine, float& cosine) {
    const float z = t * t;
    sine = t + t * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
    cosine = 1.0f - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
}
inline void small_sine_cosine(double t, double& sine, double& cosine) {
    sine = std::sin(t);
    cosine = std::cos(t);
}

template <typename R>
inline R sigmoid_(R x) {
    return R(1) / (R(1) + exp_(-x));
}

template <typename R>
inline R tanh_(R x) {
    // tanh(x) = 1 - 2 / (exp(2x) + 1) loses relative accuracy near 0, where an odd polynomial takes over.
    R a = R(1) - R(2) / (exp_(x + x) + R(1));
    R s = x * x;
    R b = x * (R(1) + s * (R(-0.3333333333333) + s * (R(0.1333333333333) + s * (R(-0.0539682539683) + s * R(0.0218694885362)))));
    return (x < R(0.18) && x > R(-0.18)) ? b : a;
}
inline double tanh_(double x) { return std::tanh(x); }

}  // namespace karui
