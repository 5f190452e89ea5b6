// Arrays cross the border as addresses: what the Python side makes of a tensor whose dtype, shape and contiguity it has
// checked; 0 for none.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdint>

namespace karui {

template <typename T>
T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

template <typename T>
T* at(nanobind::tuple addresses, int i) { return at<T>(nanobind::cast<uintptr_t>(addresses[i])); }

}  // namespace karui
