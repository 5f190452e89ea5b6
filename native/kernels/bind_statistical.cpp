// Addresses come from torch tensors whose dtype, shape and contiguity the Python side has checked.
#include <nanobind/nanobind.h>

#include <stdexcept>

#include "isa.hpp"
#include "kernels/statistical_recurrence.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

const StatisticalTable& table() {
#ifdef KARUI_X86
    if (best_isa() == Isa::avx512) return avx512::statistical_table;
    if (best_isa() == Isa::avx2) return avx2::statistical_table;
#endif
    return generic::statistical_table;
}

struct Addresses {
    nb::tuple all;
    template <typename T>
    T* at(int i) const { return reinterpret_cast<T*>(nb::cast<uintptr_t>(all[i])); }
};

template <typename F>
StatisticalForward<F> forward_arrays(const Addresses& p) {
    return {p.at<const F>(0), p.at<const F>(1), p.at<const F>(2), p.at<const F>(3), p.at<const F>(4), p.at<const F>(5),
            p.at<const uint8_t>(6), p.at<F>(7), p.at<F>(8), p.at<F>(9), p.at<F>(10), p.at<F>(11)};
}

template <typename F>
StatisticalBackward<F> backward_arrays(const Addresses& p) {
    return {p.at<const F>(0), p.at<const F>(1), p.at<const F>(2), p.at<const uint8_t>(3), p.at<const F>(4),
            p.at<const F>(5), p.at<const F>(6), p.at<const F>(7), p.at<F>(8), p.at<F>(9), p.at<F>(10), p.at<F>(11),
            p.at<F>(12), p.at<F>(13)};
}

StatisticalSizes sizes_of(int64_t T, int64_t B, int64_t P, int64_t R, int64_t A, int activation, int threads) {
    if (T < 0 || B < 0 || P < 1 || R < 0 || A < 1 || activation < 0 || activation > 2 || threads < 1)
        throw std::invalid_argument("sizes must be T, B, R >= 0, P, A >= 1, activation in 0..2, threads >= 1");
    return {T, B, P, R, A, static_cast<Activation>(activation), threads};
}

void forward(const StatisticalSizes& s, bool f64, nb::tuple p) {
    if (f64) {
        auto arrays = forward_arrays<double>({p});
        nb::gil_scoped_release free;
        table().forward_f64(s, arrays);
    } else {
        auto arrays = forward_arrays<float>({p});
        nb::gil_scoped_release free;
        table().forward_f32(s, arrays);
    }
}

void backward(const StatisticalSizes& s, bool f64, nb::tuple p) {
    if (f64) {
        auto arrays = backward_arrays<double>({p});
        nb::gil_scoped_release free;
        table().backward_f64(s, arrays);
    } else {
        auto arrays = backward_arrays<float>({p});
        nb::gil_scoped_release free;
        table().backward_f32(s, arrays);
    }
}

template <typename F>
void slope(const StatisticalSizes& s, bool feedback, nb::tuple all) {
    const Addresses p{all};
    const AlphaSlope<F> a{s.T, s.B, s.A, feedback ? s.R : s.P, s.threads, !feedback, feedback,
                          p.at<const F>(0), p.at<const F>(1), p.at<const F>(2), p.at<const F>(3), p.at<const F>(4),
                          p.at<const uint8_t>(5), p.at<F>(6), p.at<F>(7)};
    nb::gil_scoped_release free;
    if constexpr (sizeof(F) == 8) table().alpha_f64(a);
    else table().alpha_f32(a);
}

void alpha_slope(const StatisticalSizes& s, bool f64, bool feedback, nb::tuple p) {
    if (f64) slope<double>(s, feedback, p);
    else slope<float>(s, feedback, p);
}

}  // namespace

void bind_statistical(nb::module_& m) {
    nb::class_<StatisticalSizes>(m, "StatisticalSizes")
        .def("__init__", [](StatisticalSizes* self, int64_t T, int64_t B, int64_t P, int64_t R, int64_t A, int activation,
                            int threads) { new (self) StatisticalSizes(sizes_of(T, B, P, R, A, activation, threads)); })
        .def_prop_ro("forward_scratch", [](const StatisticalSizes& s) { return forward_scratch(s); })
        .def_prop_ro("backward_scratch", [](const StatisticalSizes& s) { return backward_scratch(s); });
    m.def("statistical_forward", &forward, "sizes, float64, addresses of StatisticalForward");
    m.def("statistical_backward", &backward, "sizes, float64, addresses of StatisticalBackward");
    m.def("statistical_alpha_slope", &alpha_slope, "sizes, float64, feedback, addresses: y, g, g_n, s_0, alphas, padding, scratch, grad");
}
