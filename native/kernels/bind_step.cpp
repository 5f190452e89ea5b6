#include <nanobind/nanobind.h>

#include <stdexcept>

#include "isa.hpp"
#include "kernels/addresses.hpp"
#include "kernels/simple_recurrence_step.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

const ScanStepTable& table() { return KARUI_TABLE(scan_step_table); }

template <typename R>
ScanStep<R> arrays(int64_t I, nb::tuple p) {
    ScanForward<R> scan{};
    scan.x = at<R>(p, 2);
    scan.weight_c = at<R>(p, 3);
    scan.bias = at<R>(p, 4);
    scan.c_0 = at<R>(p, 5);
    scan.h = at<R>(p, 6);
    scan.c_n = at<R>(p, 7);
    return {I, at<R>(p, 0), at<R>(p, 1), scan};
}

void scan_step(int64_t B, int64_t I, int64_t G, int64_t H, int activation, double scale, int threads, bool f64, nb::tuple p) {
    if (B < 0 || I < 1 || (G != 3 && G != 4) || H < 1 || threads < 1)
        throw std::invalid_argument("sizes must be B >= 0, I >= 1, G in {3, 4}, H >= 1, threads >= 1");
    if (activation < 0 || activation > static_cast<int>(Activation::relu))
        throw std::invalid_argument("activation must be 0 (identity), 1 (tanh) or 2 (relu)");
    const ScanSizes sizes{1, B, 1, G, H, static_cast<Activation>(activation), scale, threads};
    if (f64) {
        const auto a = arrays<double>(I, p);
        nb::gil_scoped_release free;
        table().f64(sizes, a);
    } else {
        const auto a = arrays<float>(I, p);
        nb::gil_scoped_release free;
        table().f32(sizes, a);
    }
}

}  // namespace

void bind_step(nb::module_& m) {
    m.def("scan_step", &scan_step,
          "B, I, G, H, activation, scale, threads, float64, addresses: x, weight_ih, skip, weight_c, bias, c_0, h, c_n");
}
