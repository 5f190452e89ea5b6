// How the bindings see Python strings and hand back numpy arrays.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/tokenise.hpp"

namespace karui {

// The code points of a Python str, valid while the str lives. TypeError for anything else.
inline Text text_of(nanobind::handle object) {
    if (!PyUnicode_Check(object.ptr())) {
        PyErr_Format(PyExc_TypeError, "a text must be a str, got %s: %.80R", Py_TYPE(object.ptr())->tp_name, object.ptr());
        throw nanobind::python_error();
    }
    return Text{PyUnicode_DATA(object.ptr()), int64_t(PyUnicode_GET_LENGTH(object.ptr())), int(PyUnicode_KIND(object.ptr()))};
}

template <typename T>
using Vector = nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<1>>;

// Moves a vector into a one-dimensional numpy array without copying.
template <typename T>
Vector<T> to_numpy(std::vector<T>&& values) {
    auto* kept = new std::vector<T>(std::move(values));
    nanobind::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return Vector<T>(kept->data(), {kept->size()}, owner);
}

}  // namespace karui
