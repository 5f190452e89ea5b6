#include <nanobind/nanobind.h>

#include <stdexcept>

#include "isa.hpp"
#include "kernels/addresses.hpp"
#include "kernels/statistical_recurrence.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

const StatisticalTable& table() { return KARUI_TABLE(statistical_table); }

template <typename F>
StatisticalForward<F> forward_arrays(nb::tuple p) {
    return {at<const F>(p, 0), at<const F>(p, 1), at<const F>(p, 2), at<const F>(p, 3), at<const F>(p, 4), at<const F>(p, 5),
            at<const uint8_t>(p, 6), at<F>(p, 7), at<F>(p, 8), at<F>(p, 9), at<F>(p, 10), at<F>(p, 11)};
}

template <typename F>
StatisticalBackward<F> backward_arrays(nb::tuple p) {
    return {at<const F>(p, 0), at<const F>(p, 1), at<const F>(p, 2), at<const uint8_t>(p, 3), at<const F>(p, 4),
            at<const F>(p, 5), at<const F>(p, 6), at<const F>(p, 7), at<F>(p, 8), at<F>(p, 9), at<F>(p, 10), at<F>(p, 11),
            at<F>(p, 12), at<F>(p, 13)};
}

StatisticalSizes sizes_of(int64_t T, int64_t B, int64_t P, int64_t R, int64_t A, int activation, int threads) {
    if (T < 0 || B < 0 || P < 1 || R < 0 || A < 1 || activation < 0 || activation > 2 || threads < 1)
        throw std::invalid_argument("sizes must be T, B, R >= 0, P, A >= 1, activation in 0..2, threads >= 1");
    return {T, B, P, R, A, static_cast<Activation>(activation), threads};
}

void forward(const StatisticalSizes& s, bool f64, nb::tuple p) {
    if (f64) {
        auto arrays = forward_arrays<double>(p);
        nb::gil_scoped_release free;
        table().forward_f64(s, arrays);
    } else {
        auto arrays = forward_arrays<float>(p);
        nb::gil_scoped_release free;
        table().forward_f32(s, arrays);
    }
}

void backward(const StatisticalSizes& s, bool f64, nb::tuple p) {
    if (f64) {
        auto arrays = backward_arrays<double>(p);
        nb::gil_scoped_release free;
        table().backward_f64(s, arrays);
    } else {
        auto arrays = backward_arrays<float>(p);
        nb::gil_scoped_release free;
        table().backward_f32(s, arrays);
    }
}

template <typename F>
void slope(const StatisticalSizes& s, bool feedback, nb::tuple p) {
    const AlphaSlope<F> a{s.T, s.B, s.A, feedback ? s.R : s.P, s.threads, !feedback, feedback,
                          at<const F>(p, 0), at<const F>(p, 1), at<const F>(p, 2), at<const F>(p, 3), at<const F>(p, 4),
                          at<const uint8_t>(p, 5), at<F>(p, 6), at<F>(p, 7)};
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
