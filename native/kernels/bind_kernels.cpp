#include <nanobind/nanobind.h>

#include <stdexcept>

#include "isa.hpp"
#include "kernels/addresses.hpp"
#include "kernels/linear_recurrence.hpp"
#include "kernels/simple_recurrence.hpp"
#include "kernels/variational_kl.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

const ScanTable& scan() { return KARUI_TABLE(scan_table); }
const LinearTable& linear() { return KARUI_TABLE(linear_table); }
const KlTable& kl() { return KARUI_TABLE(kl_table); }

struct PyScanSizes {
    ScanSizes sizes;
    PyScanSizes(int64_t T, int64_t B, int64_t D, int64_t G, int64_t H, int activation, double scale, int threads)
        : sizes{T, B, D, G, H, static_cast<Activation>(activation), scale, threads} {
        if (T < 0 || B < 0 || D < 1 || D > 2 || (G != 3 && G != 4) || H < 1 || threads < 1)
            throw std::invalid_argument("sizes must be T, B >= 0, D in {1, 2}, G in {3, 4}, H >= 1, threads >= 1");
        if (activation < 0 || activation > static_cast<int>(Activation::relu))
            throw std::invalid_argument("activation must be 0 (identity), 1 (tanh) or 2 (relu)");
    }
};

template <typename R>
ScanForward<R> forward_arrays(nb::tuple p) {
    return {at<const R>(p, 0), at<const R>(p, 1), at<const R>(p, 2), at<const R>(p, 3), at<const R>(p, 4),
            at<const R>(p, 5), at<const uint8_t>(p, 6), at<R>(p, 7), at<R>(p, 8), at<R>(p, 9)};
}

template <typename R>
ScanBackward<R> backward_arrays(nb::tuple forward, nb::tuple p) {
    return {forward_arrays<R>(forward), at<const R>(p, 0), at<const R>(p, 1), at<R>(p, 2), at<R>(p, 3),
            at<R>(p, 4), at<R>(p, 5), at<R>(p, 6), at<R>(p, 7)};
}

void scan_forward(const PyScanSizes& s, bool f64, nb::tuple p) {
    if (f64) {
        auto arrays = forward_arrays<double>(p);
        nb::gil_scoped_release free;
        scan().forward_f64(s.sizes, arrays);
    } else {
        auto arrays = forward_arrays<float>(p);
        nb::gil_scoped_release free;
        scan().forward_f32(s.sizes, arrays);
    }
}

void scan_backward(const PyScanSizes& s, bool f64, nb::tuple forward, nb::tuple p) {
    if (f64) {
        auto arrays = backward_arrays<double>(forward, p);
        nb::gil_scoped_release free;
        scan().backward_f64(s.sizes, arrays);
    } else {
        auto arrays = backward_arrays<float>(forward, p);
        nb::gil_scoped_release free;
        scan().backward_f32(s.sizes, arrays);
    }
}

struct PyLinearSizes {
    LinearSizes sizes;
    PyLinearSizes(int64_t T, int64_t B, int64_t D, int64_t H, int threads) : sizes{T, B, D, H, threads} {
        if (T < 0 || B < 0 || D < 1 || D > 2 || H < 1 || threads < 1)
            throw std::invalid_argument("sizes must be T, B >= 0, D in {1, 2}, H >= 1, threads >= 1");
    }
};

template <typename R>
LinearForward<R> linear_forward_arrays(nb::tuple p) {
    return {at<const R>(p, 0), at<const R>(p, 1), at<const R>(p, 2), at<const uint8_t>(p, 3), at<R>(p, 4), at<R>(p, 5)};
}

template <typename R>
LinearBackward<R> linear_backward_arrays(nb::tuple p) {
    return {at<const R>(p, 0), at<const R>(p, 1), at<const uint8_t>(p, 2), at<const R>(p, 3), at<const R>(p, 4),
            at<const R>(p, 5), at<R>(p, 6), at<R>(p, 7), at<R>(p, 8)};
}

void linear_forward(const PyLinearSizes& s, bool f64, nb::tuple p) {
    if (f64) {
        auto arrays = linear_forward_arrays<double>(p);
        nb::gil_scoped_release free;
        linear().forward_f64(s.sizes, arrays);
    } else {
        auto arrays = linear_forward_arrays<float>(p);
        nb::gil_scoped_release free;
        linear().forward_f32(s.sizes, arrays);
    }
}

void linear_backward(const PyLinearSizes& s, bool f64, nb::tuple p) {
    if (f64) {
        auto arrays = linear_backward_arrays<double>(p);
        nb::gil_scoped_release free;
        linear().backward_f64(s.sizes, arrays);
    } else {
        auto arrays = linear_backward_arrays<float>(p);
        nb::gil_scoped_release free;
        linear().backward_f32(s.sizes, arrays);
    }
}

double kl_value(int64_t n, int threads, bool f64, uintptr_t weight, uintptr_t log_sigma2) {
    nb::gil_scoped_release free;
    if (f64) return kl().value_f64(n, threads, at<const double>(weight), at<const double>(log_sigma2));
    return kl().value_f32(n, threads, at<const float>(weight), at<const float>(log_sigma2));
}

template <typename R>
KlGradient<R> kl_arrays(nb::tuple p) {
    return {at<const R>(p, 0), at<const R>(p, 1), at<R>(p, 2), at<R>(p, 3)};
}

void kl_gradient(int64_t n, int threads, bool f64, double scale, nb::tuple p) {
    if (f64) {
        auto arrays = kl_arrays<double>(p);
        nb::gil_scoped_release free;
        kl().gradient_f64(n, threads, scale, arrays);
    } else {
        auto arrays = kl_arrays<float>(p);
        nb::gil_scoped_release free;
        kl().gradient_f32(n, threads, scale, arrays);
    }
}

}  // namespace

void bind_kernels(nb::module_& m) {
    nb::class_<PyScanSizes>(m, "ScanSizes")
        .def(nb::init<int64_t, int64_t, int64_t, int64_t, int64_t, int, double, int>());
    m.def("scan_forward", &scan_forward, "sizes, float64, addresses of ScanForward");
    m.def("scan_backward", &scan_backward, "sizes, float64, addresses of ScanForward, addresses of ScanBackward");
    nb::class_<PyLinearSizes>(m, "LinearSizes").def(nb::init<int64_t, int64_t, int64_t, int64_t, int>());
    m.def("linear_forward", &linear_forward, "sizes, float64, addresses of LinearForward");
    m.def("linear_backward", &linear_backward, "sizes, float64, addresses of LinearBackward");
    m.def("kl_value", &kl_value, "n, threads, float64, addresses: weight, log_sigma2");
    m.def("kl_gradient", &kl_gradient, "n, threads, float64, scale, addresses of KlGradient");
    m.def("isa", [] { return best_isa() == Isa::avx512 ? "avx512" : best_isa() == Isa::avx2 ? "avx2" : "generic"; });
}
