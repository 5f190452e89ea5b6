// How the bindings of both engines take weights: shapes are checked here once more before the engine takes pointers.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <string>
#include <vector>

#include "engine/engine.hpp"

namespace karui {

namespace nb = nanobind;

using Array = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

inline Array shaped(nb::handle object, const char* name, std::initializer_list<int64_t> shape) {
    Array array;
    bool fits = !object.is_none() && nb::try_cast(object, array) && array.ndim() == shape.size();
    size_t axis = 0;
    for (int64_t size : shape) fits = fits && int64_t(array.shape(axis++)) == size;
    if (!fits) throw nb::value_error((std::string(name) + " has a wrong shape or type").c_str());
    return array;
}

inline std::vector<float> copied(const Array& array) { return std::vector<float>(array.data(), array.data() + array.size()); }

inline int64_t first_size(nb::handle object, const char* name) {
    Array array;
    if (object.is_none() || !nb::try_cast(object, array) || array.ndim() != 1) throw nb::value_error((std::string(name) + " must be a float32 vector").c_str());
    return int64_t(array.shape(0));
}

// Number of rows of a matrix among the parts of a direction.
inline int64_t rows_of(const nb::dict& parts, const char* name) {
    Array array;
    if (!parts.contains(name) || !nb::try_cast(parts[name], array) || array.ndim() != 2) throw nb::value_error((std::string(name) + " must be a float32 matrix").c_str());
    return int64_t(array.shape(0));
}

// Parts of a direction by their names in the file; arrays stay alive in `kept` until the engine has copied them.
inline Weights weights_of(const nb::dict& parts, const Form& form, int64_t inputs, std::vector<Array>& kept) {
    auto take = [&](const char* name, std::initializer_list<int64_t> shape) {
        if (!parts.contains(name)) throw nb::value_error((std::string(name) + " must be given").c_str());
        kept.push_back(shaped(parts[name], name, shape));
        return kept.back().data();
    };
    Weights w;
    if (form.kind == Kind::statistical) {
        w.P = rows_of(parts, "weight_ih");
        w.R = rows_of(parts, "weight_r");
        w.H = rows_of(parts, "weight_o");
        w.n_alphas = parts.contains("alphas") ? first_size(parts["alphas"], "alphas") : 0;
        w.alphas = take("alphas", {w.n_alphas});
        w.ih = take("weight_ih", {w.P, inputs});
        w.r = take("weight_r", {w.R, w.n_alphas * w.P});
        w.phi = take("weight_phi", {w.P, w.R});
        w.o = take("weight_o", {w.H, w.n_alphas * w.P});
        w.bias = take("bias", {w.P + w.R + w.H});
        return w;
    }
    const int64_t biases = form.kind == Kind::sru || form.kind == Kind::mingru ? 2 : form.kind == Kind::qrnn ? 2 + form.output_gate : 4;
    const int64_t gates = form.kind == Kind::sru ? 4 : form.kind == Kind::gru ? 3 : biases;
    w.H = (parts.contains("bias") ? first_size(parts["bias"], "bias") : 0) / biases;
    w.bias = take("bias", {biases * w.H});
    w.ih = take("weight_ih", {gates * w.H, inputs * form.window});
    if (form.kind == Kind::sru) w.c = take("weight_c", {2 * w.H});
    if (form.kind == Kind::lstm || form.kind == Kind::gru) w.hh = take("weight_hh", {gates * w.H, w.H});
    return w;
}

// Kind, activation, window, output_gate and directions of a layer.
inline Form form_of(const nb::tuple& layer) {
    const int kind = nb::cast<int>(layer[0]), activation = nb::cast<int>(layer[1]), window = nb::cast<int>(layer[2]);
    if (kind < 0 || kind > 6 || kind == 3) throw nb::value_error("kind must be 0, 1, 2, 4, 5 or 6");
    if (activation < 0 || activation > 3) throw nb::value_error("activation must be in 0 .. 3");
    const Form form = {Kind(kind), Activation(activation), window, nb::cast<bool>(layer[3])};
    if (window != 1 && (window != 2 || form.kind != Kind::qrnn)) throw nb::value_error("window must be 1, or 2 of a QRNN");
    return form;
}

}  // namespace karui
