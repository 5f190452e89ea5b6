#include <nanobind/nanobind.h>

#include <stdexcept>

#include "isa.hpp"
#include "kernels/addresses.hpp"
#include "kernels/simple_recurrence_layer.hpp"

namespace nb = nanobind;
using namespace karui;

namespace {

const LayerTable& table() { return KARUI_TABLE(layer_table); }

struct PyLayerSizes {
    LayerSizes sizes;
    bool f64;
    LayerRoom room;
    PyLayerSizes(int64_t T, int64_t B, int64_t I, int64_t G, int64_t H, int activation, double scale, int threads,
                 int64_t chunk_rows, bool f64_)
        : sizes{T, B, I, G, H, static_cast<Activation>(activation), scale, threads, chunk_rows}, f64(f64_) {
        if (T < 0 || B < 0 || I < 1 || (G != 3 && G != 4) || H < 1 || threads < 1 || chunk_rows < 0)
            throw std::invalid_argument("sizes must be T, B, chunk_rows >= 0, I, H, threads >= 1, G in {3, 4}");
        if (activation < 0 || activation > static_cast<int>(Activation::relu))
            throw std::invalid_argument("activation must be 0 (identity), 1 (tanh) or 2 (relu)");
        room = f64 ? table().room_f64(sizes) : table().room_f32(sizes);
    }
};

template <typename R>
LayerForward<R> forward_arrays(nb::tuple p) {
    auto a = [&](int i) { return at<R>(p, i); };
    return {a(0), a(1), a(2), a(3), a(4), a(5), a(6), at<const uint8_t>(p, 7), a(8), a(9), a(10), a(11)};
}

template <typename R>
LayerBackward<R> backward_arrays(nb::tuple forward, nb::tuple p) {
    auto a = [&](int i) { return at<R>(p, i); };
    return {forward_arrays<R>(forward), a(0), a(1), a(2), a(3), a(4), a(5), a(6), a(7), a(8)};
}

void layer_forward(const PyLayerSizes& s, nb::tuple p) {
    if (s.f64) {
        const auto a = forward_arrays<double>(p);
        nb::gil_scoped_release free;
        table().forward_f64(s.sizes, a);
    } else {
        const auto a = forward_arrays<float>(p);
        nb::gil_scoped_release free;
        table().forward_f32(s.sizes, a);
    }
}

void layer_backward(const PyLayerSizes& s, nb::tuple forward, nb::tuple p) {
    if (s.f64) {
        const auto a = backward_arrays<double>(forward, p);
        nb::gil_scoped_release free;
        table().backward_f64(s.sizes, a);
    } else {
        const auto a = backward_arrays<float>(forward, p);
        nb::gil_scoped_release free;
        table().backward_f32(s.sizes, a);
    }
}

}  // namespace

void bind_layer(nb::module_& m) {
    nb::class_<PyLayerSizes>(m, "LayerSizes", "T, B, I, G, H, activation, scale, threads, chunk_rows, float64")
        .def(nb::init<int64_t, int64_t, int64_t, int64_t, int64_t, int, double, int, int64_t, bool>())
        .def_prop_ro("kept", [](const PyLayerSizes& s) { return s.room.kept; })
        .def_prop_ro("forward", [](const PyLayerSizes& s) { return s.room.forward; })
        .def_prop_ro("backward", [](const PyLayerSizes& s) { return s.room.backward; });
    m.def("layer_forward", &layer_forward, "sizes, addresses of LayerForward");
    m.def("layer_backward", &layer_backward, "sizes, addresses of LayerForward, addresses of LayerBackward");
}
