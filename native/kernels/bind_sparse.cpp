#include <nanobind/nanobind.h>

#include <stdexcept>

#include "isa.hpp"
#include "kernels/addresses.hpp"
#include "kernels/drawn_linear.hpp"
#include "kernels/gaussian_draw.hpp"
#include "kernels/hard_concrete.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

const HardConcreteTable& gates() { return KARUI_TABLE(hard_concrete_table); }
const DrawnLinearTable& drawn_linear() { return KARUI_TABLE(drawn_linear_table); }
const GaussianTable& gaussian() { return KARUI_TABLE(gaussian_table); }

HardConcreteLaw law_of(nb::tuple p) {
    auto a = [&](int i) { return nb::cast<double>(p[i]); };
    return {a(0), a(1), a(2), a(3), a(4), a(5)};
}

template <typename R>
double draw_as(const HardConcreteFunctions<R>& run, int64_t n, int threads, uint64_t seed, nb::tuple law, nb::tuple p) {
    const HardConcreteLaw given = law_of(law);
    const GateDraw<R> arrays{at<R>(p, 0), at<const R>(p, 1), at<R>(p, 2), at<R>(p, 3)};
    nb::gil_scoped_release free;
    return run.draw(n, threads, seed, given, arrays);
}

double gate_draw(int64_t n, int threads, bool f64, uint64_t seed, nb::tuple law, nb::tuple p) {
    if (f64) return draw_as(gates().f64, n, threads, seed, law, p);
    return draw_as(gates().f32, n, threads, seed, law, p);
}

template <typename R>
void gradient_as(const HardConcreteFunctions<R>& run, int64_t n, int threads, nb::tuple law, double scale, nb::tuple p) {
    const HardConcreteLaw given = law_of(law);
    const GateGradient<R> arrays{at<const R>(p, 0), at<const R>(p, 1), at<const R>(p, 2), at<const R>(p, 3),
                                 at<R>(p, 4), at<R>(p, 5), scale};
    nb::gil_scoped_release free;
    run.gradient(n, threads, given, arrays);
}

void gate_gradient(int64_t n, int threads, bool f64, nb::tuple law, double scale, nb::tuple p) {
    if (f64) gradient_as(gates().f64, n, threads, law, scale, p);
    else gradient_as(gates().f32, n, threads, law, scale, p);
}

template <typename R>
void blocks_as(const HardConcreteFunctions<R>& run, int threads, nb::tuple sizes, nb::tuple p) {
    auto size = [&](int i) { return nb::cast<int64_t>(sizes[i]); };
    const BlockProduct<R> arrays{size(0), size(1), size(2), size(3), at<const R>(p, 0), at<const R>(p, 1), at<R>(p, 2),
                                 at<const R>(p, 3), at<R>(p, 4)};
    if (arrays.rows < 0 || arrays.columns < 0 || arrays.height < 1 || arrays.width < 1)
        throw std::invalid_argument("sizes must be rows, columns >= 0, height, width >= 1");
    nb::gil_scoped_release free;
    if (arrays.grad) run.block_gradient(threads, arrays);
    else run.block_product(threads, arrays);
}

void gate_blocks(int threads, bool f64, nb::tuple sizes, nb::tuple p) {
    if (f64) blocks_as(gates().f64, threads, sizes, p);
    else blocks_as(gates().f32, threads, sizes, p);
}

DrawnLinearSizes linear_sizes(int threads, nb::tuple sizes) {
    auto size = [&](int i) { return nb::cast<int64_t>(sizes[i]); };
    const DrawnLinearSizes found{size(0), size(1), size(2), size(3), size(4), threads};
    if (found.N < 1 || found.C < 1 || found.R < 1 || found.height < 1 || found.width < 1 || threads < 1)
        throw std::invalid_argument("sizes must be N, C, R, height, width >= 1, and at least one thread");
    if (size(5) != found.down() * found.across())
        throw std::invalid_argument("there must be as many gates as the weight has blocks");
    return found;
}

template <typename R>
double linear_as(const DrawnLinearFunctions<R>& run, const DrawnLinearSizes& s, uint64_t seed, nb::tuple law, nb::tuple p) {
    const HardConcreteLaw given = law_of(law);
    const DrawnLinearForward<R> arrays{at<const R>(p, 0), at<const R>(p, 1), at<const R>(p, 2),
                                       at<R>(p, 3), at<R>(p, 4), at<R>(p, 5), at<R>(p, 6)};
    nb::gil_scoped_release free;
    return run.forward(s, seed, given, arrays);
}

double drawn_linear_forward(int threads, bool f64, nb::tuple sizes, uint64_t seed, nb::tuple law, nb::tuple p) {
    const DrawnLinearSizes s = linear_sizes(threads, sizes);
    return f64 ? linear_as(drawn_linear().f64, s, seed, law, p) : linear_as(drawn_linear().f32, s, seed, law, p);
}

template <typename R>
void linear_gradient_as(const DrawnLinearFunctions<R>& run, const DrawnLinearSizes& s, nb::tuple law, double scale, nb::tuple p) {
    const HardConcreteLaw given = law_of(law);
    const DrawnLinearBackward<R> arrays{at<const R>(p, 0), at<const R>(p, 1), at<const R>(p, 2), at<const R>(p, 3),
                                        at<R>(p, 4), at<R>(p, 5), at<R>(p, 6), at<R>(p, 7), scale};
    nb::gil_scoped_release free;
    run.backward(s, given, arrays);
}

void drawn_linear_backward(int threads, bool f64, nb::tuple sizes, nb::tuple law, double scale, nb::tuple p) {
    const DrawnLinearSizes s = linear_sizes(threads, sizes);
    if (f64) linear_gradient_as(drawn_linear().f64, s, law, scale, p);
    else linear_gradient_as(drawn_linear().f32, s, law, scale, p);
}

double open_count(int64_t n, int threads, bool f64, double shift, uintptr_t log_alpha, uintptr_t sizes) {
    nb::gil_scoped_release free;
    if (f64)
        return gates().f64.open_count(threads, {n, shift, at<double>(log_alpha), at<double>(sizes)});
    return gates().f32.open_count(threads, {n, shift, at<float>(log_alpha), at<float>(sizes)});
}

void open_gradient(int64_t n, int threads, bool f64, double shift, double scale, nb::tuple p) {
    if (f64) {
        const OpenCount<double> arrays{n, shift, at<const double>(p, 0), at<const double>(p, 1)};
        double* grad = at<double>(p, 2);
        nb::gil_scoped_release free;
        gates().f64.open_gradient(threads, scale, arrays, grad);
    } else {
        const OpenCount<float> arrays{n, shift, at<const float>(p, 0), at<const float>(p, 1)};
        float* grad = at<float>(p, 2);
        nb::gil_scoped_release free;
        gates().f32.open_gradient(threads, scale, arrays, grad);
    }
}

template <typename R>
void gaussian_as(const GaussianFunctions<R>& run, int threads, uint64_t seed, bool is_variance, nb::tuple sizes, nb::tuple p) {
    const GaussianDraw<R> arrays{nb::cast<int64_t>(sizes[0]), nb::cast<int64_t>(sizes[1]), at<const int64_t>(p, 0),
                                 at<const R>(p, 1), at<const R>(p, 2), at<R>(p, 3), at<const R>(p, 4)};
    const Spread kind = is_variance ? Spread::variance : Spread::log_variance;
    nb::gil_scoped_release free;
    if (arrays.grad) run.gradient(threads, seed, kind, arrays);
    else run.draw(threads, seed, kind, arrays);
}

void gaussian_draw(int threads, bool f64, uint64_t seed, bool is_variance, nb::tuple sizes, nb::tuple p) {
    if (f64) gaussian_as(gaussian().f64, threads, seed, is_variance, sizes, p);
    else gaussian_as(gaussian().f32, threads, seed, is_variance, sizes, p);
}

}  // namespace

void bind_sparse(nb::module_& m) {
    m.def("gate_draw", &gate_draw, "n, threads, float64, seed, HardConcreteLaw, addresses of GateDraw; returns the expected number of open gates");
    m.def("gate_gradient", &gate_gradient, "n, threads, float64, HardConcreteLaw, scale, addresses of GateGradient");
    m.def("gate_blocks", &gate_blocks, "threads, float64, sizes and addresses of BlockProduct; gradients where grad is given");
    m.def("drawn_linear_forward", &drawn_linear_forward,
          "threads, float64, sizes, seed, HardConcreteLaw, addresses of DrawnLinearForward; returns the expected number of open gates");
    m.def("drawn_linear_backward", &drawn_linear_backward,
          "threads, float64, sizes, HardConcreteLaw, scale, addresses of DrawnLinearBackward");
    m.def("open_count", &open_count, "n, threads, float64, shift, addresses: log_alpha, sizes");
    m.def("open_gradient", &open_gradient, "n, threads, float64, shift, scale, addresses: log_alpha, sizes, grad");
    m.def("gaussian_draw", &gaussian_draw,
          "threads, float64, seed, spread is a variance, sizes and addresses of GaussianDraw; gradients where grad is given");
}
